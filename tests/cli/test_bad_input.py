"""What a user sees who gives `sway check` what cannot be used: one line, the right exit code, nothing left."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.models import adapter_of, base_of

Plant = Callable[[Path], list[str]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A sound adapter, its base and data, to be spoiled."""
    shutil.copytree(adapter_of("llama", "qv"), tmp_path / "adapter")
    shutil.copytree(base_of("llama"), tmp_path / "base")
    (tmp_path / "data.txt").write_text("\n".join(f"line number {i} of the data" for i in range(8)), encoding="utf-8")
    return tmp_path


def _write(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    return []


def _spoil(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    tensors = load_file(path)
    name = next(n for n in tensors if "lora_B" in n)
    tensors[name] = change(tensors[name])
    save_file(tensors, path)
    return []


def _truncate(path: Path) -> list[str]:
    path.write_bytes(path.read_bytes()[:-100])
    return []


WEIGHTS = "adapter/adapter_model.safetensors"
CASES: dict[str, tuple[Plant, int, str]] = {
    "no such adapter": (lambda d: _moved(d / "adapter"), 2, "no such"),
    "a directory that is no adapter": (lambda d: _removed(d / "adapter/adapter_config.json"), 2, "adapter_config.json"),
    "invalid JSON": (lambda d: _write(d / "adapter/adapter_config.json", b"{"), 2, "adapter_config.json"),
    "a truncated file": (lambda d: _truncate(d / WEIGHTS), 2, "adapter_model.safetensors"),
    "no such base": (lambda d: _moved(d / "base"), 2, "base"),
    "empty data": (lambda d: _write(d / "data.txt", b" \n\n"), 2, "data.txt"),
    "a line that is no JSON": (lambda d: _jsonl(d, b'{"text": "a"}\nnot json\n'), 2, "data.jsonl:2"),
    "data that is not UTF-8": (lambda d: _write(d / "data.txt", b"caf\xe9 au lait\n"), 2, "UTF-8"),
    "no place for the report": (lambda d: ["--json", str(d / "nowhere" / "r.json")], 2, "nowhere"),
    "too few draws": (lambda _: ["--draws", "5"], 2, "19"),
    "an unknown option": (lambda _: ["--colour"], 2, "--colour"),
}


def _moved(path: Path) -> list[str]:
    path.rename(path.with_name("moved"))
    return []


def _removed(path: Path) -> list[str]:
    path.unlink()
    return []


def _jsonl(place: Path, content: bytes) -> list[str]:
    (place / "data.jsonl").write_bytes(content)
    return ["--data", str(place / "data.jsonl")]


def _check(place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "import sys; from dlm_sway.cli.app import run; sys.exit(run(sys.argv[1:]))",
        "check",
    ]
    named = [str(place / "adapter"), "--base", str(place / "base"), "--data", str(place / "data.txt")]
    options = ["--json", str(place / "report.json"), "--device", "cpu", "--quick", "--quiet"]
    return subprocess.run([*command, *named, *options, *more], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", CASES)
def test_input_that_cannot_be_used_is_one_line_and_leaves_nothing(place: Path, case: str) -> None:
    plant, code, named = CASES[case]
    done = _check(place, *plant(place))
    assert done.returncode == code, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stdout == ""
    if case != "an unknown option":  # usage errors also show the usage
        assert done.stderr.startswith("sway: ")
        assert len(done.stderr.strip().splitlines()) == 1
    assert not list(place.glob("report*"))


def test_an_adapter_of_another_base_is_named_and_not_scored(place: Path) -> None:
    shutil.rmtree(place / "adapter")
    shutil.copytree(adapter_of("gpt2", "qv"), place / "adapter")
    done = _check(place)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert "sway inspect" in done.stderr + done.stdout


def test_an_adapter_with_nan_is_unsound_in_the_report(place: Path) -> None:
    _spoil(place / WEIGHTS, lambda b: np.full_like(b, np.nan))
    done = _check(place)
    assert done.returncode == 1, done.stderr
    questions = json.loads((place / "report.json").read_text(encoding="utf-8"))["questions"]
    assert questions["sound"]["verdict"] == "fail"
    assert {q["verdict"] for name, q in questions.items() if name != "sound"} == {"skip"}


def test_one_item_of_data_is_inconclusive_and_says_how_many_would_do(place: Path) -> None:
    (place / "data.txt").write_text("only one line of data\n", encoding="utf-8")
    done = _check(place)
    question = json.loads((place / "report.json").read_text(encoding="utf-8"))["questions"]["on_target"]
    assert question["verdict"] == "inconclusive"
    assert "1 item" in question["message"]
    assert done.returncode in (1, 4)
