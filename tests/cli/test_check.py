from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.cli.app import run
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.paths import results_dir
from dlm_sway.core.progress import Silent
from dlm_sway.suite.result import CheckResult

Calls = list[dict[str, Any]]
Capture = pytest.CaptureFixture[str]
StandIn = Callable[..., None]
Result = Callable[..., CheckResult]


def _one_line(capsys: Capture) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("sway: ")
    assert "Traceback" not in captured.err
    return captured.err.removeprefix("sway: ").rstrip("\n")


def test_the_defaults_reach_the_suite(adapter: Path, checked: Calls) -> None:
    assert run(["check", str(adapter), "--quiet"]) == 0
    assert isinstance(checked[0].pop("progress"), Silent)
    assert checked == [
        {
            "adapter": adapter,
            "base": None,
            "backend": "hf",
            "data": None,
            "held_out": None,
            "n_draws": 39,
            "device": "auto",
            "dtype": "auto",
            "seed": 0,
            "quick": False,
            "batch_tokens": None,
            "cache": None,
            "trace": None,
        }
    ]


def test_every_option_reaches_the_suite(adapter: Path, data: Path, tmp_path: Path, checked: Calls) -> None:
    held_out = tmp_path / "held.txt"
    held_out.write_text("three")
    words = f"--base m --draws 19 --quick --device cpu --dtype bf16 --seed 7 --batch-tokens 512 --data {data}".split()
    files = ["--backend", "mlx", "--held-out", str(held_out), "--trace", str(tmp_path / "t")]
    assert run(["check", str(adapter), *words, *files, "--cache"]) == 0
    call = checked[0]
    del call["progress"]
    assert call == {
        "adapter": adapter,
        "base": "m",
        "backend": "mlx",
        "data": data,
        "held_out": held_out,
        "n_draws": 19,
        "device": "cpu",
        "dtype": "bf16",
        "seed": 7,
        "quick": True,
        "batch_tokens": 512,
        "cache": results_dir(),
        "trace": tmp_path / "t",
    }
    assert type(call["dtype"]) is str


def test_the_environment_sets_options(
    adapter: Path, data: Path, tmp_path: Path, checked: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"BASE": "m", "DATA": str(data), "DRAWS": "19", "QUICK": "1", "DTYPE": "fp32", "SEED": "3"}
    for name, value in {**values, "DEVICE": "cpu", "BATCH_TOKENS": "64", "JSON": str(tmp_path / "o.json")}.items():
        monkeypatch.setenv(f"SWAY_{name}", value)
    assert run(["check", str(adapter)]) == 0
    expected = {"base": "m", "data": data, "n_draws": 19, "quick": True, "dtype": "fp32", "seed": 3, "device": "cpu"}
    assert expected.items() <= checked[0].items()
    assert (checked[0]["batch_tokens"], checked[0]["cache"]) == (64, None)
    assert (tmp_path / "o.json").exists()


