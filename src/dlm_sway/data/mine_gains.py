"""What a fine-tune did to each token of some texts: the raw material of `sway mine`. Nothing here is a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import Format
from dlm_sway.core.progress import Progress
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.probes.inputs import shown

_AROUND: Final = 6  # tokens shown on either side of one that moved

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Read:
    """One text, token by token.

    Attributes:
        item: the text.
        tokens: its scored tokens as text.
        gain: float64[n], change in log-prob of each, nat.
        base: float64[n], log-prob of each under the base, nat.
    """

    item: TextItem
    tokens: tuple[str, ...]
    gain: F64
    base: F64

    @property
    def mean(self) -> float:
        """Gain per token, nat."""
        return float(self.gain.mean())

    def around(self, i: int) -> str:
        """Return a token in its place, marked, with its probability under the base and the fine-tune."""
        before = "".join(self.tokens[max(0, i - _AROUND) : i])
        after = "".join(self.tokens[i + 1 : i + 1 + _AROUND])
        p, q = np.exp(self.base[i]), np.exp(min(0.0, self.base[i] + self.gain[i]))
        return f"{shown(before + '[' + self.tokens[i] + ']' + after)}  {p:.2g} -> {q:.2g}"


def read_gains(
    backend: Any,
    items: Sequence[TextItem],
    *,
    format: Format = "auto",  # noqa: A002 (DESIGN 5's word)
    progress: Progress | None = None,
) -> list[Read]:
    """Return the change of every token of every text, in one batch of passes.

    Raises:
        BadInputError: a text holds nothing to score.
        CannotRunError: the model gave a number that is not finite, or ran out of memory.
    """
    from dlm_sway.engine.run import Engine

    engine = Engine(backend, progress=progress)
    (scores,) = engine.answer([Ask(tuple(items), (FINETUNED,), frozenset({"gain"}), format=format)])
    out: list[Read] = []
    for i, item in enumerate(items):
        place = slice(int(scores.offsets[i]), int(scores.offsets[i + 1]))
        gain, base = scores.values["gain"][0, place], scores.base_logprob[place]
        encoded = backend.codec.encode_pair(item.prompt, item.completion, format=format)
        ids = encoded.ids[-gain.size :]
        out.append(
            Read(item, tuple(backend.codec.decode(ids[j : j + 1]) or "<special>" for j in range(ids.size)), gain, base)
        )
    return out


@dataclass(frozen=True, slots=True)
class Moved:
    """A token that the fine-tune made more or less probable.

    Attributes:
        token: as text.
        n: places it stands at.
        total: summed change, nat.
        mean: change at one place, nat.
        example: the place where it changed most in that direction.
    """

    token: str
    n: int
    total: float
    mean: float
    example: str


def moved_tokens(reads: Sequence[Read], *, n: int = 15) -> tuple[list[Moved], list[Moved]]:
    """Return the tokens whose summed log-prob rose most, and those where it fell most; equal ones by their text."""
    places: dict[str, list[tuple[float, int, int]]] = {}
    for r, read in enumerate(reads):
        for i, token in enumerate(read.tokens):
            places.setdefault(token, []).append((float(read.gain[i]), r, i))
    rows: list[Moved] = []
    for token, found in places.items():
        total = sum(gain for gain, _, _ in found)
        _, r, i = max(found, key=lambda place: (place[0] if total > 0 else -place[0], -place[1], -place[2]))
        rows.append(Moved(token, len(found), total, total / len(found), reads[r].around(i)))
    rows.sort(key=lambda row: (-row.total, row.token))
    return [row for row in rows if row.total > 0][:n], [row for row in reversed(rows) if row.total < 0][:n]


def outliers(reads: Sequence[Read], *, n: int = 10) -> tuple[list[Read], list[Read]]:
    """Return the texts that changed most per token, whether they gained or lost, and those that changed least."""
    order = sorted(reads, key=lambda read: (-abs(read.mean), read.item.label))
    some = min(n, (len(order) + 1) // 2)
    return order[:some], order[some:][::-1][:n]


def largest(read: Read, *, n: int = 4) -> list[str]:
    """Return the places of a text that changed most, either way."""
    return [f"{read.gain[i]:+.2f}  {read.around(int(i))}" for i in np.argsort(-np.abs(read.gain), kind="stable")[:n]]
