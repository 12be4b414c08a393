"""Results that show themselves: in a notebook, as a table, as figures.

A result lives in a low layer and its renderers in a high one, so they meet through entry points of the group
`dlm_sway.shows`: a result asks for a way to show itself by name, and the package that has one says so when it is
installed. No module here imports a renderer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final

from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.extras import REINSTALL

_GROUP: Final = "dlm_sway.shows"


class Shown:
    """Gives a result the methods that a notebook and a data frame look for."""

    __slots__ = ()

    def to_frame(self) -> Any:
        """Return a pandas frame with a row a claim: probe, claim, verdict, effect, unit, low, high, p, null, message.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return _way("frame")(self)

    def plot(self) -> Any:
        """Return the figures as one Altair chart, which a notebook draws: effects, curves, matrices, layer maps.

        Raises:
            MissingExtraError: altair is not installed.
            CannotRunError: nothing in this result can be drawn.
        """
        return _way("plot")(self)

    def _repr_html_(self) -> str:
        text: str = _way("html")(self)
        return text

    def _repr_markdown_(self) -> str:
        text: str = _way("markdown")(self)
        return text


@cache
def _way(name: str) -> Callable[[Any], Any]:
    found = next((entry for entry in entry_points(group=_GROUP) if entry.name == name), None)
    if found is None:
        raise CannotRunError(f"no installed package shows results as {name!r}", remedy=REINSTALL)
    way: Callable[[Any], Any] = found.load()
    return way