@pytest.mark.parametrize("switch", ["--cache", "--resume", "SWAY_CACHE", "SWAY_RESUME"])
def test_resume_and_cache_keep_results_in_the_same_place(
    adapter: Path, checked: Calls, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    if switch.startswith("SWAY"):
        monkeypatch.setenv(switch, "1")
    assert run(["check", str(adapter), *([switch] if switch.startswith("-") else [])]) == 0
    assert checked[0]["cache"] == results_dir()


def test_a_tilde_is_the_home(adapter: Path, data: Path, checked: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(adapter.parent))
    assert run(["check", "~/my-adapter", "--data", "~/data.txt", "--json", "~/o.json"]) == 0
    assert (checked[0]["adapter"], checked[0]["data"]) == (adapter, data)
    assert (adapter.parent / "o.json").exists()


@pytest.mark.parametrize(
    ("verdict", "code"), [("pass", 0), ("warn", 0), ("fail", 1), ("error", 3), ("inconclusive", 4), ("skip", 4)]
)
def test_every_verdict_has_its_exit_code_and_its_report(
    *, adapter: Path, tmp_path: Path, stand_in: StandIn, result: Result, capsys: Capture, verdict: str, code: int
) -> None:
    stand_in("dlm_sway.suite.check", check=lambda *_, **__: result(verdict))
    path = tmp_path / "out.json"
    assert run(["check", str(adapter), "--quiet", "--json", str(path)]) == code
    captured = capsys.readouterr()
    assert verdict.upper() in captured.out.splitlines()[0]
    assert captured.err == ""
    assert json.loads(path.read_text())["verdict"] == verdict


def _broken_adapters(root: Path) -> dict[str, Path]:
    (root / "empty").mkdir()
    (root / "file").write_text("x")
    for name, config in {"bad-json": "{", "no-utf8": b"\xff", "list": "[]"}.items():
        (root / name).mkdir()
        path = root / name / "adapter_config.json"
        path.write_bytes(config if isinstance(config, bytes) else config.encode())
    return {name: root / name for name in ("absent", "empty", "file", "bad-json", "no-utf8", "list")}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "absent: no such directory; check the path"),
        ("file", "file: not a directory; name the directory that PEFT saved"),
        ("empty", "empty: holds no adapter_config.json, so it is no PEFT adapter; name the directory"),
        ("bad-json", "adapter_config.json: not valid JSON: "),
        ("no-utf8", "adapter_config.json: not UTF-8 text (byte 0); "),
        ("list", "adapter_config.json: holds a JSON array, not an object; "),
    ],
)
def test_a_path_that_is_no_adapter_is_one_line_and_exit_2(
    tmp_path: Path, checked: Calls, capsys: Capture, name: str, message: str
) -> None:
    assert run(["check", str(_broken_adapters(tmp_path)[name])]) == 2
    assert message in _one_line(capsys)
    assert checked == []


def test_an_adapter_of_mlx_lm_is_sent_on_and_not_called_broken(adapter: Path, checked: Calls, capsys: Capture) -> None:
    (adapter / "adapters.safetensors").write_bytes(b"x")
    assert run(["check", str(adapter), "--backend", "mlx"]) == 2
    assert f"`sway convert {adapter} --to peft -o OUT`" in _one_line(capsys)
    assert checked == []


@pytest.mark.parametrize("option", ["--data", "--held-out"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "x.jsonl: no such file; "),
        (b"", "x.jsonl: holds no text; "),
        (b'{"text": "a"}\nnope\n', "x.jsonl:2: is no JSON ("),
        (b'{"txet": "a"}\n', "x.jsonl:1: has `txet`; did you mean `text`"),
        (b'{"text": "\xe9"}\n', "x.jsonl:1: is not UTF-8: byte 0xe9 at offset 10 of the file; "),
    ],
)
def test_a_data_file_that_cannot_be_used_is_one_line_and_exit_2(
    *,
    adapter: Path,
    tmp_path: Path,
    checked: Calls,
    capsys: Capture,
    option: str,
    content: bytes | None,
    message: str,
) -> None:
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert run(["check", str(adapter), option, str(path)]) == 2
    assert message in _one_line(capsys)
    assert checked == []


def test_a_directory_as_data_is_one_line_and_exit_2(
    adapter: Path, tmp_path: Path, checked: Calls, capsys: Capture
) -> None:
    assert run(["check", str(adapter), "--data", str(tmp_path)]) == 2
    assert "is a directory, not a file" in _one_line(capsys)
    assert checked == []


def test_the_data_file_itself_is_not_held_out(adapter: Path, data: Path, checked: Calls, capsys: Capture) -> None:
    assert run(["check", str(adapter), "--data", str(data), "--held-out", str(data)]) == 2
    assert "nothing in it was held out" in _one_line(capsys)
    assert checked == []


def test_too_few_draws_to_reach_significance_are_refused(adapter: Path, checked: Calls, capsys: Capture) -> None:
    assert run(["check", str(adapter), "--draws", "18"]) == 2
    assert "18 draws are too few: p is at least 1/19" in _one_line(capsys)
    assert checked == []
    assert run(["check", str(adapter), "--draws", "19"]) == 0


