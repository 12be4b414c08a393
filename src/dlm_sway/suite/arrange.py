"""Which probes of a suite run, on how much, and in what order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Category
from dlm_sway.probes.base import Pairs, Probe, ProbeSpec, build_probe
from dlm_sway.probes.null_adapter import calibrates
from dlm_sway.suite.faults import did_you_mean
from dlm_sway.suite.fields import holds
from dlm_sway.suite.needs import needs_model

_NULL: Final = "null_adapter"
_TEXT_LISTS: Final = frozenset({"prompts", "reference"})  # other lists of words name things, and are no sample


@dataclass(frozen=True, slots=True)
class Arranged:
    """What runs.

    Attributes:
        pairs: all probes, in the order of the report.
        of_files: those that need no model.
        of_model: those that do; calibration first, wherever the file has it.
        added: the name of the calibration that the suite did not name itself, or None.
    """

    pairs: Pairs
    of_files: Pairs
    of_model: Pairs
    added: str | None = None

    @property
    def categories(self) -> dict[str, Category]:
        """The category of each probe by its name."""
        return {spec.name: probe.category for probe, spec in self.pairs}


def arrange(
    pairs: Pairs, *, only: Collection[str] = (), skip: Collection[str] = (), limit: int | None = None, n_draws: int
) -> Arranged:
    """Return which probes run.

    Calibration never depends on where `null_adapter` stands: it comes first, and calibrates every kind of the suite. A
    suite without one gets it in front where one of its kinds has a null to show, unless `skip` names it.

    Args:
        pairs: the suite's probes.
        only: names of those that run; empty for all. The suite's calibration stays with what it calibrates.
        skip: names of those that do not.
        limit: read at most so many items of each list; None for all.
        n_draws: draws of a calibration that is added.

    Raises:
        BadInputError: a name that is not in the suite, nothing is left, or a limit under 1.
    """
    _require_names([*only, *skip], pairs)
    if limit is not None and limit < 1:
        raise BadInputError(f"a limit of {limit} leaves nothing to read", where="--limit", remedy="give 1 or more")
    left = [(probe, _limited(spec, limit)) for probe, spec in pairs if _stays(spec, only, skip)]
    left = [pair for pair in left if pair[1].kind != _NULL or pair[1].name in only or _calibrated(left)]
    if not left:
        raise BadInputError("no probe is left to run", where="--only, --skip", remedy="leave one in")
    added = None
    if _calibrated(left) and not any(spec.kind == _NULL for _, spec in left) and _NULL not in skip:
        added = _free_name({spec.name for _, spec in pairs})
        left.insert(0, build_probe({"name": added, "kind": _NULL, "runs": max(n_draws, 2)}))
    needing = [pair for pair in left if needs_model(*pair)]
    first = [pair for pair in needing if pair[1].kind == _NULL]
    then = [pair for pair in needing if pair[1].kind != _NULL]
    files = tuple(pair for pair in left if pair not in needing)
    return Arranged(tuple(left), files, (*first, *then), added)


def _stays(spec: ProbeSpec, only: Collection[str], skip: Collection[str]) -> bool:
    chosen = not only or spec.name in only or spec.kind == _NULL
    return chosen and spec.name not in skip


def _calibrated(pairs: Sequence[tuple[Probe[Any], ProbeSpec]]) -> bool:
    return any(calibrates(spec.kind) for _, spec in pairs)


def _limited(spec: ProbeSpec, limit: int | None) -> ProbeSpec:
    """Return the spec with the first `limit` entries of each list of items, texts or cases."""
    if limit is None:
        return spec
    lists = {
        name: value[:limit]
        for name in type(spec).model_fields
        if _is_sample(spec, name) and isinstance(value := getattr(spec, name), tuple)
    }
    return spec.model_copy(update=lists)


def _is_sample(spec: ProbeSpec, name: str) -> bool:
    return holds(type(spec), name) in ("items", "sections", "cases") or name in _TEXT_LISTS


def _require_names(names: Sequence[str], pairs: Pairs) -> None:
    known = [spec.name for _, spec in pairs]
    for name in names:
        if name not in known and name != _NULL:
            raise BadInputError(
                f"no probe is called {name!r}", where="--only, --skip", remedy=did_you_mean(name, known)
            )


def _free_name(taken: Collection[str]) -> str:
    name, n = _NULL, 2
    while name in taken:
        name, n = f"{_NULL}-{n}", n + 1
    return name
