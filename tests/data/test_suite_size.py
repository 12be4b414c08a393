"""No suite is written that is too large to be read: it takes fewer texts, and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.data import suite_size
from dlm_sway.data.autogen import Written, autogen
from dlm_sway.data.material import Source
from dlm_sway.data.suite_size import n_values
from dlm_sway.suite.yaml_file import read_yaml


def _autogen(path: Path, rows: list[dict[str, Any]], **options: Any) -> Written:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return autogen([Source(str(path))], base="org/tiny-135M", **options)


def _chinese(n: int, *, length: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{"text": "".join(map(chr, rng.integers(0x4E00, 0x9FA0, size=length)))} for _ in range(n)]


def _calls(n: int, *, n_tools: int) -> list[dict[str, Any]]:
    tools = [{"name": f"ring{i}", "parameters": {"type": "object", "properties": {}}} for i in range(n_tools)]
    call = {"function": {"name": "ring0", "arguments": {}}}
    replies = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    return [{"messages": [{"role": "user", "content": f"Ring bell {i}."}, *replies], "tools": tools} for i in range(n)]


def test_texts_that_fill_more_than_a_suite_holds_are_fewer_in_it(tmp_path: Path) -> None:
    written = _autogen(tmp_path / "d.jsonl", _chinese(150, length=12_000))
    (tmp_path / "s.yaml").write_text(written.text, encoding="utf-8")
    kinds = [probe["kind"] for probe in read_yaml(tmp_path / "s.yaml").value["suite"]]
    assert kinds == [probe.kind for probe in written.plan.probes]
    assert "target_gain" in kinds
    n = len(written.plan.feed.trained)
    assert 40 <= n < 128
    assert f"made smaller, to at most {written.plan.feed.scale:.0%} of full size: a suite holds 4 MiB" in written.text
    assert any(note.startswith("made smaller") for note in written.notes)
    assert f"there are {n} at the size that fits" in written.text


def test_what_fits_stays_at_full_size_and_says_nothing(tmp_path: Path) -> None:
    written = _autogen(tmp_path / "d.jsonl", _chinese(150, length=100))
    assert written.plan.feed.scale == 1
    assert "made smaller" not in written.text


def test_values_are_counted_as_a_reader_counts_them(tmp_path: Path) -> None:
    rows = [*_calls(12, n_tools=3), *({"prompt": f"What is {i}?", "completion": f" {i}{i}"} for i in range(12))]
    written = _autogen(tmp_path / "d.jsonl", rows)
    (tmp_path / "s.yaml").write_text(written.text, encoding="utf-8")
    read = len(read_yaml(tmp_path / "s.yaml").values)
    assert read <= n_values(written.plan) <= 1.3 * read


def test_more_values_than_a_suite_may_name_make_it_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _calls(60, n_tools=4)
    whole = n_values(_autogen(tmp_path / "d.jsonl", rows).plan)
    monkeypatch.setattr(suite_size, "MAX_NODES", whole // 2 + 100)
    small = _autogen(tmp_path / "d.jsonl", rows)
    assert n_values(small.plan) <= whole // 2 + 100
    assert small.plan.feed.scale < 1


def test_what_never_fits_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite_size, "MAX_NODES", 1000)
    with pytest.raises(BadInputError, match="even the fewest of its texts do not fit in a suite") as caught:
        _autogen(tmp_path / "d.jsonl", _calls(40, n_tools=20))
    assert caught.value.where == str(tmp_path / "d.jsonl")
    assert caught.value.remedy == "shorten the texts, or offer fewer tools a request"


def test_a_budget_and_the_limit_hold_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _chinese(150, length=400)
    monkeypatch.setattr(suite_size, "MAX_BYTES", 120_000)
    plan = _autogen(tmp_path / "d.jsonl", rows, budget=60.0).plan
    assert plan.seconds <= 60
    assert len(plan.feed.trained) < 128
