"""Whether more draws could still change a verdict: what `--fast` stops on.

With m of at most M draws made, the later ones can lie anywhere. So each probe is judged twice: with M - m draws added
that are below everything so far, and with as many above it. In the first case its rank p is (1 + k) / (M + 1), where k
draws were at least as large as the real value, and the median null is as low as it can become; in the second, both are
as high as they can, and an adjusted p counts as 1, its bound. (An adjusted p is never below its own rank p, so the
first case holds for maxT too.) Verdicts that are the same at both ends are those that all M draws would give, so
stopping there spends no error (curtailed sampling: Besag and Clifford 1991). A test that is still significant is
therefore drawn to the end; one that has been beaten too often is not.

It holds where a statistic does not change with the number of draws. The scale lam* of `delta_kl` and `target_gain` does
not: it comes from rotations of its own (`unsaturated`), so that a later round scores the new draws alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import SwayError
from dlm_sway.probes.base import Env, Found, NullTest, Probe, ProbeSpec
from dlm_sway.stats.ranks import rank_test

_FAR: Final = 1e6  # times; no ratio to the median that a spec asks for is larger
Measured: TypeAlias = "tuple[Probe[Any], ProbeSpec, Env, Found | None]"


def settled(measured: Sequence[Measured], *, n_draws: int) -> bool:
    """Return whether no verdict of these probes can change by the time that there are `n_draws` draws.

    Args:
        measured: each probe with what it has measured so far; None where it failed.
        n_draws: the most draws that there will be.
    """
    return all(_is_settled(probe, spec, env, found, n_draws) for probe, spec, env, found in measured)


def _is_settled(probe: Probe[Any], spec: ProbeSpec, env: Env, found: Found | None, n_draws: int) -> bool:
    if found is None or not found.tests:
        return True  # draws have no part in it
    try:
        low, high = (_at_end(probe, found, n_draws, above=above) for above in (False, True))
        lowest = {test.name: rank_test(test.real, test.draws, scale=test.scale).p for test in low.tests}
        return _verdicts(probe, spec, env, low, lowest) == _verdicts(probe, spec, env, high, dict.fromkeys(lowest, 1.0))
    except SwayError:
        return True


def _at_end(probe: Probe[Any], found: Found, n_draws: int, *, above: bool) -> Found:
    tests = tuple(replace(test, draws=_extended(test, n_draws, above=above)) for test in found.tests)
    return probe.at_end(replace(found, tests=tests), above=above)


def _extended(test: NullTest, n_draws: int, *, above: bool) -> npt.NDArray[np.float64]:
    """Return all draws there will be, the later ones beyond everything so far."""
    known = np.append(test.draws, test.real)
    low, high = float(known.min()), float(known.max())
    if test.scale == "log":
        beyond = high * _FAR if above else low / _FAR
    else:
        beyond = high + (high - low + 1.0) if above else low - (high - low + 1.0)
    return np.append(test.draws, np.full(max(0, n_draws - test.draws.size), beyond))


def _verdicts(probe: Probe[Any], spec: ProbeSpec, env: Env, found: Found, p: Mapping[str, float]) -> list[object]:
    result = probe.judge(spec, env, found, p)
    claims = result.evidence.get("claims", {})
    return [result.verdict, *(claim["verdict"] for claim in claims.values())]
