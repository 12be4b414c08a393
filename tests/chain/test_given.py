"""The texts of a walk: the first of the data, as other commands read them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from dlm_sway.chain.given import N_DATA, texts_of
from dlm_sway.core.errors import BadInputError


def _rows(folder: Path, *lines: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _row(text: str) -> str:
    return json.dumps({"prompt": "Q?", "completion": text})


def test_an_empty_row_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = _rows(tmp_path, _row("one"), _row(""), _row("two"))
    with caplog.at_level(logging.WARNING, "dlm_sway"):
        found = texts_of(path)
    assert [item.completion for item in found] == ["one", "two"]
    assert caplog.messages == [f"{path}: read 3, used 2, skipped 1 (1 empty)"]


def test_what_holds_nothing_but_empty_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"rows\.jsonl:1: holds nothing that can be used: read 2, used 0"):
        texts_of(_rows(tmp_path, _row(""), _row("")))


def test_no_more_is_read_than_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    enough = [_row(f"text {i}") for i in range(N_DATA)]
    found = texts_of(_rows(tmp_path, *enough, "{never read"))
    assert [item.completion for item in found] == [f"text {i}" for i in range(N_DATA)]
    assert caplog.messages == []


def test_a_malformed_row_among_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"rows\.jsonl:2"):
        texts_of(_rows(tmp_path, _row("one"), "{cut"))
