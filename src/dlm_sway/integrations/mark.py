"""What `@pytest.mark.sway(...)` says, checked before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dlm_sway.core.errors import BadInputError

_GATE_WORDS: Final = ("threshold", "coverage", "strict")
_RUN_WORDS: Final = ("n_draws", "seed", "limit", "fast", "device", "dtype", "allow_custom")
WORDS: Final = ("spec", *_GATE_WORDS, "marks", *_RUN_WORDS)
_WHERE: Final = "@pytest.mark.sway"


@dataclass(frozen=True, slots=True)
class SwayMark:
    """One suite to put to the test.

    Attributes:
        spec: its file.
        threshold: lowest score that passes; the suite's own when None.
        coverage: lowest share that has to be decided; the suite's own when None.
        strict: whether an inconclusive probe fails instead of being skipped.
        marks: pytest marks of single items, by the name of the probe.
        settings: how it is run, as words of `dlm_sway.run`.
    """

    spec: Path
    threshold: float | None = None
    coverage: float | None = None
    strict: bool = False
    marks: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Two marks with the same key share one run."""
        return json.dumps([str(self.spec), dict(self.settings)], sort_keys=True)


def read_mark(args: tuple[Any, ...], words: Mapping[str, Any], folders: tuple[Path, ...]) -> SwayMark:
    """Return what a mark says.

    Args:
        args: of the mark; the spec may stand here.
        words: of the mark.
        folders: where a relative spec is looked for, in this order.

    Raises:
        BadInputError: there is no such word, no spec is named, or a threshold is no number in [0, 1].
    """
    from dlm_sway.suite.faults import did_you_mean

    given = {**dict(zip(WORDS, args, strict=False)), **words}
    if unknown := next((name for name in given if name not in WORDS), None):
        raise BadInputError(f"unknown word `{unknown}`", where=_WHERE, remedy=did_you_mean(unknown, WORDS))
    if len(args) > 1 or not isinstance(given.get("spec"), str | Path):
        raise BadInputError("names no suite", where=_WHERE, remedy='write spec="sway.yaml"')
    for name in ("threshold", "coverage"):
        _require_share(name, given.get(name))
    return SwayMark(
        spec=_found(Path(given["spec"]).expanduser(), folders),
        marks=dict(given.get("marks") or {}),
        settings={name: given[name] for name in _RUN_WORDS if given.get(name) is not None},
        **{name: given[name] for name in _GATE_WORDS if given.get(name) is not None},
    )


def _require_share(name: str, value: Any) -> None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    if value is not None and not fits:
        raise BadInputError(f"{name}={value!r} is no share", where=_WHERE, remedy="give a number from 0 to 1")


def _found(spec: Path, folders: tuple[Path, ...]) -> Path:
    places = [folder / spec for folder in folders]
    return next((place for place in places if place.is_file()), places[0]).resolve()
