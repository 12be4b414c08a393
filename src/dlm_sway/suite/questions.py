"""From an inspection and from probes to the answers of the six questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from dlm_sway.adapters.inspection import Inspection
from dlm_sway.core.result import ProbeResult, Question, Verdict, worst
from dlm_sway.suite.request import Request
from dlm_sway.suite.result import FINDINGS, QUESTIONS

# With these the model cannot be loaded, or every number it gives would be meaningless.
_BLOCKING: Final = frozenset(
    {
        "empty_tensor",
        "empty_weights",
        "no_weights",
        "not_finite",
        "pickle_weights",
        "rank_mismatch",
        "swapped_factors",
        "unknown_peft_type",
        "unreadable_format",
        "wrong_shape",
    }
)
_CLAIMS: Final = {
    "delta_kl": ("applied", "learned"),
    "target_gain": ("on_target", "generalises"),
    "external_perplexity": ("no_harm",),
    "section_internalization": ("took",),
    "leakage": ("recital",),
    "adapter_ablation": ("dose",),
}
_COUNT: Final = (Verdict.FAIL, Verdict.WARN)
_SHOWN: Final = 3


def is_blocked(inspection: Inspection) -> bool:
    """Return whether the adapter is so unsound that no model need be loaded."""
    return any(f.code in _BLOCKING and f.severity == "fail" for f in inspection.faults)


def sound(inspection: Inspection) -> Question:
    """Return the answer to `sound`."""
    faults = [f for f in inspection.faults if f.severity in ("fail", "warn")]
    more = f" (and {len(faults) - _SHOWN} more)" if len(faults) > _SHOWN else ""
    return Question(
        verdict=inspection.verdict,
        effect=float(len(faults)),
        unit="faults",
        null="static checks (Q0)",
        message=("; ".join(f.message for f in faults[:_SHOWN]) or inspection.summary) + more,
    )


def not_asked(why: str) -> dict[str, Question]:
    """Return a skip for every question that needs the model."""
    return {name: _skip(why) for name in QUESTIONS[1:]}


def not_finite(reason: str) -> dict[str, Question]:
    """Return one error, at the first question that needs the model, and a skip for those behind it."""
    return not_asked("not asked, because the model's numbers are not finite") | {
        "applied": Question(verdict=Verdict.ERROR, message=reason)
    }


def answers(results: Sequence[ProbeResult], request: Request) -> dict[str, Question]:
    """Return the answers that probes gave to the questions that need the model."""
    out: dict[str, Question] = {}
    for result in results:
        claims = result.evidence.get("claims", {})
        out |= {name: Question.model_validate(claim) for name, claim in claims.items()}
        out |= {} if claims else {name: _unclaimed(result) for name in _CLAIMS[result.kind]}
    if request.data is None:
        out["on_target"] = _skip("give --data FILE with the text that it was trained on")
    if request.held_out is None:
        out["generalises"] = _skip("give --held-out FILE with text of the same source that it was not trained on")
    return out


def findings(found: Mapping[str, Question]) -> dict[str, Question]:
    """Return what was found beyond the six questions.

    No scale is advised for what is not on target. Which sections took is said only where the nulls show that something
    was learned: it draws none of its own, and random weights may favour a section too.
    """
    on_target, learned = (found[name].verdict is Verdict.PASS for name in ("on_target", "learned"))
    unwanted = (() if on_target else ("dose",)) + (() if on_target or learned else ("took",))
    return {name: found[name] for name in FINDINGS if name in found and name not in unwanted}


def verdict_of(questions: Mapping[str, Question], found: Mapping[str, Question]) -> Verdict:
    """Return the worst answer; of findings only what speaks against the adapter counts, since nobody asked for them."""
    against = [q.verdict for q in found.values() if q.verdict in _COUNT]
    return worst([*(q.verdict for q in questions.values()), *against])


def _skip(message: str) -> Question:
    return Question(verdict=Verdict.SKIP, message=message)


def _unclaimed(result: ProbeResult) -> Question:
    skipped = result.verdict is Verdict.SKIP  # what it needs is not there, and it says what
    return Question(verdict=Verdict.SKIP if skipped else Verdict.ERROR, message=result.message)
