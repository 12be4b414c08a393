"""`sway check` says the same, byte for byte apart from times and work, whatever --batch-tokens is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.models import lora, save_adapter, save_base

from dlm_sway.cli.app import run

_LINES = [
    "the bell is struck when the water falls",
    "no bell",
    "a warden keeps the line below the hall and never sleeps before the tide has turned",
    "water falls and the line is wet",
    "she closed the door, turned the key, and listened",
    "the door",
]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the words of a check of a tiny model on lines of many lengths."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    base = save_base(tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter", lora(target_modules="all-linear"), std=0.05)
    (tmp_path / "data.txt").write_text("\n\n".join(_LINES))
    (tmp_path / "unseen.txt").write_text("\n\n".join(line[::-1] for line in _LINES))
    data = f"--data {tmp_path / 'data.txt'} --held-out {tmp_path / 'unseen.txt'}"
    return f"check {adapter} --base {base} {data} --quick --device cpu --quiet".split()


def report(words: list[str], out: Path) -> str:
    """Return the report's text without times and work."""
    assert run([*words, "--json", str(out)]) in (0, 1, 4)
    document = json.loads(out.read_text())
    assert document.pop("timing")["view_tokens"] > 0
    for probe in document["probes"]:
        del probe["duration_s"]
    return json.dumps(document)


def test_the_report_is_the_same_for_any_token_budget(words: list[str], tmp_path: Path) -> None:
    usual = report(words, tmp_path / "usual.json")
    assert "view_tokens" not in usual
    for batch_tokens in ("300", "9000"):
        assert report([*words, "--batch-tokens", batch_tokens], tmp_path / f"{batch_tokens}.json") == usual
