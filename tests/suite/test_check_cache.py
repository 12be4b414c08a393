"""`sway check --cache`, `--resume` and `--trace` on a tiny real model, from the command line to the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
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
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the words of a check of a noise adapter on a tiny base, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    base = save_base(tmp_path / "base")
    adapter = write_noise(base, tmp_path / "adapter", b_std=0.2, rank=4)
    (tmp_path / "data.txt").write_text("one line of text\nand another one\n")
    words = f"check {adapter} --base {base} --data {tmp_path / 'data.txt'} --quick --device cpu --quiet"
    return words.split()


def _checked(words: list[str], out: Path) -> tuple[dict[str, Any], Any]:
    """Return the report apart from times, and the trace."""
    assert run([*words, "--json", str(out.with_suffix(".json")), "--trace", str(out)]) in (0, 1, 4)
    document = json.loads(out.with_suffix(".json").read_text())
    del document["timing"]
    for probe in document["probes"]:
        del probe["duration_s"]
    return document, read_trace(out)


def test_a_second_check_scores_nothing_and_says_the_same(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, trace = _checked([*tiny, "--cache"], tmp_path / "first")
    assert trace.total.tokens > 0
    assert "scored 0" not in capsys.readouterr().out
    second, trace = _checked([*tiny, "--cache"], tmp_path / "second")
    assert {path for path, *_ in trace.groups} == {"cache"}
    assert trace.total.tokens == 0
    assert second == first
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("scored 0 view-tokens in 0.0 s, ")
    assert " positions from the cache, stacked, 3 probes, fp32, N0 " in last
    without, trace = _checked(tiny, tmp_path / "third")
    assert trace.total.tokens > 0
    assert without == first


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGKILL", -signal.SIGKILL)])
def test_a_check_that_was_stopped_goes_on_where_it_stopped(
    tiny: list[str], tmp_path: Path, name: str, code: int
) -> None:
    whole, trace = _checked(tiny, tmp_path / "whole")
    command = [sys.executable, "-c", _STOPPED, name, *tiny, "--resume", "--trace", str(tmp_path / "stopped")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ.copy())
    assert done.returncode == code
    if name == "SIGINT":
        assert done.stderr.startswith("sway: interrupted; ")
        assert done.stderr.endswith(" view-tokens are kept: run again with --resume\n")
        assert done.stderr.count("\n") == 1
    before = read_trace(tmp_path / "stopped")
    resumed, after = _checked([*tiny, "--resume"], tmp_path / "resumed")
    assert after.total.hit > 0
    assert 0 < after.total.tokens <= trace.total.tokens - before.total.tokens
    assert resumed["verdict"] == whole["verdict"]
    assert {k: q["verdict"] for k, q in resumed["questions"].items()} == {
        k: q["verdict"] for k, q in whole["questions"].items()
    }
