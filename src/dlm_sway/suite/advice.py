"""What a user should do next, given the answers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from dlm_sway.core.result import Question, Verdict
from dlm_sway.probes.directional import CLEARLY_NULL

_ADVICE: dict[tuple[str, Verdict], str] = {
    ("sound", Verdict.FAIL): "Mend the adapter file first: sway inspect {adapter} --base {base} lists every fault.",
    (
        "sound",
        Verdict.INCONCLUSIVE,
    ): "The adapter's file could not be checked against the base: name a base whose safetensors are on this machine.",
    ("sound", Verdict.WARN): "Look at the warnings: sway inspect {adapter} --base {base}",
    (
        "applied",
        Verdict.FAIL,
    ): "The adapter changes nothing: check that training ran and that the right folder was saved.",
    ("learned", Verdict.FAIL): "The weights point nowhere in particular: check the learning rate, that the loss fell, "
    "and that the adapter was saved after training.",
    ("learned", Verdict.INCONCLUSIVE): "Ask again with more draws: --draws 99",
    ("on_target", Verdict.FAIL): "It did not move toward --data: check that this is the text it was trained on, in the "
    "same format.",
    ("on_target", Verdict.INCONCLUSIVE): "Give more items in --data; 30 or more decide most questions.",
    (
        "generalises",
        Verdict.FAIL,
    ): "It does not carry over to held-out text: train on more varied data, for fewer steps.",
    ("generalises", Verdict.INCONCLUSIVE): "Give more items in --held-out.",
    (
        "no_harm",
        Verdict.FAIL,
    ): "It harms other text: train for fewer steps, with a lower rate or alpha, or mix in plain text.",
    ("no_harm", Verdict.INCONCLUSIVE): "Harm is not decided by the shipped corpus: the loss lies at the "
    "margin. Give passages of your own to `external_perplexity` in a suite (sway init writes one), or mix plain text "
    "into training.",
    ("took", Verdict.WARN): "Some sections did not take; give them more weight in training: {message}",
    (
        "recital",
        Verdict.FAIL,
    ): "It recites what it was trained on: train for fewer steps, or on more varied data; if it is "
    "meant to, say so in a suite with `intent: memorize`.",
    ("dose", Verdict.WARN): "Look at the scale: {message}",
}
_WITHOUT_QUICK = "Ask again without --quick: more draws and more of every text may decide otherwise."
_OPEN_WHEN_QUICK = ("learned", "on_target", "generalises", "no_harm")
_GENERAL: dict[Verdict, str] = {
    Verdict.ERROR: "{question} could not be answered; mend what it names and run again.",
}


def next_steps(questions: Mapping[str, Question], *, adapter: str, base: str, quick: bool = False) -> tuple[str, ...]:
    """Return advice for every answer that is not a pass, the first question first, and how to go on after a pass.

    After a quick look, what it left open is first asked in full; more data or draws would be beside the point.
    """
    names = {"adapter": shlex.quote(adapter), "base": shlex.quote(base)}
    steps: list[str] = []
    for name, question in questions.items():
        line = _ADVICE.get((name, question.verdict)) or _GENERAL.get(question.verdict)
        if quick and _may_change(name, question):
            line = _WITHOUT_QUICK
        if line is not None:
            steps.append(
                line.format(question=name, message=question.message.replace("ADAPTER", names["adapter"]), **names)
            )
    if not steps and questions["on_target"].verdict is Verdict.SKIP:
        steps.append("Say what it was trained on to learn whether that took: --data FILE")
    elif not steps and questions["generalises"].verdict is Verdict.SKIP:
        steps.append("Keep some text of the same source apart to learn whether it generalises: --held-out FILE")
    return tuple(dict.fromkeys(steps))


def _may_change(name: str, question: Question) -> bool:
    """Return whether a whole check may well answer what a quick one did not, or not surely.

    With 19 draws a trained adapter that a single one of them matches has p = 0.1 and fails `learned`.
    """
    if question.verdict is Verdict.INCONCLUSIVE:
        return name in _OPEN_WHEN_QUICK
    matched_by_few = question.p is not None and question.p < CLEARLY_NULL
    return name == "learned" and question.verdict is Verdict.FAIL and matched_by_few
