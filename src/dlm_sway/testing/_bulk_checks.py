"""Rules on bulk work: the engine that drives a backend reads the numbers that its views read."""

from __future__ import annotations

from functools import cache
from typing import Any, Final
from unittest import SkipTest

import numpy as np

from dlm_sway.backends.base import BulkBackend, Encoded, TextCodec
from dlm_sway.core.views import FINETUNED
from dlm_sway.testing._common import require


def its_codec_splits_at_the_boundary(subject: Any) -> None:
    """The codec encodes prompt and completion together, and the completion starts after at least one token."""
    codec = _bulk(subject).codec
    require(isinstance(codec, TextCodec), "its codec lacks a method of TextCodec")
    require(codec.max_length >= 1, f"its context window is {codec.max_length} tokens")
    text = subject.texts[0]
    cut = text.index(" ", len(text) // 2)
    pair = codec.encode_pair(text[:cut], text[cut:], format="raw")
    require(isinstance(pair, Encoded) and 1 <= pair.start < len(pair.ids), "nothing to score, or nothing before it")
    require(codec.encode_prompt("").size >= 1, "an empty prompt has no token at all")


def the_engine_reads_what_views_read(subject: Any) -> None:
    """In bulk, base and fine-tune score each text as their views do."""
    backend = _bulk(subject)
    from dlm_sway.engine.ask import Ask, TextItem
    from dlm_sway.engine.run import Engine

    half = [text.index(" ", len(text) // 2) for text in subject.texts]
    parts = [(text[:cut], text[cut:]) for text, cut in zip(subject.texts, half, strict=True)]
    items = tuple(TextItem(p, c, str(i), str(i)) for i, (p, c) in enumerate(parts))
    (scores,) = Engine(backend).answer([Ask(items, (FINETUNED,), frozenset({"gain"}), format="raw")])
    base = np.add.reduceat(scores.base_logprob, scores.offsets[:-1])
    ft = base + scores.item_sums("gain")[0]
    for name, opener, found in (("base", backend.as_base, base), ("fine-tune", backend.as_finetuned, ft)):
        with opener() as view:
            alone = np.array([view.logprob_of(p, c) for p, c in parts])
        off = float(np.abs(alone - found).max())
        room = subject.atol * int(scores.tokens.max())
        require(off <= room, f"the {name} is off by up to {off:.3g} nat a text, where {room:.3g} is allowed")


def divergences_are_what_they_must_be(subject: Any) -> None:
    """KL and total variation of the fine-tune to the base are not negative, and of the base to itself they are 0."""
    backend = _bulk(subject)
    from dlm_sway.core.views import BASE
    from dlm_sway.engine.ask import Ask, TextItem
    from dlm_sway.engine.run import Engine

    items = tuple(TextItem("", text, str(i), str(i)) for i, text in enumerate(subject.texts))
    asked = Ask(items, (FINETUNED, BASE), frozenset({"kl", "tv"}), format="raw")
    (scores,) = Engine(backend).answer([asked])
    for name in ("kl", "tv"):
        values = scores.values[name]
        require((values[0] >= -subject.atol).all(), f"{name} is negative: {values[0].min():.3g}")
        require(
            np.abs(values[1]).max() <= subject.atol, f"{name} of the base to itself is {np.abs(values[1]).max():.3g}"
        )


@cache
def _has_torch() -> bool:
    from importlib.util import find_spec

    return find_spec("torch") is not None


def _bulk(subject: Any) -> Any:
    if not isinstance(subject.backend, BulkBackend):
        raise SkipTest("it lacks codec, null_refusal or exclusive: the engine cannot drive it, so it runs no suite")
    if not _has_torch():
        raise SkipTest("the engine needs torch: pip install torch")
    return subject.backend


RULES: Final = (
    its_codec_splits_at_the_boundary,
    the_engine_reads_what_views_read,
    divergences_are_what_they_must_be,
)
