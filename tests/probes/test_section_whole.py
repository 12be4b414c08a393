"""`section_internalization` with `read: whole`: sections as they stand, of texts that another probe reads too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlm_sway.backends.base import Messages
from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.engine.ask import Ask, Scores, TextItem
from dlm_sway.probes.base import Env, RunContext, build_probe
from dlm_sway.probes.controls import matched_controls
from dlm_sway.probes.drive import drive
from dlm_sway.probes.section_whole import whole_layout

Language = Callable[..., tuple[str, ...]]
Run = Callable[..., ProbeResult]
KIND = "section_internalization"


def in_sections(texts: tuple[str, ...], names: list[str]) -> list[dict[str, str]]:
    return [{"text": text, "cluster": name, "label": f"f:{i}"} for i, (text, name) in enumerate(zip(texts, names))]  # noqa: B905 (names are as many)


def judged(
    gains: dict[str, float],
    *,
    texts: int = 2,
    tokens: int = 160,
    tone: float = 0.0,
    spread: float = 0.3,
    seed: int = 0,
) -> ProbeResult:
    """Judge sections of so many texts each, whose tokens gain so much, against controls that gain `tone`."""
    rng = stream(seed, "whole")
    items = [{"text": f"{name} {i}", "cluster": name, "label": f"{name}:{i}"} for name in gains for i in range(texts)]
    probe, spec = build_probe({"name": "x", "kind": KIND, "sections": items, "read": "whole"})
    whole, control = probe.plan(spec, Env(), ())

    def answer(ask: Ask, means: list[float], size: int) -> Scores:
        values = np.repeat(np.array([means]), size, axis=1) + spread * rng.standard_normal((1, len(means) * size))
        offsets = np.arange(len(means) + 1) * size
        return Scores(ask.items, ask.views, offsets, {"gain": values}, rng.normal(-3, 1, offsets[-1]))

    answers = (
        answer(whole, [gains[i.cluster] for i in whole.items], tokens),
        answer(control, [tone] * len(control.items), 30),
    )
    assert probe.plan(spec, Env(), (answers,)) == ()
    found = probe.measure(spec, Env(), (answers,))
    assert found.tests == ()
    return probe.judge(spec, Env(), found, {})


def test_texts_of_one_section_are_one_and_each_section_is_told() -> None:
    result = judged({"counts": 0.5, "rules": 0.0, "keepers": 0.4})
    assert (result.verdict, result.score) == (Verdict.WARN, pytest.approx(2 / 3))
    assert result.evidence["took"] == ["counts", "keepers"]
    assert [row["label"] for row in result.evidence["did_not"]] == ["rules"]
    assert result.evidence["counts"]["n_tokens"] == 3 * 2 * 160
    assert "2 of 3 sections took; not: rules (gain" in result.message


def test_a_text_twice_counts_once_and_replies_to_different_conversations_are_two() -> None:
    asked: list[Messages] = [({"role": "user", "content": text},) for text in ("a?", "b?", "b?\n")]
    items = [TextItem("", "It is so.", "one", str(i), messages=m) for i, m in enumerate(asked)]
    (section,) = whole_layout(items, most=9, rng=stream(0, "x")).sections
    assert [text.label for text in section.texts] == ["0", "1"]


def test_a_gain_that_text_as_hard_has_too_is_not_taken_in() -> None:
    assert judged({"a": 0.5, "b": 0.5}, tone=0.5).verdict is Verdict.FAIL
    assert judged({"a": 0.5, "b": 0.5}).verdict is Verdict.PASS


def test_short_sections_are_undecided() -> None:
    result = judged({"a": 0.5, "b": 0.5}, texts=1, tokens=6)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "6 tokens are too few" in result.message


def test_a_gain_of_the_minimum_that_scatters_is_undecided_and_no_failure() -> None:
    for seed in range(10):
        result = judged(dict.fromkeys("abcd", 0.1), texts=1, tokens=64, spread=1.0, seed=seed)
        assert result.verdict in (Verdict.INCONCLUSIVE, Verdict.WARN)
        assert "random directions" not in result.message


def test_where_nothing_took_hardly_a_section_is_said_to_have() -> None:
    took = [len(judged({"a": 0.0, "b": 0.0, "c": 0.0}, seed=seed).evidence["took"]) for seed in range(40)]
    assert sum(took) <= 3


def test_beside_target_gain_it_costs_no_token_and_changes_no_number(language: Language) -> None:
    texts = language(12)
    controls = matched_controls(_items(texts), rng=Env().rng("gain", "controls"))
    gain = build_probe({"name": "gain", "kind": "target_gain", "items": list(texts)})
    sections = in_sections(texts, ["one"] * 6 + ["two"] * 6)
    whole = build_probe({"name": "x", "kind": KIND, "sections": sections, "read": "whole", "controls": controls})
    options = DummyOptions(adapter="trained", towards=texts, strength=2.0)
    alone, both = (drive(pairs, RunContext(DummyBackend(options), n_draws=19)) for pairs in ((gain,), (gain, whole)))
    assert alone.engine.work()["view_tokens"] == both.engine.work()["view_tokens"]
    assert alone.results[0].evidence == both.results[0].evidence
    assert both.results[1].verdict is Verdict.PASS


def _items(texts: tuple[str, ...]) -> tuple[Any, ...]:
    spec: Any = build_probe({"name": "gain", "kind": "target_gain", "items": list(texts)})[1]
    return tuple(spec.items)


def test_sections_may_share_labels_and_have_prompts_or_none_but_there_must_be_two(ran: Run, language: Language) -> None:
    texts = language(6)
    mixed = [
        {"prompt": "q ", "completion": texts[0], "cluster": "a", "label": "x"},
        {"text": texts[1], "cluster": "b", "label": "x"},
    ]
    assert (
        ran(
            {"adapter": "trained", "towards": texts},
            kind=KIND,
            sections=mixed,
            read="whole",
            settings={"format": "raw"},
        ).raw
        is not None
    )
    one = ran({}, kind=KIND, sections=in_sections(texts, ["a"] * 6), read="whole")
    assert (one.verdict, one.raw) == (Verdict.INCONCLUSIVE, None)
    with pytest.raises(BadInputError, match="two sections are called 'x'"):
        build_probe({"name": "x", "kind": KIND, "sections": mixed})


def test_the_same_run_gives_the_same_bytes(ran: Run, language: Language) -> None:
    texts = language(6)
    raw = {"kind": KIND, "sections": in_sections(texts, list("aabbcc")), "read": "whole"}
    one, two = (ran({"adapter": "trained", "towards": texts}, **raw) for _ in range(2))
    assert one.model_copy(update={"duration_s": 0}) == two.model_copy(update={"duration_s": 0})
