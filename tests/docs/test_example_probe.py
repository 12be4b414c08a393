"""The example of docs/adding-a-probe.md runs as it stands there: a reader will copy it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Blocks = Callable[[str, str], list[str]]
PAGE = "docs/adding-a-probe.md"


@pytest.fixture
def copied(tmp_path: Path, blocks: Blocks) -> Path:
    """A folder with the probe and its tests, as the page says to save them."""
    probe, tests, _run = blocks(PAGE, "python")
    (tmp_path / "top1_flips.py").write_text(probe, encoding="utf-8")
    (tmp_path / "test_top1_flips.py").write_text(tests, encoding="utf-8")
    return tmp_path


def _passed(folder: Path, chosen: str) -> str:
    # In a process of its own, so that the probe is not registered for the other tests of this one.
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(folder)]
    command = [sys.executable, "-m", "pytest", *options, "-k", chosen, "test_top1_flips.py"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_passes_its_tests_that_need_no_model(copied: Path) -> None:
    assert "4 passed" in _passed(copied, "not dummy")


def test_the_example_passes_its_tests_on_the_dummy_backend(copied: Path) -> None:
    assert "2 passed" in _passed(copied, "dummy")
