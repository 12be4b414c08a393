from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.claims import ROWS, Measured, item_records


def _measured(texts: list[str], *, clusters: list[str] | None = None) -> Measured:
    names = clusters or texts
    items = [TextItem("", text, name, f"label {i}") for i, (text, name) in enumerate(zip(texts, names, strict=True))]
    values = np.arange(len(texts), dtype=np.float64)
    return Measured(items, values * 2, np.full(len(texts), 2), "nat/token", "higher", 0.05)


def _rows(texts: list[str], *, seed: int = 0) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = item_records({"c": _measured(texts)}, seed=seed)["per_item"]
    return rows


def test_a_row_says_what_it_is_of_and_the_value_a_unit() -> None:
    found = item_records({"c": _measured(["a", "b"])}, seed=0)
    assert [r["value"] for r in found["per_item"]] == [0.0, 1.0]
    assert found["per_item"][1] | {"id": ""} == {
        "claim": "c",
        "id": "",
        "label": "label 1",
        "cluster": "b",
        "value": 1.0,
        "tokens": 2,
    }
    assert found["paired"] == {"c": {"unit": "nat/token", "better": "higher", "minimum": 0.05, "n_items": 2}}
    json.dumps(found, allow_nan=False)


def test_an_item_has_one_name_wherever_it_stands() -> None:
    first, second = _rows(["a", "b", "c"]), _rows(["c", "new", "a"])
    assert {r["id"] for r in first} & {r["id"] for r in second} == {first[0]["id"], first[2]["id"]}


def test_prompt_and_completion_are_told_apart() -> None:
    pairs = [TextItem("a", "bc", "", "x"), TextItem("ab", "c", "", "x")]
    measured = Measured(pairs, np.zeros(2), np.ones(2, dtype=np.int64), "nat", None, None)
    rows = item_records({"c": measured}, seed=0)["per_item"]
    assert rows[0]["id"] != rows[1]["id"]


def test_equal_items_are_told_apart() -> None:
    assert len({r["id"] for r in _rows(["a", "a", "a"])}) == 3


def test_of_many_items_the_same_are_kept_whatever_else_is_there() -> None:
    texts = [f"text {i}" for i in range(1000)]
    whole, half = _rows(texts), _rows(texts[:500])
    assert len(whole) == len(half) == ROWS
    kept = {r["id"] for r in whole}
    of_half = {r["id"] for r in _rows(texts[:ROWS])}
    assert len(kept & {r["id"] for r in half}) > 80
    assert of_half - kept
    assert [r["value"] for r in whole] == sorted(r["value"] for r in whole)


def test_the_seed_chooses_among_many() -> None:
    texts = [f"text {i}" for i in range(1000)]
    assert _rows(texts) == _rows(texts)
    assert {r["id"] for r in _rows(texts)} != {r["id"] for r in _rows(texts, seed=1)}


def test_claims_share_the_rows_and_a_short_one_leaves_its_rest() -> None:
    long, short = _measured([f"text {i}" for i in range(500)]), _measured(["a", "b"])
    found = item_records({"long": long, "short": short}, seed=0)
    claims = [r["claim"] for r in found["per_item"]]
    assert (claims.count("long"), claims.count("short")) == (ROWS - 2, 2)
    assert found["paired"]["long"]["n_items"] == 500


def test_long_names_of_clusters_stay_apart() -> None:
    measured = _measured(["a", "b"], clusters=["x" * 300 + "1", "x" * 300 + "2"])
    rows = item_records({"c": measured}, seed=0)["per_item"]
    assert rows[0]["cluster"] != rows[1]["cluster"]
    assert len(rows[0]["cluster"]) <= 60


def test_no_items_leave_no_rows() -> None:
    assert item_records({}, seed=0) == {"per_item": [], "paired": {}}
    assert item_records({"c": _measured([])}, seed=0)["per_item"] == []


@pytest.mark.parametrize("text", ["\ud800", "\x00", "日本語", ""])
def test_any_text_has_a_name(text: str) -> None:
    assert len(_rows([text])[0]["id"]) == 16
