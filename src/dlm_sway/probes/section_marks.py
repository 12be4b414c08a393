"""Which sections took: each one's gain, its nulls, and the gain that would have shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.core.result import Verdict
from dlm_sway.engine.ask import Scores
from dlm_sway.probes.base import Env
from dlm_sway.probes.beyond import FEWEST
from dlm_sway.probes.claims import at_least, power_line, too_few_draws
from dlm_sway.probes.controls import Gains, lead_over
from dlm_sway.probes.directional import CLEARLY_NULL
from dlm_sway.probes.section_cells import Cells
from dlm_sway.stats.multiplicity import max_t
from dlm_sway.stats.paired import Estimate, gain
from dlm_sway.stats.power import draws_needed

PIECE = 8  # tokens that vary together in a section's interval

F64: TypeAlias = npt.NDArray[np.float64]
Status: TypeAlias = Literal["took", "not", "open"]


@dataclass(frozen=True, slots=True)
class Nulls:
    """Sections against their nulls.

    Attributes:
        rates: f64[S, m + 1], gain per token; column 0 is the adapter.
        p_raw: f64[S], exact rank p of each section alone.
        p: f64[S], adjusted over the sections by maxT.
        largest: f64[m + 1], of each column the largest standardised gain of a section: did any section take?
        threshold: f64[S], the gain per token that would have stood out.
    """

    rates: F64
    p_raw: F64
    p: F64
    largest: F64
    threshold: F64

    def at_end(self, n_draws: int, *, above: bool) -> Nulls:
        """Return the p-values after `n_draws` draws, were the later ones all above every section, or all below."""
        beaten = np.count_nonzero(self.rates[:, 1:] >= self.rates[:, :1], axis=1)
        later = n_draws - (self.rates.shape[1] - 1)
        p_raw = (1 + beaten + (later if above else 0)) / (n_draws + 1)
        return replace(self, p_raw=p_raw, p=np.ones_like(p_raw) if above else p_raw)


def nulls_of(rates: F64, *, alpha: float) -> Nulls:
    """Return sections against their nulls.

    Args:
        rates: f64[m + 1, S], gain per token of the adapter (row 0) and of each null.
        alpha: level of `threshold`.
    """
    rows = rates.T
    found = max_t(rows)
    largest = found.standardised.max(axis=0)
    # Standardising is a line in each row, so a standardised bound has its own gain per token in each section.
    spread = np.ptp(found.standardised, axis=1)
    scale = np.divide(np.ptp(rows, axis=1), spread, out=np.zeros(len(rows)), where=spread > 0)
    bound = float(np.quantile(largest[1:], 1 - alpha, method="higher"))
    threshold = np.median(rows, axis=1) + scale * bound
    return Nulls(rows, found.p_raw, found.p_adjusted, largest, threshold)


@dataclass(frozen=True, slots=True)
class MarkRule:
    """What a section must show.

    Attributes:
        min_gain: nat per token.
        env: level, draws, seed.
        name: the probe's, for random streams.
        p_any: p over the whole suite that any section took; None without a null.
    """

    min_gain: float
    env: Env
    name: str
    p_any: float | None


@dataclass(frozen=True, slots=True)
class Mark:
    """One section.

    Attributes:
        label: its name.
        status: took, surely did not, or open.
        why: the reason, unless it took.
        gain: nat per token; interval over pieces of its text.
        beyond: gain beyond control text as hard.
        p: against the nulls, over all sections.
        smallest: the smallest gain that would have shown, nat per token; None where nothing could.
    """

    label: str
    status: Status
    why: str
    gain: Estimate
    beyond: Estimate
    p: float
    smallest: float | None


def marks_of(cells: Cells, control: Scores, nulls: Nulls | None, rule: MarkRule) -> tuple[Mark, ...]:
    """Return a mark for each section."""
    return tuple(_mark(i, cells, control, nulls, rule) for i in range(len(cells.own)))


def _mark(i: int, cells: Cells, control: Scores, nulls: Nulls | None, rule: MarkRule) -> Mark:
    own, beyond = _estimates(i, cells, control, rule)
    if nulls is None:
        p, raw = min(1.0, own.p * len(cells.own)), own.p
    else:
        # The suite's family asks whether any section took; only then is it asked which.
        p, raw = max(float(nulls.p[i]), rule.p_any or 0.0), float(nulls.p_raw[i])
    by_text, by_nulls = power_line(own, minimum=rule.min_gain), None if nulls is None else float(nulls.threshold[i])
    smallest = max(by_text or 0.0, by_nulls or 0.0, rule.min_gain) if own.n_clusters >= FEWEST else None
    status, why = _status(own, beyond, p, raw, rule, has_nulls=nulls is not None)
    # The nulls read fewer tokens, over which the gain may have been smaller: then this says nothing.
    if status == "not" and smallest is not None and smallest > own.estimate:
        why += f", from {smallest:.2f} it would have shown"
    return Mark(cells.labels[i], status, why, own, beyond, p, smallest)


def _estimates(i: int, cells: Cells, control: Scores, rule: MarkRule) -> tuple[Estimate, Estimate]:
    pieces = _pieces(cells.own[i].size)
    ones = np.ones(cells.own[i].size, dtype=np.int64)
    own = gain(cells.own[i], ones, pieces, rng=rule.env.rng(rule.name, "section", str(i)))
    section = Gains(cells.own[i], cells.own_logprobs[i], np.arange(ones.size), ones, pieces)
    rng = rule.env.rng(rule.name, "section", str(i), "contrast")
    return own, lead_over(control, cells.expected, section, rng=rng)


def _pieces(n: int) -> list[str]:
    """Return the piece of each token; a short text has shorter ones, so that there is something to vary."""
    size = max(2, min(PIECE, n // PIECE))
    return [str(k // size) for k in range(n)]


def _status(
    own: Estimate, beyond: Estimate, p: float, p_raw: float, rule: MarkRule, *, has_nulls: bool
) -> tuple[Status, str]:
    minimum, alpha = rule.min_gain, rule.env.alpha
    by_gain, by_controls = at_least(own, minimum), at_least(beyond, minimum)
    needed, shown = draws_needed(alpha, family=1), f"gain {own.estimate:+.2f}"
    status: Status = "took"
    why = ""
    if own.n_clusters < FEWEST:
        status, why = "open", f"{own.n_tokens} tokens are too few"
    elif by_gain is Verdict.FAIL:
        status, why = "not", shown
    elif by_controls is Verdict.FAIL:
        status, why = "not", f"{shown}, no more than text as hard"
    elif has_nulls and rule.env.n_draws < needed:
        status, why = "open", too_few_draws(rule.env.n_draws, needed, alpha)
    elif has_nulls and p_raw >= CLEARLY_NULL and own.estimate >= minimum:
        status, why = "not", f"{shown}, as random directions have"
    elif Verdict.INCONCLUSIVE in (by_gain, by_controls) or p > alpha:
        status, why = "open", f"{shown}, not sure over so little text"
    return status, why
