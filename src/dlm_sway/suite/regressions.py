"""What was right in one result and no longer is in another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from dlm_sway.core.result import ProbeResult, SuiteResult, Verdict
from dlm_sway.suite.compare_result import Contrast, Regression
from dlm_sway.suite.measured import claims_of, questions_of

_RIGHT: Final = frozenset({Verdict.PASS, Verdict.WARN})
_NO_ANSWER: Final = frozenset({Verdict.SKIP, Verdict.ERROR})


def regressions_of(
    reference: SuiteResult, other: SuiteResult, candidate: str, contrasts: Iterable[Contrast]
) -> tuple[Regression, ...]:
    """Return what became worse: probes that are gone or in error, claims that failed, differences that are decided.

    A probe that is skipped where the reference had an answer counts as gone, and so does a claim that was right and is
    no longer answered: what nobody asks cannot pass. A claim that was decided and now is not is none; whether it became
    worse is what the difference says.
    """
    theirs = {probe.name: probe for probe in other.probes}
    found = [
        regression for probe in reference.probes for regression in _of_probe(probe, theirs.get(probe.name), candidate)
    ]
    known = {(r.probe, r.claim) for r in found}
    found += [
        _worse(c) for c in contrasts if c.candidate == candidate and c.outcome == "worse" and _key(c) not in known
    ]
    return tuple(found)


def _key(contrast: Contrast) -> tuple[str, str]:
    return contrast.probe, contrast.claim


def _worse(contrast: Contrast) -> Regression:
    unit = f" {contrast.unit}" if contrast.unit else ""
    message = f"worse by {abs(contrast.difference or 0.0):.3g}{unit}"
    return Regression(
        candidate=contrast.candidate, probe=contrast.probe, claim=contrast.claim, why="worse", message=message
    )


def _of_probe(reference: ProbeResult, other: ProbeResult | None, candidate: str) -> list[Regression]:
    name = reference.name
    if other is None:
        return [Regression(candidate=candidate, probe=name, why="vanished", message="the probe is not there")]
    if other.verdict is Verdict.ERROR:
        words = f"error: {other.message}" if other.message else "error"
        return [Regression(candidate=candidate, probe=name, why="error", message=words)]
    if other.verdict is Verdict.SKIP and reference.verdict is not Verdict.SKIP:
        words = f"skipped, and was {reference.verdict}: {other.message}"
        return [Regression(candidate=candidate, probe=name, why="vanished", message=words)]
    return [*_failed(reference, other, candidate), *_unanswered(reference, other, candidate)]


def _failed(reference: ProbeResult, other: ProbeResult, candidate: str) -> Iterable[Regression]:
    before, after = (_verdicts(probe) for probe in (reference, other))
    for claim, verdict in before.items():
        if verdict in _RIGHT and after.get(claim) is Verdict.FAIL:
            message = questions_of(other)[claim].message
            yield _fail(candidate, reference.name, claim, verdict, message)
    whole = reference.verdict in _RIGHT and other.verdict is Verdict.FAIL
    if whole and not any(v in _RIGHT and after.get(c) is Verdict.FAIL for c, v in before.items()):
        yield _fail(candidate, reference.name, None, reference.verdict, other.message)


def _unanswered(reference: ProbeResult, other: ProbeResult, candidate: str) -> Iterable[Regression]:
    """Yield the claims that were right and have no answer now; a probe that says no claims at all has lost none."""
    after = claims_of(other)
    for claim, before in claims_of(reference).items() if after else ():
        now = after.get(claim)
        if before.verdict not in _RIGHT or (now is not None and now.verdict not in _NO_ANSWER):
            continue
        error = now is not None and now.verdict is Verdict.ERROR
        words = f"is {now.verdict}: {now.message}" if now is not None else "is not there"
        yield Regression(
            candidate=candidate,
            probe=reference.name,
            claim=claim,
            why="error" if error else "vanished",
            message=f"was {before.verdict}, {words}",
        )


def _verdicts(probe: ProbeResult) -> Mapping[str, Verdict]:
    return {claim: question.verdict for claim, question in questions_of(probe).items()}


def _fail(candidate: str, probe: str, claim: str | None, before: Verdict, message: str) -> Regression:
    words = f"was {before}, is fail: {message}"
    return Regression(candidate=candidate, probe=probe, claim=claim, why="pass to fail", message=words)