@pytest.mark.parametrize("option", ["--json", "--trace"])
@pytest.mark.parametrize("place", ["absent/out.json", "."])
def test_a_path_that_cannot_be_written_is_found_before_the_work(
    *, adapter: Path, tmp_path: Path, checked: Calls, capsys: Capture, option: str, place: str
) -> None:
    assert run(["check", str(adapter), option, str(tmp_path / place)]) == 2
    assert str(tmp_path) in _one_line(capsys)
    assert checked == []


def test_a_full_disk_keeps_the_report_and_leaves_no_half_file(
    adapter: Path, tmp_path: Path, checked: Calls, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    before = sorted(tmp_path.iterdir())
    assert run(["check", str(adapter), "--json", str(tmp_path / "out.json"), "--quiet"]) == 3
    captured = capsys.readouterr()
    assert "PASS  a: learned" in captured.out
    assert captured.err == (
        f"sway: {tmp_path / 'out.json'}: could not be written: No space left on device; "
        "free some space on that disk or name another path\n"
    )
    assert sorted(tmp_path.iterdir()) == before
    assert len(checked) == 1


def test_ctrl_c_is_one_line_and_exit_130_and_writes_nothing(
    adapter: Path, tmp_path: Path, stand_in: StandIn, capsys: Capture
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    stand_in("dlm_sway.suite.check", check=interrupted)
    before = sorted(tmp_path.iterdir())
    assert run(["check", str(adapter), "--json", str(tmp_path / "out.json"), "--quiet"]) == 130
    assert _one_line(capsys) == "interrupted; nothing was written"
    assert sorted(tmp_path.iterdir()) == before


def test_ctrl_c_says_what_is_kept_of_the_work(adapter: Path, stand_in: StandIn, capsys: Capture) -> None:
    def interrupted(*_: object, **__: object) -> None:
        stop = KeyboardInterrupt()
        stop.add_note("12 of 40 view-tokens are kept: run again with --resume")
        raise stop

    stand_in("dlm_sway.suite.check", check=interrupted)
    assert run(["check", str(adapter), "--resume", "--quiet"]) == 130
    assert _one_line(capsys) == "interrupted; 12 of 40 view-tokens are kept: run again with --resume"


def test_a_warning_of_sway_is_one_line_and_not_an_end(
    adapter: Path, stand_in: StandIn, result: Result, capsys: Capture
) -> None:
    def check(*_: object, **__: object) -> CheckResult:
        logging.getLogger("dlm_sway.engine").warning("the cache is \x1b[31moff: %s", "disk\nfull")
        return result()

    stand_in("dlm_sway.suite.check", check=check)
    for _ in range(2):
        assert run(["check", str(adapter), "--quiet"]) == 0
        assert capsys.readouterr().err == "sway: the cache is off: disk full\n"


def test_an_error_of_the_suite_is_one_line_whatever_it_says(adapter: Path, stand_in: StandIn, capsys: Capture) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CannotRunError("\x1b[31mno\nmemory", where="cuda:0", remedy="[bold]give[/bold] --device cpu")

    stand_in("dlm_sway.suite.check", check=fail)
    assert run(["check", str(adapter), "--quiet"]) == 3
    assert _one_line(capsys) == "cuda:0: no memory; [bold]give[/bold] --device cpu"


def test_progress_goes_to_stderr_and_the_report_to_stdout(
    adapter: Path, stand_in: StandIn, result: Result, capsys: Capture
) -> None:
    def check(_adapter: Path, *, progress: Any, **_: object) -> CheckResult:
        progress.phase("loading the base")
        return result()

    stand_in("dlm_sway.suite.check", check=check)
    assert run(["check", str(adapter)]) == 0
    captured = capsys.readouterr()
    assert captured.err == "sway: loading the base\n"
    assert "loading" not in captured.out
    assert run(["check", str(adapter), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_quick_and_other_draws_are_not_both_possible(
    adapter: Path, checked: Calls, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["check", str(adapter), "--quick", "--draws", "99"]) == 2
    assert "--quick takes 19 draws, and --draws asks for 99" in capsys.readouterr().err
    assert checked == []
    assert run(["check", str(adapter), "--quick", "--draws", "19", "--quiet"]) == 0
    monkeypatch.setenv("SWAY_DRAWS", "99")  # for all commands, and this one is quick
    assert run(["check", str(adapter), "--quick", "--quiet"]) == 0
