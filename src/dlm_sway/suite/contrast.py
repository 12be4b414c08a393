"""One claim of two results: the difference, how sure it is, and what would decide it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dlm_sway.core.result import ProbeResult, Question, Verdict
from dlm_sway.probes.claims import Better
from dlm_sway.stats.difference import Difference, paired_difference, unpaired_difference
from dlm_sway.stats.multiplicity import benjamini_hochberg
from dlm_sway.stats.power import MAX_CLUSTERS, clusters_needed
from dlm_sway.suite.compare_result import Contrast, Outcome
from dlm_sway.suite.measured import Series, ends_of, questions_of, series_of, shared


@dataclass(frozen=True, slots=True)
class Draft:
    """A contrast before all others are known; `found` is None where nothing can be compared."""

    contrast: Contrast
    found: Difference | None = None


def drafts(
    reference: ProbeResult,
    other: ProbeResult,
    candidate: str,
    rng: Callable[[str], np.random.Generator],
    *,
    confidence: float = 0.95,
) -> list[Draft]:
    """Return the claims of a probe that two results answer, compared where they can be.

    Claims that come with their items are paired on those that both have read; one without items in common, or without
    items at all, by the intervals. A claim whose numbers no result gives an interval for is left out, unless there is
    no other.

    Args:
        reference: the probe in the result compared with.
        other: the same probe in another result.
        candidate: what that is called.
        rng: makes the random stream of a claim.
        confidence: of every interval, 1 less the level that `decided` is asked for.
    """
    ours, theirs = series_of(reference), series_of(other)
    questions = (questions_of(reference), questions_of(other))
    found: list[Draft] = []
    for claim in dict.fromkeys([*ours, *questions[0]]):
        blank = Contrast(
            candidate=candidate, probe=reference.name, kind=reference.kind, claim=claim, outcome="not comparable"
        )
        if (reason := _cannot(reference, other)) is not None:
            return [Draft(blank.model_copy(update={"claim": reference.kind, "message": reason}))]
        draft = None
        if claim in ours and claim in theirs:
            draft = _paired(blank, (ours[claim], theirs[claim]), confidence=confidence, rng=rng(claim))
        if draft is None and claim in questions[0] and claim in questions[1]:
            both = (questions[0][claim], questions[1][claim])
            draft = _unpaired(blank, both, ours.get(claim), confidence=confidence)
        if draft is not None:
            found.append(draft)
    return found or [Draft(_nothing(reference, candidate, bool(ours)))]


def decided(drafted: Sequence[Draft], *, alpha: float) -> tuple[Contrast, ...]:
    """Return the contrasts with their outcomes, p adjusted over all of them (Benjamini-Hochberg)."""
    tested = [draft.found for draft in drafted if draft.found is not None]
    adjusted = iter(benjamini_hochberg([f.p for f in tested]) if tested else ())
    return tuple(
        draft.contrast if draft.found is None else _judged(draft.contrast, draft.found, float(next(adjusted)), alpha)
        for draft in drafted
    )


def _cannot(reference: ProbeResult, other: ProbeResult) -> str | None:
    if reference.kind != other.kind:
        return f"the probe is of kind {reference.kind} in one and {other.kind} in the other"
    for probe, who in ((reference, "reference"), (other, "candidate")):
        if probe.verdict in (Verdict.ERROR, Verdict.SKIP):
            return f"the {who} has no answer ({probe.verdict})"
    return None


def _nothing(reference: ProbeResult, candidate: str, has_items: bool) -> Contrast:
    why = (
        "the two have no items in common and no intervals" if has_items else "it records neither items nor an interval"
    )
    return Contrast(
        candidate=candidate,
        probe=reference.name,
        kind=reference.kind,
        claim=reference.kind,
        outcome="not comparable",
        message=why,
    )


def _paired(
    blank: Contrast, series: tuple[Series, Series], *, confidence: float, rng: np.random.Generator
) -> Draft | None:
    ours, theirs = series
    if (ours.unit, ours.better) != (theirs.unit, theirs.better):
        return None
    both = shared((ours, theirs))
    if not len(both):
        return None
    first, second = both.totals
    found = paired_difference(first, second, both.weight, both.clusters, confidence=confidence, rng=rng)
    values = [float(total.sum() / both.weight.sum()) for total in both.totals]
    words = {
        "unit": ours.unit,
        "better": ours.better,
        "reference": values[0],
        "value": values[1],
        "paired": True,
        "n_shared": len(both),
        "n_reference": ours.n_items,
        "n_candidate": theirs.n_items,
        "minimum": ours.minimum,
    }
    return Draft(blank.model_copy(update=words), found)


def _unpaired(
    blank: Contrast, both: tuple[Question, Question], series: Series | None, *, confidence: float
) -> Draft | None:
    ours, theirs = both
    a, b = ends_of(ours), ends_of(theirs)
    if a is None or b is None or ours.unit != theirs.unit:
        return None
    found = unpaired_difference(a[0], a[1], b[0], b[1], confidence=confidence)
    if found is None:
        return None
    words = {
        "unit": ours.unit,
        "better": series.better if series else None,
        "reference": a[0],
        "value": b[0],
        "paired": False,
        "minimum": series.minimum if series else None,
    }
    return Draft(blank.model_copy(update=words), found)


def _judged(contrast: Contrast, found: Difference, p_adjusted: float, alpha: float) -> Contrast:
    outcome = _outcome(found, p_adjusted, contrast.better, contrast.minimum, alpha)
    words = {
        "outcome": outcome,
        "difference": found.estimate,
        "interval": None if found.low is None or found.high is None else (found.low, found.high),
        "se": found.se,
        "p": found.p,
        "p_adjusted": p_adjusted,
        "method": found.method,
    }
    known = contrast.model_copy(update=words)
    return known.model_copy(update={"message": _message(known, found, alpha)})


def _outcome(found: Difference, p: float, better: Better, minimum: float | None, alpha: float) -> Outcome:
    """Decide only where p and the interval agree, and not where the whole interval is too small to matter."""
    if found.low is None or found.high is None or p > alpha or found.low <= 0 <= found.high or _small(found, minimum):
        return "no decided difference"
    if better is None:
        return "differs"
    return "better" if (found.estimate > 0) == (better == "higher") else "worse"


def _small(found: Difference, minimum: float | None) -> bool:
    ends = (found.low, found.high)
    return minimum is not None and all(end is not None and abs(end) < minimum for end in ends)


def _fewest(alpha: float) -> int:
    """Return how many clusters an exact sign-flip test needs to reach `alpha` on two sides: 6 for 5 %."""
    return math.ceil(1 - math.log2(alpha))


def _message(contrast: Contrast, found: Difference, alpha: float) -> str:
    over = f"over {contrast.n_shared} shared items" if contrast.paired else "unpaired, by the two intervals"
    if contrast.outcome != "no decided difference":
        return over
    return f"{over}: {_open(contrast, found, alpha)}"


def _open(contrast: Contrast, found: Difference, alpha: float) -> str:
    minimum, n = contrast.minimum, found.n_clusters
    if _small(found, minimum):
        return f"surely less than the {minimum:g} apart that matter"
    if not contrast.paired:
        return "give both the same items, so that they can be paired"
    if n < (fewest := _fewest(alpha)):
        return f"{n} cannot decide; give both at least {fewest}, better 30"
    if found.p <= alpha and (contrast.p_adjusted or 1.0) > alpha:
        return f"p {found.p:.2g} alone, {contrast.p_adjusted:.2g} among all that is compared here"
    size = max(abs(found.estimate), minimum or 0.0)
    if not found.se or not size:
        return "the same on all of them" if not found.estimate else f"{n} do not decide; give more"
    needed = max(clusters_needed(found.se * n**0.5, size, alpha=alpha / 2), n + 1)
    return f"about {needed:,} would show a difference of {size:.2g}" if needed <= MAX_CLUSTERS else "they are alike"
