"""The colours of pictures: by their part, never by a value, so that one picture serves a light and a dark page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Palette:
    """A colour for each part of a picture, as `#rrggbb`.

    Attributes:
        ink: words and numbers.
        muted: axes and their labels.
        grid: lines behind the data.
        mark: the adapter.
        null: null draws.
        bar: a declared minimum or margin.
        good: where the effect should lie.
        more: values above zero.
        less: values under zero.
    """

    ink: str
    muted: str
    grid: str
    mark: str
    null: str
    bar: str
    good: str
    more: str
    less: str


LIGHT: Final = Palette(
    ink="#1d2330",
    muted="#5b6475",
    grid="#dfe3ea",
    mark="#2f5bd0",
    null="#8a93a5",
    bar="#a2480c",
    good="#1c8a58",
    more="#2f6fde",
    less="#c2571a",
)
# Colours that nothing else has: the HTML report puts a variable of its style sheet in the place of each.
TOKENS: Final = Palette(**{name: f"#0a0b{i:02x}" for i, name in enumerate(asdict(LIGHT), start=16)})


def variables() -> dict[str, str]:
    """Return the variable of the style sheet for each token."""
    return {token: f"var(--{name})" for name, token in asdict(TOKENS).items()}
