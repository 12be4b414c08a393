"""What was tested, as numbers that a link is held against: log-probs of texts at several scales, and of their ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dlm_sway.adapters.config import AdapterConfig
from dlm_sway.backends.base import BulkBackend, ScalarBackend
from dlm_sway.chain.static import scale_faults
from dlm_sway.chain.stop import stop_text
from dlm_sway.core.errors import BadInputError, CannotRunError
from dlm_sway.core.views import scaled
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.floor import measure_floor
from dlm_sway.engine.run import Engine

OWN: Final = "data"
"""Stratum of the user's texts."""
_ENOUGH_CLUSTERS: Final = 5
_SCALES: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
_LARGEST_SCALE: Final = 8.0  # beyond, a model says nothing


@dataclass(frozen=True, slots=True)
class Reference:
    """What was tested: log-probs of some texts, and of the stop behind those that end, at scales of the adapter.

    Attributes:
        asked: the texts, with the stop written behind those that have an end.
        scales: ascending, 0 and 1 among them.
        logprobs: float64[G, P], of the texts' own tokens, nats.
        offsets: int64[n_items + 1], of the texts' own tokens.
        stops: float64[G, S], log-prob of the stop behind a text that ends.
        stop_clusters: S names of what varies together.
        is_stop: bool[P + S], which of the scored tokens are stops.
        floor: largest difference of a log-prob that numerics alone make, nats.
        max_tokens: scored of a text at most.
    """

    asked: tuple[TextItem, ...]
    scales: tuple[float, ...]
    logprobs: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64]
    stops: npt.NDArray[np.float64]
    stop_clusters: tuple[str, ...]
    is_stop: npt.NDArray[np.bool_]
    floor: float
    max_tokens: int

    @property
    def base(self) -> npt.NDArray[np.float64]:
        """Log-probs at scale 0, float64[P]."""
        return np.asarray(self.logprobs[self.scales.index(0.0)])

    @property
    def tuned(self) -> npt.NDArray[np.float64]:
        """Log-probs at scale 1, float64[P]."""
        return np.asarray(self.logprobs[self.scales.index(1.0)])

    @property
    def own(self) -> npt.NDArray[np.bool_] | None:
        """Which tokens are of the user's texts, bool[P]; None where these are too few for an interval."""
        is_own = np.array([item.stratum == OWN for item in self.asked])
        if len({item.cluster for item in self.asked if item.stratum == OWN}) < _ENOUGH_CLUSTERS:
            return None
        return np.repeat(is_own, np.diff(self.offsets))

    @property
    def mean_effect(self) -> float:
        """What the adapter does to a log-prob on average, nats."""
        return float((self.tuned - self.base).mean())


@dataclass(frozen=True, slots=True)
class Observed:
    """What a link gives the same tokens: float64[P] and float64[S], nats; NaN where a server does not say."""

    logprobs: npt.NDArray[np.float64]
    stops: npt.NDArray[np.float64]


def take_reference(
    backend: Any, items: Sequence[TextItem], config: AdapterConfig, *, max_tokens: int, ending: int = 0
) -> Reference:
    """Return the reference of a differential backend.

    Args:
        backend: base and adapter, with scales.
        items: the texts; those that end where they should come first.
        config: adds the scales that known faults would show.
        max_tokens: score so many tokens of a text at most.
        ending: how many of the items end where a model should stop.
    """
    scales = tuple(sorted({*_SCALES, *(lam for lam in scale_faults(config).values() if lam <= _LARGEST_SCALE)}))
    asked, ends = _with_ends(backend.codec, items, max_tokens=max_tokens, ending=ending)
    engine = Engine(backend)
    floor = measure_floor(engine)
    (scores,) = engine.answer([Ask(asked, tuple(map(scaled, scales)), frozenset({"gain"}), max_tokens=max_tokens)])
    everything = scores.base_logprob + scores.values["gain"]
    is_stop = np.zeros(everything.shape[1], dtype=np.bool_)
    is_stop[scores.offsets[1:][ends] - 1] = True
    return Reference(
        asked=asked,
        scales=scales,
        logprobs=everything[:, ~is_stop],
        offsets=np.concatenate([[0], np.cumsum(scores.tokens - ends)]).astype(np.int64),
        stops=everything[:, is_stop],
        stop_clusters=tuple(item.cluster for item, end in zip(asked, ends, strict=True) if end),
        is_stop=is_stop,
        floor=floor.max_logprob,
        max_tokens=max_tokens,
    )


def observe(backend: BulkBackend, reference: Reference) -> Observed:
    """Return the log-probs that a whole model, or a server as it stands, gives the reference's tokens.

    Raises:
        BadInputError: it cuts the texts into other tokens.
        CannotRunError: it cannot be asked, or computes what is no number.
    """
    asked = Ask(reference.asked, (), frozenset(), max_tokens=reference.max_tokens)
    (scores,) = Engine(backend).answer([asked])
    if len(scores.base_logprob) != len(reference.is_stop):
        raise BadInputError("it cuts these texts into other tokens", remedy="compare the tokens first")
    found = scores.base_logprob
    if not isinstance(backend, ScalarBackend) and not np.isfinite(found).all():
        remedy = "look for weights that are not finite, or load it in a wider dtype"
        raise CannotRunError("it gives log-probs that are no numbers", remedy=remedy)
    return Observed(found[~reference.is_stop], found[reference.is_stop])


def _with_ends(
    codec: Any, items: Sequence[TextItem], *, max_tokens: int, ending: int
) -> tuple[tuple[TextItem, ...], npt.NDArray[np.bool_]]:
    """Return the items with their stop written behind them, and which of them have one: not where a text is cut."""
    asked: list[TextItem] = []
    for i, item in enumerate(items):
        stop = stop_text(codec.tokenizer, chat=bool(item.prompt) and codec.has_chat_template) if i < ending else None
        ended = None if stop is None else _ended(codec, item, stop, max_tokens=max_tokens)
        asked.append(ended or item)
    return tuple(asked), np.array([a is not b for a, b in zip(asked, items, strict=True)], dtype=np.bool_)


def _ended(codec: Any, item: TextItem, stop: str, *, max_tokens: int) -> TextItem | None:
    """Return the item with its stop, or None where that would be no single token within what is scored."""
    ended = TextItem(item.prompt, item.completion + stop, item.cluster, item.label, item.stratum)
    plain, whole = (codec.encode_pair(x.prompt, x.completion, format="auto") for x in (item, ended))
    fits = plain.start == whole.start and whole.n_scored <= max_tokens and len(whole.ids) <= codec.max_length
    return ended if fits and np.array_equal(whole.ids[:-1], plain.ids) else None
