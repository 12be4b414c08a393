"""`sway run` and `sway gate` from the words of a command to its end; the suite itself is a stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import pytest

from dlm_sway.cli.app import run
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.paths import results_dir
from dlm_sway.core.result import ProbeResult, SuiteResult, Verdict
from dlm_sway.report.write import FORMATS, rendered

Capture = pytest.CaptureFixture[str]
StandIn = Callable[..., None]
Calls = list[dict[str, Any]]
SUITE = """\
version: 1
models: {base: {kind: dummy, base: tiny}, ft: {}}
suite:
  - {name: a, kind: delta_kl}
  - {name: b, kind: external_perplexity}
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """Return a suite file of two probes."""
    path = tmp_path / "sway.yaml"
    path.write_text(SUITE)
    return path


def _result(verdict: str = "pass", score: float = 1.0) -> SuiteResult:
    probe = ProbeResult(name="a", kind="delta_kl", verdict=Verdict(verdict), score=score, message="because \x1b[31m")
    provenance = {"suite": {"categories": {"a": "adherence"}}}
    return SuiteResult(
        name="s", base="b", probes=(probe,), score=score, coverage=1.0, band="weak", provenance=provenance
    )


@pytest.fixture
def ran(stand_in: StandIn) -> Calls:
    """Put a run that passes in the place of the real one; return the calls it gets."""
    calls: Calls = []

    def suite_run(suite: Any, **settings: Any) -> SuiteResult:
        calls.append({"suite": suite, **settings})
        return _result()

    stand_in("dlm_sway.suite.run", run=suite_run)
    return calls


def test_the_defaults_leave_the_word_to_the_suite(spec: Path, ran: Calls) -> None:
    assert run(["run", str(spec), "--quiet"]) == 0
    call = ran[0]
    assert call.pop("suite").path == spec
    del call["progress"]
    assert call == {
        "bases": None,
        "only": (),
        "skip": (),
        "limit": None,
        "n_draws": None,
        "seed": None,
        "fast": False,
        "weights": {},
        "device": None,
        "dtype": None,
        "batch_tokens": None,
        "cache": results_dir(),
        "reuse": False,
        "trace": None,
        "allow_custom": False,
    }


@pytest.mark.parametrize("command", ["run", "gate"])
def test_every_option_reaches_the_suite(spec: Path, tmp_path: Path, ran: Calls, command: str) -> None:
    words = "--only a --only b --skip c --limit 3 --draws 99 --seed 7 --fast --weights adherence=1 --device cpu"
    files = ["--dtype", "bf16", "--batch-tokens", "512", "--trace", str(tmp_path / "t"), "--cache", "--quiet"]
    files += ["--allow-custom"]
    assert run([command, str(spec), *words.split(), *files]) == 0
    expected = {
        "only": ("a", "b"),
        "skip": ("c",),
        "limit": 3,
        "n_draws": 99,
        "seed": 7,
        "fast": True,
        "weights": {"adherence": 1.0},
        "device": "cpu",
        "dtype": "bf16",
        "allow_custom": True,
        "batch_tokens": 512,
        "reuse": True,
        "trace": tmp_path / "t",
    }
    assert expected.items() <= ran[0].items()


@pytest.mark.parametrize(
    ("verdict", "code"), [("pass", 0), ("warn", 0), ("fail", 1), ("error", 3), ("inconclusive", 4), ("skip", 4)]
)
def test_every_verdict_has_its_exit_code(
    spec: Path, stand_in: StandIn, capsys: Capture, verdict: str, code: int
) -> None:
    stand_in("dlm_sway.suite.run", run=lambda *_, **__: _result(verdict))
    assert run(["run", str(spec), "--quiet"]) == code
    out = capsys.readouterr().out
    assert verdict.upper() in out.splitlines()[0]
    assert "\x1b" not in out


def test_the_json_is_written_and_strict(spec: Path, tmp_path: Path, ran: Calls) -> None:
    out = tmp_path / "out.json"
    assert run(["run", str(spec), "--json", str(out), "--quiet"]) == 0
    assert SuiteResult.model_validate(json.loads(out.read_text())) == _result()
    assert len(ran) == 1
    assert not list(tmp_path.glob(".*.journal"))


@pytest.mark.parametrize("option", ["--json", "--markdown", "--html", "--junit", "--trace"])
def test_a_place_that_cannot_be_written_is_found_before_the_work(
    spec: Path, tmp_path: Path, ran: Calls, option: str
) -> None:
    assert run(["run", str(spec), option, str(tmp_path / "absent" / "x")]) == 2
    assert ran == []


