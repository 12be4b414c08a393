"""What a user should do after a suite, the most pressing first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from dlm_sway.core.result import ProbeResult, Verdict

_ORDER: Final = (Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.WARN)
_ADVICE: Final[Mapping[tuple[str, Verdict], str]] = {
    ("applied", Verdict.FAIL): "the adapter changes nothing: check that training ran and that this folder was saved",
    ("learned", Verdict.FAIL): "its weights point nowhere in particular: check the learning rate, that the loss fell, "
    "and that it was saved after training",
    ("learned", Verdict.INCONCLUSIVE): "ask again with more draws: --draws 99",
    ("on_target", Verdict.FAIL): "it did not move toward this data: check that it was trained on it, in this format",
    (
        "generalises",
        Verdict.FAIL,
    ): "it does not carry over to held-out text: train on more varied data, for fewer steps",
    ("no_harm", Verdict.FAIL): "it harms other text: train for fewer steps, with a lower rate, or mix in plain text",
}
_MOST: Final = 8


def whats_next(results: Sequence[ProbeResult]) -> tuple[str, ...]:
    """Return a step for each result that is no pass, worst first; a skip alone asks for nothing."""
    ranked = sorted((r for r in results if r.verdict in _ORDER), key=lambda r: _ORDER.index(r.verdict))
    steps = [step for result in ranked for step in _steps(result)]
    return tuple(dict.fromkeys(steps))[:_MOST]


def _steps(result: ProbeResult) -> list[str]:
    claims = result.evidence.get("claims")
    found = [
        f"{result.name}: {_ADVICE[name, Verdict(claim['verdict'])]}"
        for name, claim in (claims.items() if isinstance(claims, Mapping) else ())
        if (name, claim["verdict"]) in _ADVICE
    ]
    return found or [f"{result.name}: {result.message or result.verdict}"]
