"""Control texts of the same form as the user's: what a gain on the target is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlm_sway.data.control import control_passages
from dlm_sway.engine.ask import Scores, TextItem
from dlm_sway.probes.form import nearest
from dlm_sway.probes.inputs import clusters
from dlm_sway.stats.paired import Estimate, gain_difference
from dlm_sway.stats.standardise import ExpectedGain

_MOST = 48
_FEWEST = 24


def matched_controls(items: Sequence[TextItem], *, rng: np.random.Generator) -> tuple[TextItem, ...]:
    """Return control items of the items' form and other content, at most one a passage of the shipped corpus.

    Each item drawn at random gets the passage nearest to it in form (`form.features`) among those still free. Passages
    are cut, at word boundaries, to the item's lengths of prompt and completion in characters: position in the text
    drives log-prob per token. No model is needed, so the match cannot lean on a score.
    """
    passages = control_passages()
    count = min(_MOST, max(len(items), _FEWEST), len(passages))
    drawn = rng.choice(len(items), size=count, replace=count > len(items))
    wanted = [items[i].prompt + items[i].completion for i in drawn]
    chosen = nearest(wanted, [p.text for p in passages], rng=rng)
    return tuple(
        _cut(passages[c].text, items[i], passages[c].id, passages[c].register)
        for c, i in zip(chosen, drawn, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Gains:
    """What the tokens of a text gained, and how the text is parted.

    Attributes:
        gains: f64[n], of each token, nats.
        logprobs: f64[n], under the base.
        starts: int64[k], the first token of each part.
        sizes: int64[k], what a part counts: its tokens or its bytes.
        clusters: [k], parts of one name vary together.
    """

    gains: npt.NDArray[np.float64]
    logprobs: npt.NDArray[np.float64]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    clusters: Sequence[str]


def lead_over(control: Scores, expected: ExpectedGain, target: Gains, *, rng: np.random.Generator) -> Estimate:
    """Return by how much a text gained more than control tokens as hard, with an interval.

    The interval is of the text and of the controls alike, each control as it weighs in what is expected of the text.

    Args:
        control: the control texts' answers.
        expected: fitted to them.
        target: the text.
        rng: of resampling.
    """
    excess = np.add.reduceat(target.gains - expected.at(target.logprobs), target.starts)
    weights = expected.weights(control.base_logprob, target.logprobs)
    weights *= target.gains.size / target.sizes.sum() * control.tokens.sum()
    apart = weights * (control.values["gain"][0] - expected.at(control.base_logprob))
    return gain_difference(
        excess,
        target.sizes,
        target.clusters,
        np.add.reduceat(apart, control.offsets[:-1]),
        control.tokens,
        clusters(control.items),
        rng=rng,
    )


def _cut(text: str, like: TextItem, name: str, register: str) -> TextItem:
    # A prompt longer than the passage must leave something to score.
    split = _boundary(text, min(len(like.prompt), len(text) // 2)) if like.prompt else 0
    wanted = split + max(40, len(like.completion))
    end = _boundary(text, wanted)
    if not text[split:end].strip():  # no boundary between the two, as in a table or a script without spaces
        end = min(wanted, len(text))
    return TextItem(text[:split], text[split:end], name, name, register)


def _boundary(text: str, at: int) -> int:
    """Return the word boundary at or before `at` (never 0), or the end of the text."""
    if at >= len(text):
        return len(text)
    space = text.rfind(" ", 1, at + 1)
    return space if space > 0 else at