def test_each_format_goes_to_its_place(spec: Path, tmp_path: Path, ran: Calls) -> None:
    places = {name: tmp_path / name for name in FORMATS}
    assert run(["run", str(spec), "--quiet", *(w for n, path in places.items() for w in (f"--{n}", str(path)))]) == 0
    for name, path in places.items():
        assert path.read_text(encoding="utf-8") == rendered(_result(), name)
    assert len(ran) == 1


def test_one_report_that_cannot_be_written_costs_none_of_the_others(
    spec: Path, tmp_path: Path, ran: Calls, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def full(path: Path, text: str) -> None:
        if path.name == "j":
            raise CannotRunError("could not be written: No space left on device")
        path.write_text(text, encoding="utf-8")

    monkeypatch.setattr("dlm_sway.cli.deliver.write_atomic", full)
    assert run(["run", str(spec), "--quiet", "--json", str(tmp_path / "j"), "--html", str(tmp_path / "h")]) == 3
    assert (tmp_path / "h").exists()
    captured = capsys.readouterr()
    assert "PASS" in captured.out
    assert "No space left" in captured.err
    assert len(ran) == 1


def test_every_fault_of_the_file_is_a_line(spec: Path, ran: Calls, capsys: Capture) -> None:
    spec.write_text(SUITE.replace("delta_kl", "delta_kll").replace("name: b", "nam: b"))
    assert run(["run", str(spec)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ", 2)[1].rsplit(":", 2)[1:] for line in lines] == [["4", "21"], ["5", "5"], ["5", "6"]]
    assert ran == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--draws", "18"], "18 draws are too few"),
        (["--weights", "adherance=1"], "did you mean `adherence`?"),
        (["--limit", "0"], "Invalid value for '--limit'"),
        (["--dtype", "fp8"], "Invalid value for '--dtype': 'fp8' is not one of 'auto', "),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_2(
    spec: Path, ran: Calls, capsys: Capture, words: list[str], message: str
) -> None:
    assert run(["run", str(spec), *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert ran == []


def test_a_dry_run_says_what_it_would_cost_and_runs_nothing(spec: Path, capsys: Capture) -> None:
    assert run(["run", str(spec), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "view-tokens" in out
    assert all(name in out for name in ("null_adapter", "a", "b"))
    assert "nothing was loaded or scored" in out


@pytest.mark.parametrize("option", ["--json", "--html", "--trace"])
def test_a_dry_run_refuses_what_it_would_not_write(spec: Path, capsys: Capture, option: str) -> None:
    assert run(["run", str(spec), "--dry-run", option, "nodir/x"]) == 2
    assert f"nothing to write for {option}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("score", "Infinity", "is no JSON"),
        ("score", "1e999", "probes.0.score is inf, and a score lies in [0, 1]"),
        ("score", "1.5", "probes.0.score is 1.5"),
        ("score", "-0.1", "probes.0.score is -0.1"),
        ("raw", "NaN", "is no JSON"),
    ],
)
def test_a_gate_takes_no_score_that_none_can_be(
    written: Path, capsys: Capture, key: str, value: str, said: str
) -> None:
    document = json.loads(written.read_text())
    document["probes"][0][key] = "VALUE"
    written.write_text(json.dumps(document).replace('"VALUE"', value))
    assert run(["gate", str(written)]) == 2
    assert said in capsys.readouterr().err


def test_a_gate_takes_no_probe_twice(written: Path, capsys: Capture) -> None:
    document = json.loads(written.read_text())
    document["probes"] *= 2
    written.write_text(json.dumps(document))
    assert run(["gate", str(written)]) == 2
    name, err = document["probes"][0]["name"], capsys.readouterr().err
    assert f"two probes are called `{name}`; name a file that `sway run SPEC --json PATH` wrote" in err


def test_the_gate_judges_a_run(spec: Path, stand_in: StandIn, capsys: Capture) -> None:
    stand_in("dlm_sway.suite.run", run=lambda *_, **__: _result(score=0.5))
    assert run(["gate", str(spec), "--quiet"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("✗ FAIL  the gate is closed by 1 thing\n")
    assert "the score of 0.50 is under 0.60" in out
    assert run(["gate", str(spec), "--quiet", "--threshold", "0.4"]) == 0


def test_the_reports_of_a_gate_say_whether_it_is_open_and_what_closed_it(tmp_path: Path) -> None:
    source = tmp_path / "l.json"
    source.write_text(_result(score=0.5).model_dump_json())
    paths = {name: tmp_path / f"g.{name}" for name in FORMATS}
    words = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    assert run(["gate", str(source), *words]) == 1
    suite = ET.fromstring(paths["junit"].read_text()).find("testsuite")  # noqa: S314 (our own output)
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    (failed,) = [case for case in suite.iter("testcase") if case.find("failure") is not None]
    assert (failed.get("name"), failed.get("classname")) == ("gate", "sway.gate")
    why = "the score of 0.50 is under 0.60"
    assert why in failed[0].get("message", "")
    assert paths["markdown"].read_text().splitlines()[0] == f"**❌ The gate is closed by 1 thing**: score: {why}"
    page = paths["html"].read_text()
    assert page.index("the gate is closed by 1 thing") < page.index(f"<li>score: {why}</li>") < page.index("<h1>")
    assert run(["gate", str(source), *words, "--threshold", "0.4"]) == 0
    assert 'failures="0"' in paths["junit"].read_text()
    assert paths["markdown"].read_text().startswith("**✅ The gate is open: score 0.50 of 0.40 needed**\n\n## ")
    assert "the gate is open: score 0.50 of 0.40 needed" in paths["html"].read_text()
    assert json.loads(paths["json"].read_text()) == json.loads(rendered(_result(score=0.5), "json"))


@pytest.mark.parametrize(("verdict", "tag"), [("error", "error"), ("fail", "failure"), ("inconclusive", "failure")])
def test_whatever_closes_a_gate_its_case_does_not_pass(tmp_path: Path, verdict: str, tag: str) -> None:
    source, out = tmp_path / "l.json", tmp_path / "g.xml"
    source.write_text(_result(verdict).model_dump_json())
    assert run(["gate", str(source), "--strict", "--junit", str(out)]) != 0
    case = ET.fromstring(out.read_text()).findall("./testsuite/testcase")[-1]  # noqa: S314 (our own output)
    assert case.get("name") == "gate"
    assert [child.tag for child in case] == [tag]


SAMPLE: Final = Path(__file__).parents[1] / "report" / "samples" / "suite-v1.json"
HONEST: Final = [probe["verdict"] for probe in json.loads(SAMPLE.read_text())["probes"]]


def test_a_gate_takes_what_a_run_wrote_whatever_its_verdicts(capsys: Capture) -> None:
    assert set(HONEST) == {"pass", "fail", "warn", "inconclusive", "skip", "error"}
    assert run(["gate", str(SAMPLE)]) == 3
    assert "its claims say" not in capsys.readouterr().err


@pytest.mark.parametrize("at", [i for i, verdict in enumerate(HONEST) if verdict in ("fail", "warn", "inconclusive")])
def test_a_gate_takes_no_verdict_that_the_claims_of_its_probe_do_not_make(
    tmp_path: Path, capsys: Capture, at: int
) -> None:
    document = json.loads(SAMPLE.read_text())
    probe, path = document["probes"][at], tmp_path / "edited.json"
    probe["verdict"] = "pass"
    path.write_text(json.dumps(document))
    assert run(["gate", str(path), "--json", str(tmp_path / "out.json")]) == 2
    said = f"sway: {path}: the verdict of probe `{probe['name']}` is pass, and its claims say {HONEST[at]}; "
    captured = capsys.readouterr()
    assert captured.err == f"{said}name the result as it was written, or run the suite again\n"
    assert captured.out == ""
    assert not (tmp_path / "out.json").exists()


def test_a_claim_whose_interval_has_no_end_still_makes_the_verdict(tmp_path: Path, capsys: Capture) -> None:
    document, path = json.loads(SAMPLE.read_text()), tmp_path / "result.json"
    (claim,) = document["probes"][HONEST.index("fail")]["evidence"]["claims"].values()
    claim["interval"] = [None, 0.3]
    path.write_text(json.dumps(document))
    assert run(["gate", str(path)]) == 3
    assert "its claims say" not in capsys.readouterr().err


@pytest.mark.parametrize("claims", [{}, [], "none", {"a": "fail"}, {"a": {"verdict": 3}}])
def test_claims_that_say_no_verdict_make_none(written: Path, claims: Any) -> None:
    document = json.loads(written.read_text())
    document["probes"][0]["evidence"] = {"claims": claims}
    written.write_text(json.dumps(document))
    assert run(["gate", str(written)]) == 0


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return the JSON file of a result that passes."""
    path = tmp_path / "result.json"
    path.write_text(_result().model_dump_json())
    return path


def test_a_verdict_turned_or_an_error_added_in_a_file_changes_the_end(written: Path, ran: Calls) -> None:
    assert run(["gate", str(written)]) == 0
    document = json.loads(written.read_text())
    document["probes"][0]["verdict"] = "fail"
    written.write_text(json.dumps(document))
    assert run(["gate", str(written)]) == 1
    document["probes"][0]["verdict"] = "pass"
    document["probes"].append({"name": "x", "kind": "y", "verdict": "error"})
    written.write_text(json.dumps(document))
    assert run(["gate", str(written)]) == 3
    document["probes"][1]["verdict"] = "inconclusive"
    written.write_text(json.dumps(document))
    assert run(["gate", str(written)]) == 0
    assert run(["gate", str(written), "--strict"]) == 4
    assert ran == []


NO_RUN: list[tuple[str, ...]] = [
    ("--skip", "bad"),
    ("--only", "good"),
    ("--seed", "1"),
    ("--limit", "3"),
    ("--draws", "39"),
    ("--fast",),
    ("--device", "cpu"),
    ("--dtype", "fp32"),
    ("--cache",),
    ("--resume",),
    ("--trace", "t.jsonl"),
    ("--batch-tokens", "9"),
    ("--allow-custom",),
]


@pytest.mark.parametrize("words", NO_RUN, ids=lambda words: words[0])
def test_the_gate_of_a_result_refuses_what_only_a_run_can_follow(
    written: Path, ran: Calls, capsys: Capture, words: tuple[str, ...]
) -> None:
    assert run(["gate", str(written), *words]) == 2
    err = capsys.readouterr().err
    assert f"cannot follow {words[0]}; " in err
    assert "name the suite's file" in err
    assert ran == []


def test_the_gate_of_a_result_takes_what_it_follows_and_what_the_environment_sets_for_all_commands(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWAY_CACHE", "1")
    monkeypatch.setenv("SWAY_SKIP", "bad")
    words = ("--quiet", "--threshold", "0.5", "--coverage", "0.5", "--strict", "--weights", "adherence=1")
    assert run(["gate", str(written), *words]) == 0


def test_a_gate_takes_no_result_of_a_newer_sway(written: Path, capsys: Capture) -> None:
    written.write_text(json.dumps({**json.loads(written.read_text()), "schema_version": 99}))
    assert run(["gate", str(written)]) == 2
    assert "has schema_version 99, and this sway reads up to 1" in capsys.readouterr().err


def test_a_claim_that_does_not_read_is_no_internal_error(written: Path) -> None:
    document = json.loads(written.read_text())
    document["probes"][0]["evidence"] = {"claims": {"learned": {"verdict": "perhaps"}}}
    written.write_text(json.dumps(document))
    assert run(["gate", str(written)]) == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"probes": 1}', '{"probes": [{"name": "x"}]}', '{"odd": 1}'])
def test_a_file_that_is_no_result_is_one_line_and_exit_2(written: Path, capsys: Capture, text: str) -> None:
    written.write_text(text)
    assert run(["gate", str(written)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c_leaves_a_journal_and_says_what_is_kept(
    spec: Path, tmp_path: Path, stand_in: StandIn, capsys: Capture
) -> None:
    def interrupted(*_: object, progress: Any, **__: object) -> None:
        progress.phase("scoring")
        progress.work(12, 40)
        stop = KeyboardInterrupt()
        stop.add_note("12 of 40 view-tokens are kept: run again with --resume")
        raise stop

    stand_in("dlm_sway.suite.run", run=interrupted)
    out = tmp_path / "out.json"
    assert run(["run", str(spec), "--json", str(out), "--quiet"]) == 130
    assert "12 of 40 view-tokens are kept: run again with --resume" in capsys.readouterr().err
    assert (tmp_path / ".out.json.journal").exists()
    assert not out.exists()
    assert run(["run", str(spec), "--json", str(out), "--resume"]) == 130
    assert ", 12 of 40 view-tokens\n" in capsys.readouterr().err


def test_a_gate_takes_no_result_of_a_check_whose_verdict_rests_on_more_than_probes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "check.json"
    path.write_text('{"questions": {}, "probes": []}')
    assert run(["gate", str(path)]) == 2
    err = capsys.readouterr().err
    assert "is the result of a check, not of a suite; name a file that `sway run SPEC --json PATH` wrote" in err


@pytest.mark.parametrize("form", [["run"], ["gate", "--threshold", "0.5"]])
def test_a_wrong_value_of_the_environment_is_called_by_its_variable(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, form: list[str]
) -> None:
    monkeypatch.setenv("SWAY_QUIET", "foo")
    assert run([*form, str(spec)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("sway: SWAY_QUIET is 'foo' in the environment: ")
    assert "--quiet" not in err
    monkeypatch.delenv("SWAY_QUIET")
    monkeypatch.setenv("SWAY_SEED", "soon")
    assert run([*form, str(spec), "--seed", "later"]) == 2
    assert "Invalid value for '--seed'" in capsys.readouterr().err
