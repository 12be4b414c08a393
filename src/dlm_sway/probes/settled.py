"""Whether more draws could still change a verdict: what `--fast` stops on.

With m of at most M draws made and k of them at least as large as the real value, the p-value that M draws will give
lies between (1 + k) / (M + 1), where no later draw reaches it, and 1. Verdicts that are the same at both ends are
those that all M draws would give, so stopping there spends no error (curtailed sampling: Besag and Clifford 1991).
The bounds hold for maxT too, since an adjusted p is never below its own rank p. A test that is still significant is
therefore drawn to the end; one that has been beaten too often is not.

It holds where a statistic does not change with the number of draws. The scale lam* of `delta_kl` and `target_gain` does
not: it comes from rotations of its own (`unsaturated`), so that a later round scores the new draws alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from dlm_sway.core.errors import SwayError
from dlm_sway.probes.base import Env, Found, NullTest, Probe, ProbeSpec

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
    lowest = {test.name: _lowest(test, n_draws) for test in found.tests}
    try:
        return _verdicts(probe, spec, env, found, lowest) == _verdicts(
            probe, spec, env, found, dict.fromkeys(lowest, 1.0)
        )
    except SwayError:
        return True


def _lowest(test: NullTest, n_draws: int) -> float:
    return float(1 + np.count_nonzero(test.draws >= test.real)) / (max(n_draws, test.draws.size) + 1)


def _verdicts(probe: Probe[Any], spec: ProbeSpec, env: Env, found: Found, p: Mapping[str, float]) -> list[object]:
    result = probe.judge(spec, env, found, p)
    claims = result.evidence.get("claims", {})
    return [result.verdict, *(claim["verdict"] for claim in claims.values())]
