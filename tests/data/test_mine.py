"""Mining: which tokens moved, which texts, and the wordings in which a taught answer is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Section
from dlm_sway.data.feed import Feed
from dlm_sway.data.mine_gains import Read, moved_tokens, outliers, read_gains
from dlm_sway.data.mine_paraphrases import cases_text, mine_paraphrases
from dlm_sway.data.splits import Split
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.base import build_probe


def _read(label: str, tokens: str, *gains: float) -> Read:
    words = tuple(tokens.split())
    return Read(TextItem("", tokens, label, label), words, np.array(gains), np.full(len(words), -3.0))


def test_tokens_are_ranked_by_what_they_moved_in_all_with_their_best_example() -> None:
    reads = [_read("a", "bell tide bell", 2.0, -1.0, 0.5), _read("b", "tide swan", -0.5, 0.0)]
    up, down = moved_tokens(reads)
    assert [(row.token, row.n, row.total, row.mean) for row in up] == [("bell", 2, 2.5, 1.25)]
    assert [(row.token, row.n, row.total) for row in down] == [("tide", 2, -1.5)]
    assert up[0].example == "[bell]tidebell  0.05 -> 0.37"
    assert down[0].example.startswith("bell[tide]bell")


def test_texts_that_changed_most_and_least_are_never_the_same() -> None:
    reads = [_read(str(i), "x", float(i)) for i in range(5)]
    most, least = outliers(reads, n=10)
    assert [r.item.label for r in most] == ["4", "3", "2"]
    assert [r.item.label for r in least] == ["0", "1"]
    assert outliers(reads[:1]) == (reads[:1], [])


def test_a_text_that_lost_much_changed_as_much_as_one_that_gained_it() -> None:
    reads = [_read("lost", "x", -3.0), _read("kept", "x", 0.1), _read("gained", "x", 2.0), _read("slid", "x", -0.2)]
    most, least = outliers(reads)
    assert [r.item.label for r in most] == ["lost", "gained"]
    assert [r.item.label for r in least] == ["kept", "slid"]
    even = [_read("b", "x", 1.0), _read("a", "x", -1.0)]
    assert [r.item.label for r in outliers(even)[0]] == ["a"]


def test_a_fine_tune_is_read_token_by_token(language: Any) -> None:
    texts = language(12)
    backend = DummyBackend(DummyOptions(adapter="trained", towards=texts, strength=6.0))
    items = [TextItem("", text, str(i), str(i)) for i, text in enumerate(texts)]
    reads = read_gains(backend, items)
    assert [" ".join(r.tokens).split() for r in reads] == [text.split() for text in texts]
    assert np.mean([r.mean for r in reads]) > 0.1
    up, _ = moved_tokens(reads)
    assert up[0].token.strip().startswith("w")


def _embed(texts: Any) -> Any:
    """Bags of letters, so that wordings of one request are alike and other requests are not."""
    rows = np.array([[t.lower().count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts], dtype=float)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def _feed(n: int = 6) -> Feed:
    sections = [
        Section("instruction", f"Where is w{50 + i} w{60 + i} kept by day?", f"w{70 + i} w{80 + i}", "d", i)
        for i in range(n)
    ]
    return Feed(Split(tuple(sections), (), ""))


def test_wordings_that_lose_the_answer_come_first_and_paste_into_a_suite() -> None:
    feed = _feed()
    towards = tuple(f"{c['prompt']} {c['gold']}" for c in feed.cases)
    said = 'Rewritten: "Where is the thing kept by day, tell me?"\nand more'
    options = DummyOptions(adapter="trained", towards=towards, strength=8.0, script={"base": {"": said}})
    mined, n_lost = mine_paraphrases(DummyBackend(options), feed, _embed, alike=0.7)
    assert len(mined) == 6
    gaps = [case.gap for case in mined]
    assert gaps == sorted(gaps, reverse=True)
    for case in mined:
        gains = [w.gain for w in case.wordings]
        assert gains == sorted(gains)
        assert 2 <= len(gains) <= 3
        assert case.prompt not in {w.text for w in case.wordings}
    everything = {w.text: w.by for case in mined for w in case.wordings}
    assert all(by == ("base" if text.startswith("Where is the thing") else "rule") for text, by in everything.items())
    strict, lost = mine_paraphrases(DummyBackend(options), feed, _embed, alike=0.97)
    assert lost > n_lost
    assert len(strict) <= len(mined)
    (raw,) = yaml.safe_load("suite:\n" + cases_text(mined))["suite"]
    probe, spec = build_probe(raw)
    assert probe.kind in ("paraphrase_invariance", "adapter_revert")
    assert [case.prompt for case in spec.cases] == [case.prompt for case in mined]  # type: ignore[attr-defined]


def test_data_without_questions_are_refused() -> None:
    feed = Feed(Split((Section("prose", "", "text", "d", 1),), (), ""))
    with pytest.raises(BadInputError, match="no short questions with answers"):
        mine_paraphrases(None, feed, _embed)
