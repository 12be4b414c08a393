from __future__ import annotations

import numpy as np
import pytest

from dlm_sway.data.control import control_passages
from dlm_sway.engine.ask import Scores, TextItem
from dlm_sway.probes.controls import Gains, _cut, lead_over, matched_controls
from dlm_sway.stats.standardise import expected_gain

LONGEST_WORD = 25


def _controls(*items: TextItem, seed: int = 0) -> tuple[TextItem, ...]:
    return matched_controls(items, rng=np.random.default_rng(seed))


def _item(prompt: int, completion: int) -> TextItem:
    words = "The old mill stood by the river, and nobody in the village had worked there since the flood. " * 60
    return TextItem(words[:prompt], words[:completion], "c", "l")


@pytest.mark.parametrize(("prompt", "completion"), [(0, 100), (60, 120), (150, 200), (3, 60)])
def test_controls_have_the_lengths_of_the_items(prompt: int, completion: int) -> None:
    for control in _controls(*[_item(prompt, completion)] * 12):
        assert max(0, prompt - LONGEST_WORD) <= len(control.prompt) <= prompt
        assert completion - LONGEST_WORD <= len(control.completion) <= completion


def test_a_mixture_of_forms_is_matched_in_its_shares() -> None:
    for seed in range(5):
        controls = _controls(*[_item(0, 80)] * 30, *[_item(60, 80)] * 10, seed=seed)
        assert len(controls) == 40
        assert sum(not c.prompt for c in controls) == 30


def test_a_short_completion_still_leaves_enough_to_score() -> None:
    assert all(len(c.completion) > 40 - LONGEST_WORD for c in _controls(_item(0, 2)))


def test_a_prompt_longer_than_every_passage_leaves_something_to_score() -> None:
    for control in _controls(_item(5000, 300)):
        assert len(control.completion.split()) >= 5
        assert len(control.prompt.split()) >= 5


def test_there_are_enough_controls_for_few_items_and_never_the_same_passage_twice() -> None:
    few, many = _controls(_item(0, 100)), _controls(*[_item(0, 100)] * 500)
    assert (len(few), len(many)) == (24, 48)
    for controls in (few, many):
        assert len({c.cluster for c in controls}) == len(controls)


def test_controls_are_cut_at_words_from_passages_of_the_corpus() -> None:
    texts = {p.id: p for p in control_passages()}
    for control in _controls(_item(40, 120)):
        passage = texts[control.label]
        assert passage.text.startswith(control.prompt + control.completion)
        assert passage.text[len(control.prompt)] == " "


def test_controls_follow_from_the_stream() -> None:
    items = [_item(0, 50 + i) for i in range(40)]
    assert _controls(*items) == _controls(*items)
    assert _controls(*items) != _controls(*items, seed=1)


@pytest.mark.parametrize("length", range(0, 400, 7))
def test_every_passage_leaves_something_to_score_wherever_it_is_cut(length: int) -> None:
    like = _item(length, length)
    for passage in control_passages():
        assert _cut(passage.text, like, passage.id, passage.register).completion.strip(), passage.id


def _spread(rng: np.random.Generator, n_texts: int, *, hardness: float, name: str) -> Scores:
    """Texts whose tokens gain by their difficulty alone, each text by a slope of its own."""
    n = 30
    items = tuple(TextItem("", f"{name} {i}", f"{name}{i}", f"{name}{i}") for i in range(n_texts))
    logprobs = -hardness * rng.exponential(size=n_texts * n)
    slopes = np.repeat(rng.normal(0.1, 0.05, n_texts), n)
    gains = -slopes * logprobs + rng.normal(0, 0.5, n_texts * n)
    return Scores(items, (), np.arange(n_texts + 1) * n, {"gain": gains[None]}, logprobs)


@pytest.mark.parametrize("hardness", [3.0, 6.0])
def test_the_lead_of_a_text_harder_than_the_controls_is_no_surer_than_it_is(hardness: float) -> None:
    """Controls as hard are few, so what is expected of it is known less well; that cost 7 % false leads, not 2.5 %."""
    found = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        target = _spread(rng, 40, hardness=hardness, name="target")
        control = _spread(rng, 48, hardness=3.0, name="control")
        names = [item.cluster for item in target.items]
        own = Gains(target.values["gain"][0], target.base_logprob, target.offsets[:-1], target.tokens, names)
        expected = expected_gain(control.base_logprob, control.values["gain"][0])
        found.append(lead_over(control, expected, own, rng=rng))
    assert np.mean([f.low > 0 for f in found]) < 0.05
    errors = np.array([f.estimate / f.se for f in found])
    assert 0.85 < errors.std() < 1.15
