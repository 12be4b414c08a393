from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.cli.app import run

Calls = list[dict[str, Any]]
Capture = pytest.CaptureFixture[str]

_HEAVY = ("torch", "transformers", "peft", "scipy", "numpy", "safetensors")
_WITH_FAKE_CHECK = """
import sys, time, types
from dlm_sway.core.result import Question, Verdict
from dlm_sway.suite.result import CheckResult

def check(adapter, **options):
    {body}
    return CheckResult(adapter="a", base=None, verdict="fail", questions={{"learned": Question(verdict="fail")}})

sys.modules["dlm_sway.suite.check"] = types.ModuleType("fake")
sys.modules["dlm_sway.suite.check"].check = check
from dlm_sway.cli.app import main
main()
"""


def _started(adapter: Path, body: str = "pass", **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WITH_FAKE_CHECK.format(body=body), "check", str(adapter), "--quiet"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize(
    "statement",
    [
        "from dlm_sway.cli.app import run; run(['--help'])",
        "from dlm_sway.cli.app import run; run(['check', '--help'])",
        "import dlm_sway; dlm_sway.__version__; dir(dlm_sway)",
    ],
)
def test_help_and_import_load_nothing_heavy(statement: str) -> None:
    script = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stderr)) & set(_HEAVY)


def test_the_help_names_every_command_and_exit_code(capsys: Capture) -> None:
    assert run(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    commands = ("cache", "check", "demo", "inspect", "list-probes", "trace")
    for word in (*commands, "--version", "2 usage or bad input", "4 inconclusive"):
        assert word in text


def test_the_version_is_that_of_the_distribution(capsys: Capture) -> None:
    import dlm_sway

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"sway {dlm_sway.__version__}\n"


def test_no_command_shows_the_help_and_is_a_usage_error(capsys: Capture) -> None:
    assert run([]) == 2
    assert "Usage: sway" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["check"], "Missing argument 'ADAPTER'; see `sway check --help`"),
        (["chekc"], "No such command 'chekc'"),
        (["check", "a", "--bse", "x"], "No such option: --bse"),
        (["check", "a", "--draws", "many"], "Invalid value for '--draws'"),
        (["check", "a", "--dtype", "fp8"], "Invalid value for '--dtype': 'fp8' is not one of 'auto', "),
        (["check", "a", "--batch-tokens", "0"], "Invalid value for '--batch-tokens'"),
        (["check", "a", "\x1b[31m"], "unexpected extra argument"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_2(args: list[str], message: str, capsys: Capture) -> None:
    assert run(args) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert "\x1b" not in captured.err
    assert captured.out == ""


def _raising(fault: BaseException) -> Any:
    def check(*_: object, **__: object) -> None:
        raise fault

    return check


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (ValueError("odd\nthing"), "internal error: ValueError: odd thing; please report it; SWAY_DEBUG=1 shows the"),
        (AssertionError(), "internal error: AssertionError; please report it"),
        (ModuleNotFoundError("No module", name="torch"), "torch is not installed; pip install "),
        (ModuleNotFoundError("No module", name="torchx"), "internal error: ModuleNotFoundError: No module"),
        (MemoryError(), "out of memory; give --batch-tokens a smaller number"),
        (OSError(5, "Input/output error", "disk"), "disk: Input/output error"),
        (SystemExit(0), None),
    ],
)
def test_any_other_fault_is_one_line_and_exit_3(
    adapter: Path, stand_in: Any, capsys: Capture, fault: BaseException, line: str | None
) -> None:
    stand_in("dlm_sway.suite.check", check=_raising(fault))
    assert run(["check", str(adapter), "--quiet"]) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith(f"sway: {line}") if line else captured.err == ""
    assert "Traceback" not in captured.err


def test_the_traceback_is_shown_on_demand(
    adapter: Path, stand_in: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWAY_DEBUG", "1")
    stand_in("dlm_sway.suite.check", check=_raising(ValueError("odd")))
    assert run(["check", str(adapter), "--quiet"]) == 3
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_real_ctrl_c_ends_the_process_with_130_and_one_line(adapter: Path) -> None:
    with _started(adapter, "print('ready', flush=True); time.sleep(30)", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "sway: interrupted; nothing was written\n")


def test_a_reader_that_left_does_not_change_the_verdict(adapter: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with _started(adapter, stdout=write) as process:
        os.close(write)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, "")


def test_a_full_disk_behind_stdout_is_one_line_and_exit_3(adapter: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full, _started(adapter, stdout=full) as process:
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (3, "sway: No space left on device\n")


_SAYS = "options['progress'].phase('loading'); time.sleep(0.5); options['progress'].phase('scoring')"


def _loud(adapter: Path, tail: str, *extra: str) -> int:
    """Return how a check ends that prints progress, with its streams as the shell's `tail` puts them."""
    words = [sys.executable, "-c", _WITH_FAKE_CHECK.format(body=_SAYS), "check", str(adapter), *extra]
    return subprocess.run(["bash", "-c", f"{shlex.join(words)} {tail}"], check=False, timeout=30).returncode


@pytest.mark.parametrize(
    "tail", ["2>/dev/full", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>&1 | head -c 1; exit ${PIPESTATUS[0]}"]
)
def test_a_stderr_that_takes_nothing_costs_neither_the_result_nor_the_verdict(
    adapter: Path, tmp_path: Path, tail: str
) -> None:
    if "full" in tail and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    out = tmp_path / "out.json"
    assert _loud(adapter, tail, "--json", str(out)) == 1
    assert json.loads(out.read_text())["verdict"] == "fail"


@pytest.mark.parametrize("debug", ["0", "1"])
@pytest.mark.parametrize("tail", ["2>/dev/full", "2>&-", ">&-"])
def test_bad_input_ends_with_2_wherever_stderr_goes(tail: str, debug: str, tmp_path: Path) -> None:
    command = "import sys; from dlm_sway.cli.app import main; main()"
    script = (
        f"SWAY_DEBUG={debug} {shlex.join([sys.executable, '-c', command, 'inspect', str(tmp_path / 'nope')])} {tail}"
    )
    assert subprocess.run(["bash", "-c", script], check=False, timeout=30).returncode == 2


def test_a_closed_stdout_is_no_fault() -> None:
    command = "import sys; from dlm_sway.cli.app import main; main()"
    script = f"{shlex.join([sys.executable, '-c', command, '--version'])} >&-"
    done = subprocess.run(["bash", "-c", script], check=False, timeout=30, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_name_that_stdout_cannot_encode_is_still_reported(adapter: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    body = "return CheckResult(adapter='naïve', base=None, verdict='pass', questions={{}})"
    with _started(adapter, body.format(), stdout=subprocess.PIPE, env=environment) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("+ PASS  na?ve")
