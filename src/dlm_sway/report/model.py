"""The view model: what a report says, before any layout. Pure functions of a `CheckResult`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dlm_sway.core.result import Question, Verdict
from dlm_sway.report import numbers
from dlm_sway.report.text import clean, shorten
from dlm_sway.suite.result import CheckResult

_LABELS: Final = {"on_target": "on target", "no_harm": "harmless", "took": "sections", "dose": "scale"}
_SIGNED: Final = frozenset({"on_target", "generalises", "no_harm", "took"})
_FAILED: Final = {
    "sound": "not sound",
    "applied": "not applied",
    "learned": "not learned",
    "on_target": "not on target",
    "generalises": "does not generalise",
    "no_harm": "harms other text",
    "took": "no section took",
    "recital": "recites its training data",
}
_NAME_WIDTH: Final = 40


@dataclass(frozen=True, slots=True)
class Row:
    """One question and its answer as text, safe to print; a part that the answer lacks is empty.

    Attributes:
        key: the question's key in the JSON.
        question: the question in a word or two.
        verdict: the answer.
        effect: the size with its unit.
        interval: 95 % interval over inputs, or a one-sided bound.
        p: the p-value alone.
        null: what the number was compared with.
        message: one sentence.
    """

    key: str
    question: str
    verdict: Verdict
    effect: str = ""
    interval: str = ""
    p: str = ""
    null: str = ""
    message: str = ""


def rows(result: CheckResult) -> tuple[Row, ...]:
    """Return one row a question, in the order of the result, then one a finding."""
    return tuple(row_of(key, question) for key, question in {**result.questions, **result.findings}.items())


def headline(result: CheckResult, *, name: str = "") -> str:
    """Return the answer in one line without its verdict, such as `my-adapter: not learned, harms other text`.

    Args:
        result: what was found.
        name: what to call the adapter; by default the last part of its path.
    """
    return f"{clean(name) or adapter_name(result)}: {_summary(result)}"


def adapter_name(result: CheckResult) -> str:
    """Return the last part of the adapter's path, short enough for a line."""
    return last_part(result.adapter)


def last_part(path: str) -> str:
    """Return the last part of a path, safe to print, short enough for a line."""
    whole = clean(path).rstrip("/\\")
    return shorten(whole.replace("\\", "/").rsplit("/", 1)[-1] or whole, _NAME_WIDTH) or "adapter"


def label(key: str) -> str:
    """Return a question's key as words."""
    return _LABELS.get(key, clean(key).replace("_", " "))


def next_steps(result: CheckResult) -> tuple[str, ...]:
    """Return what a user should do now, safe to print, most important first."""
    return tuple(clean(step) for step in result.next_steps)


def row_of(key: str, question: Question, *, title: str | None = None) -> Row:
    """Return one answer as text.

    Args:
        key: the question or claim.
        question: its answer.
        title: what to call it; by default the key as words.
    """
    signed = key in _SIGNED
    ends = question.interval or ()
    estimate = () if question.effect is None else (question.effect,)
    unit = None if question.unit is None else clean(question.unit)
    return Row(
        key=key,
        question=label(key) if title is None else title,
        verdict=question.verdict,
        effect=numbers.effect(question.effect, unit, like=ends, signed=signed),
        interval=numbers.interval(question.interval, unit=unit, like=estimate, signed=signed),
        p=numbers.p_value(question.p),
        null=clean(question.null or ""),
        message=clean(question.message),
    )


def _summary(result: CheckResult) -> str:
    against = {k: q for k, q in result.findings.items() if q.verdict in (Verdict.FAIL, Verdict.WARN)}
    asked = result.questions | against
    named = {v: [label(k) for k, q in asked.items() if q.verdict is v] for v in Verdict}
    skipped = f"; not asked: {', '.join(named[Verdict.SKIP])}" if named[Verdict.SKIP] else ""
    match result.verdict:
        case Verdict.PASS:
            return ", ".join(named[Verdict.PASS]) + skipped
        case Verdict.WARN:
            return f"passes, with a warning on {', '.join(named[Verdict.WARN]) or 'a probe'}{skipped}"
        case Verdict.FAIL:
            failed = [_FAILED.get(k, f"{label(k)} failed") for k, q in asked.items() if q.verdict == "fail"]
            return ", ".join(failed) or "a probe failed"
        case Verdict.INCONCLUSIVE:
            return f"undecided: {', '.join(named[Verdict.INCONCLUSIVE]) or 'a probe'}{skipped}"
        case Verdict.ERROR:
            return f"could not answer: {', '.join(named[Verdict.ERROR]) or 'a probe'}"
        case Verdict.SKIP:
            return "nothing could be asked"
