"""A run that was stopped, killed or not, goes on to the same result; on a tiny real model, from the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.models import save_base

from dlm_sway.cli.app import run
from dlm_sway.demo.noise import write_noise
from dlm_sway.engine.trace_summary import read_trace

_STOPPED = """
import os, signal, sys
from dlm_sway.cli.app import run
from dlm_sway.engine.cache import ResultCache

keep, count = ResultCache.keep, [0]

def counted(*args):
    keep(*args)
    count[0] += 1
    if count[0] == 5:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))

ResultCache.keep = counted
sys.exit(run(sys.argv[2:]))
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a suite that scores and writes, on a noise adapter on a tiny base, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    write_noise(save_base(tmp_path / "base"), tmp_path / "adapter", b_std=0.2, rank=4)
    (tmp_path / "data.txt").write_text("one line of text\nand another one\n")
    document = {
        "version": 1,
        "models": {"base": "./base", "ft": "adapter"},
        "defaults": {"draws": 19, "device": "cpu", "seed": 3},
        "data": {"train": "data.txt"},
        "suite": [
            {"name": "d", "kind": "delta_kl", "prompts": {"data": "train"}, "null_tokens": 16},
            {"name": "t", "kind": "target_gain", "items": {"data": "train"}, "null_tokens": 16},
            {
                "name": "s",
                "kind": "style_fingerprint",
                "reference": "It rained. It was late.",
                "prompts": ["One", "Two"],
                "max_new_tokens": 8,
            },
        ],
    }
    path = tmp_path / "sway.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _but_for_times(out: Path) -> bytes:
    """Return the file's bytes without the values that tell how long it took."""
    text, took = re.subn(rb'(?s)("timing": )\{.*?\n  \}|("duration_s": )[^,\n]+', rb"\1\2", out.read_bytes())
    assert took == 1 + len(json.loads(out.read_bytes())["probes"])
    return text


def _ran(suite: Path, name: str, *words: str) -> tuple[bytes, Any]:
    out, trace = suite.with_name(f"{name}.json"), suite.with_name(f"{name}.trace")
    assert run(["run", str(suite), "--json", str(out), "--trace", str(trace), *words]) in (0, 1, 4)
    return _but_for_times(out), read_trace(trace)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGKILL", -signal.SIGKILL)])
def test_a_run_that_was_stopped_goes_on_to_the_same_result(
    suite: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    stopped = suite.with_name("result.json")
    command = [sys.executable, "-c", _STOPPED, name, "run", str(suite), "--json", str(stopped), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ.copy())
    assert done.returncode == code, done.stderr
    if name == "SIGINT":
        assert done.stderr.endswith(" view-tokens are kept: run again with --resume\n")
    assert not stopped.exists()
    assert stopped.with_name(".result.json.journal").exists()

    capsys.readouterr()
    resumed, after = _ran(suite, "result", "--resume")
    assert "sway: going on with the run of " in capsys.readouterr().err
    assert not stopped.with_name(".result.json.journal").exists()

    monkeypatch.setenv("XDG_CACHE_HOME", str(suite.parent / "fresh"))
    whole, trace = _ran(suite, "whole", "--quiet")
    assert resumed == whole
    assert after.total.hit > 0
    assert after.total.tokens < trace.total.tokens


def test_a_second_run_with_the_cache_scores_and_writes_nothing(suite: Path) -> None:
    first, trace = _ran(suite, "first", "--quiet")
    assert trace.total.tokens > 0
    again, second = _ran(suite, "again", "--quiet", "--cache")
    assert again == first
    assert second.total.tokens == 0
    anew, third = _ran(suite, "anew", "--quiet")  # what is kept is used where that is asked for only
    assert anew == first
    assert third.total.tokens == trace.total.tokens


def test_resume_says_that_the_suite_has_changed(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = suite.with_name("out.json")
    journal = out.with_name(".out.json.journal")
    journal.write_text(json.dumps({"journal": 1, "began": 5.0, "asked": {"suite": "other"}}) + "\n")
    _ran(suite, "out", "--resume", "--only", "d")
    assert "the suite or the options have changed since" in capsys.readouterr().err
