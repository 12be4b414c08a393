"""Whole suites on the dummy: from the file to the result."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import yaml

import dlm_sway
from dlm_sway.backends import one_base
from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.core.errors import BadInputError, CannotRunError
from dlm_sway.core.result import Category, ProbeResult, SuiteResult, Verdict
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register
from dlm_sway.suite import run as run_module
from dlm_sway.suite.faults import SpecError
from dlm_sway.suite.gate import gate
from dlm_sway.suite.run import run

Language = Callable[..., tuple[str, ...]]
Make = Callable[..., Path]


class OfFilesSpec(ProbeSpec):
    """A file to look at."""

    kind: Literal["of_files"] = "of_files"
    file: Path


@register("of_files")
class OfFiles(Probe[OfFilesSpec]):
    """Is the file there?"""

    category: ClassVar[Category] = "calibration"
    spec_type: ClassVar[type[ProbeSpec]] = OfFilesSpec

    def plan(self, spec: OfFilesSpec, env: Env, seen: Seen) -> tuple[Any, ...]:  # noqa: ARG002 (it asks nothing)
        return ()

    def measure(self, spec: OfFilesSpec, env: Env, seen: Seen) -> Found:  # noqa: ARG002 (it reads a file)
        return Found(data={"there": spec.file.exists()})

    def judge(self, spec: OfFilesSpec, env: Env, found: Found, p: Any) -> ProbeResult:  # noqa: ARG002 (no test)
        verdict = Verdict.PASS if found.data["there"] else Verdict.FAIL
        return ProbeResult(name=spec.name, kind=spec.kind, verdict=verdict, score=1.0, message=str(spec.file))


@pytest.fixture
def make(tmp_path: Path, language: Language) -> Make:
    """Return what writes a suite of two files of data and a dummy."""

    def of(*members: dict[str, Any], options: dict[str, Any] | None = None, **parts: Any) -> Path:
        (tmp_path / "train.txt").write_text("\n".join(language(12)))
        (tmp_path / "held.txt").write_text("\n".join(language(8, seed=1)))
        healthy = {"adapter": "trained", "towards": list(language(12)), "strength": 2.0}
        document = {
            "version": 1,
            "models": {"base": {"kind": "dummy", "base": "tiny"}, "ft": {"options": options or healthy}},
            "defaults": {"draws": 19, **parts.pop("defaults", {})},
            "data": {"train": "train.txt", "held": "held.txt"},
            **parts,
            "suite": list(members),
        }
        path = tmp_path / "sway.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    return of


D: dict[str, Any] = {"name": "learned", "kind": "delta_kl", "prompts": {"data": "train"}}
T: dict[str, Any] = {
    "name": "on-target",
    "kind": "target_gain",
    "items": {"data": "train"},
    "held_out": {"data": "held"},
}
E: dict[str, Any] = {"name": "harmless", "kind": "external_perplexity"}
N: dict[str, Any] = {"name": "null", "kind": "null_adapter", "runs": 19}
F: dict[str, Any] = {"name": "file", "kind": "of_files", "file": "train.txt"}
NOISE: dict[str, Any] = {"strength": 0.1, "adapter_seed": 3}


def _run(path: Path, **settings: Any) -> SuiteResult:
    return run(path, **{"batch_tokens": 1 << 20, **settings})


def _verdicts(result: SuiteResult) -> dict[str, str]:
    return {p.name: p.verdict.value for p in result.probes}


def _untimed(result: SuiteResult) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.model_dump_json())
    del document["timing"]
    for probe in document["probes"]:
        del probe["duration_s"]
    return document


def test_a_healthy_adapter_passes_and_the_result_says_where_it_came_from(make: Make) -> None:
    result = _run(make(D, T, E))
    assert _verdicts(result) == {"null_adapter": "pass", "learned": "pass", "on-target": "pass", "harmless": "pass"}
    assert (result.verdict, result.band, result.coverage) == (Verdict.PASS, "healthy", 1.0)
    assert result.score is not None
    assert result.score > 0.6
    assert set(result.components) == {"adherence", "attribution", "calibration"}
    assert (result.name, result.base, result.adapter, result.next_steps) == ("sway", "tiny", None, ())
    assert result.probes[0].message.startswith("added, since the suite names no calibration: ")
    came_from = result.provenance
    assert came_from["suite"]["added"] == "null_adapter"
    assert came_from["suite"]["categories"]["harmless"] == "calibration"
    assert set(came_from["data_sha256"]) == {"train", "held"}
    assert {"seed", "n_draws", "alpha", "numeric_floor", "engine", "device", "dtype", "versions", "host"} <= set(
        came_from
    )
    assert {"total_s", "load_s", "view_tokens"} <= set(result.timing)
    assert gate(result).breaches == ()


def test_a_noise_adapter_is_noise_and_the_gate_says_why(make: Make) -> None:
    result = _run(make(D, T, E, options=NOISE))
    assert _verdicts(result) == {"null_adapter": "pass", "learned": "fail", "on-target": "fail", "harmless": "pass"}
    assert (result.verdict, result.band) == (Verdict.FAIL, "noise")
    assert result.next_steps[0].startswith("learned: its weights point nowhere in particular")
    assert [breach.why for breach in gate(result).breaches] == ["fail", "fail", "score"]


def test_the_place_of_calibration_changes_nothing(make: Make) -> None:
    first, last = (_run(make(*order)) for order in ((N, D, T, E), (D, T, E, N)))
    assert {p.name: p.evidence for p in first.probes} == {p.name: p.evidence for p in last.probes}
    assert [p.name for p in last.probes] == ["learned", "on-target", "harmless", "null"]
    assert set(first.probes[0].evidence["null_stats"]) == {"delta_kl", "target_gain"}


def test_the_same_suite_gives_the_same_result(make: Make) -> None:
    path = make(D, E)
    assert _untimed(_run(path)) == _untimed(_run(path))


def test_the_json_of_a_result_gives_the_result_again(make: Make) -> None:
    result = _run(make(D, T, E))
    again = SuiteResult.model_validate_json(result.model_dump_json())
    assert again == result
    assert gate(again).exit_code == gate(result).exit_code


def test_a_probe_that_reads_files_needs_no_model(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_base, "open_backend", lambda _: pytest.fail("a model was loaded"))
    result = _run(make(F))
    assert _verdicts(result) == {"file": "pass"}
    assert result.probes[0].message.endswith("train.txt")
    assert Path(result.probes[0].message).is_absolute()
    assert result.provenance["engine"] is None


def test_it_needs_no_torch_either(make: Make) -> None:
    script = (
        "import runpy, sys; sys.modules['torch'] = None\n"
        f"runpy.run_path({__file__!r})\n"
        "import dlm_sway\n"
        f"print(dlm_sway.run({str(make(F))!r}).verdict)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("pass\n", "")


def test_it_runs_also_where_the_model_cannot_be_loaded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object, **__: object) -> None:
        raise CannotRunError("no such machine")

    monkeypatch.setattr(one_base, "open_backend", refuse)
    result = _run(make(D, F, E))
    assert _verdicts(result) == {"null_adapter": "skip", "learned": "error", "file": "pass", "harmless": "skip"}
    assert "no such machine" in result.probes[1].message
    assert gate(result).exit_code == 3
    with pytest.raises(CannotRunError, match="no such machine"):
        _run(make(D, E))


def test_numbers_that_are_not_finite_are_one_error(make: Make) -> None:
    result = _run(make(D, E, F, options={"nan_in": ["adapter"]}))
    assert _verdicts(result) == {"null_adapter": "skip", "learned": "error", "harmless": "skip", "file": "pass"}
    assert "not finite" in result.probes[1].message


def test_the_backend_is_closed_whatever_happens(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[DummyBackend] = []

    def close(backend: DummyBackend) -> None:
        closed.append(backend)

    monkeypatch.setattr(DummyBackend, "close", close)
    _run(make(E))
    monkeypatch.setattr(run_module, "_answered", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        _run(make(E))
    assert len(closed) == 2


def test_settings_of_the_caller_reach_the_run(make: Make) -> None:
    result = _run(make(D, T, E), only=("harmless",), seed=7, weights={"calibration": 1.0})
    assert _verdicts(result) == {"harmless": "pass"}
    suite = result.provenance["suite"]
    assert (result.provenance["seed"], suite["only"], suite["weights"]["calibration"]) == (7, ["harmless"], 1.0)
    limited = _run(make(T), limit=2)
    assert limited.probes[1].verdict is Verdict.INCONCLUSIVE
    assert (limited.coverage, limited.provenance["suite"]["limit"]) == (0.0, 2)


def test_fast_stops_a_noise_adapter_early_with_the_same_verdicts(make: Make) -> None:
    path = make(D, T, options={**NOISE, "strength": 0.5}, defaults={"draws": 99})
    slow, fast = _run(path), _run(path, fast=True)
    assert _verdicts(fast) == _verdicts(slow)
    assert fast.provenance["n_draws"] == 19
    assert fast.probes[0].evidence["null_stats"]["delta_kl"]["n"] == 19
    assert slow.provenance["n_draws"] == 99
    assert fast.timing["view_tokens"] < slow.timing["view_tokens"]


@pytest.mark.parametrize("seed", range(5))
def test_fast_gives_the_verdicts_of_all_draws(make: Make, seed: int) -> None:
    # Among weights of this strength some are beaten early, some late and some not at all.
    members = ({**D, "null_tokens": 48}, {**T, "null_tokens": 48})
    path = make(*members, options={"strength": 0.5, "adapter_seed": seed}, defaults={"draws": 39, "seed": seed})
    assert _verdicts(_run(path, fast=True)) == _verdicts(_run(path))


def test_fast_draws_to_the_end_where_a_verdict_could_still_change(make: Make) -> None:
    path = make(D, defaults={"draws": 39})
    slow, fast = _run(path), _run(path, fast=True)
    assert fast.provenance["n_draws"] == 39
    assert fast.probes[1].evidence == slow.probes[1].evidence


def test_progress_hears_phases_and_names(make: Make) -> None:
    heard: list[Any] = []

    class Listener:
        def phase(self, label: str) -> None:
            heard.append(label)

        def work(self, done: int, total: int) -> None:
            heard.append((done, total))

        def asking(self, names: Any) -> None:
            heard.append(tuple(names))

    _run(make(E), progress=Listener())
    assert "loading the base" in heard
    assert ("harmless",) in heard


def test_from_the_top_of_the_package(make: Make) -> None:
    path = make(F)
    suite = dlm_sway.load_spec(path)
    assert _untimed(dlm_sway.run(suite)) == _untimed(dlm_sway.run(path))


def test_a_file_that_is_wrong_is_said_before_a_model_is_loaded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_base, "open_backend", lambda _: pytest.fail("a model was loaded"))
    with pytest.raises(SpecError, match="unknown key `promts`"):
        _run(make(D | {"promts": []}))
    with pytest.raises(BadInputError, match="draws are too few"):
        _run(make(D), n_draws=3)


def test_code_that_a_suite_names_is_imported_only_where_the_caller_says_so(make: Make) -> None:
    base = {"kind": "custom", "base": "mine", "options": {"entry_point": "no_such_module_of_mine:Backend"}}
    path = make(D, models={"base": base, "ft": {}})
    with pytest.raises(BadInputError, match="--allow-custom"):
        _run(path)
    with pytest.raises(BadInputError, match="no_such_module_of_mine") as raised:
        _run(path, allow_custom=True)
    assert "--allow-custom" not in str(raised.value)
