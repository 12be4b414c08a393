"""The view model of a whole report: what every renderer shows, as text that is safe to print and numbers to draw.

A check, a suite and a walk along the chain give the same document. What differs is what stands on top: a check has
questions, a suite has the claims of its probes and a score, a walk has a panel of links.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from dlm_sway.chain.result import ChainResult
from dlm_sway.core.result import ProbeResult, Question, SuiteResult, Verdict
from dlm_sway.report import model, numbers
from dlm_sway.report.effects import Effect, claims_of, effect_of
from dlm_sway.report.evidence import Evidence, fact, number, read_evidence, words
from dlm_sway.report.gate import GateView, gate_view
from dlm_sway.report.model import Row
from dlm_sway.report.text import clean, shorten
from dlm_sway.report.work import work_line
from dlm_sway.suite.gate import Gate
from dlm_sway.suite.result import QUESTIONS, CheckResult

Result: TypeAlias = CheckResult | SuiteResult | ChainResult

_NAME_WIDTH: Final = 60
_SHOWN: Final = 3
MAX_FACTS: Final = 120
COUNTED: Final = (
    (Verdict.ERROR, "could not run"),
    (Verdict.FAIL, "failed"),
    (Verdict.INCONCLUSIVE, "undecided"),
    (Verdict.WARN, "with a warning"),
    (Verdict.PASS, "passed"),
    (Verdict.SKIP, "skipped"),
)


@dataclass(frozen=True, slots=True)
class Claim:
    """One answer, as text and as numbers.

    Attributes:
        row: as text.
        effect: as numbers, or None when there is no effect to draw.
        probe: position of the probe it comes from, or None.
    """

    row: Row
    effect: Effect | None
    probe: int | None


@dataclass(frozen=True, slots=True)
class ProbeView:
    """One probe: what it said, and what its evidence holds.

    Attributes:
        name: unique in the suite.
        kind: the registered kind.
        verdict: the answer.
        row: its headline claim as text.
        claims: one answer each.
        score: as text, or empty.
        seconds: wall time.
        evidence: what can be drawn or tabled.
    """

    name: str
    kind: str
    verdict: Verdict
    row: Row
    claims: tuple[Claim, ...]
    score: str
    seconds: float
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Score:
    """The composite of a suite: its value, share decided, word, and a value for each category."""

    value: float | None
    coverage: float
    band: str
    components: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class LinkView:
    """One link of the chain, a line of its panel.

    Attributes:
        name: which.
        what: its file or address.
        verdict: the answer.
        left: share of the adapter's effect that is left; None where it was not measured.
        low: lower end of its 95 % interval, or None.
        high: upper end, or None.
        shown: all three as text, or empty.
        cause: the fault by name, or empty.
        remedy: what to do, or empty.
        minimum: share from which on nothing is lost.
    """

    name: str
    what: str
    verdict: Verdict
    left: float | None = None
    low: float | None = None
    high: float | None = None
    shown: str = ""
    cause: str = ""
    remedy: str = ""
    minimum: float = 1.0


@dataclass(frozen=True, slots=True)
class Document:
    """A report before any layout.

    Attributes:
        kind: where it comes from.
        title: adapter or suite, short.
        subject: the adapter and its base as they were named.
        verdict: the worst answer.
        summary: the answer in a few words, without verdict and title.
        claims: what stands on top: the questions of a check, the claims of a suite, the steps of a walk.
        probes: one each, in order; of a walk its links.
        counts: how many of the answers on top have each verdict, the worst first.
        steps: what to do next, most important first.
        score: of a suite.
        provenance: what it takes to run it again, as pairs.
        work: what it took, in a line.
        seconds: wall time, where it was measured.
        links: of a walk along the chain, in order.
        gate: of a suite that a gate has judged; None where nobody asked for one.
    """

    kind: Literal["check", "suite", "chain"]
    title: str
    subject: str
    verdict: Verdict
    summary: str
    claims: tuple[Claim, ...]
    probes: tuple[ProbeView, ...]
    counts: tuple[tuple[Verdict, int], ...]
    steps: tuple[str, ...]
    score: Score | None
    provenance: tuple[tuple[str, str], ...]
    work: str
    seconds: float
    links: tuple[LinkView, ...] = ()
    gate: GateView | None = None


def document_of(result: Result, gate: Gate | None = None) -> Document:
    """Return the view model of a check, a suite or a walk along the chain, with what a gate found of it."""
    if isinstance(result, ChainResult):
        from dlm_sway.report.chain_document import chain_document  # it is made of what this module defines

        return chain_document(result)
    probes = tuple(_probe(i, probe) for i, probe in enumerate(result.probes))
    suite = isinstance(result, SuiteResult)
    claims = _of_probes(probes) if isinstance(result, SuiteResult) else _of_questions(result, probes)
    counted = Counter(claim.row.verdict for claim in claims)
    return Document(
        kind="suite" if suite else "check",
        title=_title(result),
        subject=" on ".join(clean(part) for part in (result.adapter, result.base) if part),
        verdict=result.verdict,
        summary=_counts(probes) if suite else model.headline(result).partition(": ")[2],  # type: ignore[arg-type]
        claims=claims,
        probes=probes,
        counts=tuple((verdict, counted[verdict]) for verdict, _ in COUNTED if counted[verdict]),
        steps=tuple(clean(step) for step in result.next_steps),
        score=_score(result) if isinstance(result, SuiteResult) else None,
        provenance=tuple(pairs(result.provenance))[:MAX_FACTS],
        work=work_line(result),
        seconds=number(result.timing.get("total_s")) or 0.0,
        gate=None if gate is None else gate_view(gate),
    )


def _title(result: CheckResult | SuiteResult) -> str:
    if isinstance(result, SuiteResult):
        return shorten(clean(result.name), _NAME_WIDTH) or model.last_part(result.adapter or "") or "suite"
    return model.adapter_name(result)


def _probe(place: int, result: ProbeResult) -> ProbeView:
    evidence = read_evidence(result.evidence)
    found = _ordered(claims_of(result))
    name = shorten(clean(result.name), _NAME_WIDTH)
    claims = tuple(_claim(key, answer, result, evidence, place=place) for key, answer in found.items())
    key, headline = _headline(result, found)
    if not claims:
        claims = (_claim(result.name, headline, result, evidence, place=place),)
    score = number(result.score)
    return ProbeView(
        name=name,
        kind=clean(result.kind, limit=_NAME_WIDTH),
        verdict=result.verdict,
        row=model.row_of(key, headline, title=name),
        claims=claims,
        score="" if score is None else f"{score:.2f}",
        seconds=number(result.duration_s) or 0.0,
        evidence=evidence,
    )


def _ordered(claims: Mapping[str, Question]) -> dict[str, Question]:
    """Return claims in an order that a file, whose evidence is sorted, cannot change: as `sway check` asks them."""
    place = {key: i for i, key in enumerate(QUESTIONS)}
    return {key: claims[key] for key in sorted(claims, key=lambda key: (place.get(key, len(place)), key))}


def _claim(key: str, answer: Question, result: ProbeResult | None, evidence: Evidence, *, place: int | None) -> Claim:
    row = model.row_of(key, answer, title=shorten(model.label(key), _NAME_WIDTH))
    return Claim(row, effect_of(key, answer, result, evidence.nulls), place)


def _headline(result: ProbeResult, claims: Mapping[str, Question]) -> tuple[str, Question]:
    """Return a probe's result as the answer to one question, with the key, p and null of the claim it is taken from."""
    unit = result.evidence.get("unit")
    same = ((key, claim) for key, claim in claims.items() if claim.effect is not None and claim.effect == result.raw)
    key, behind = next(same, ("", None))
    return key, Question(
        verdict=result.verdict,
        effect=result.raw,
        unit=None if unit is None else str(unit),
        interval=result.ci_95,
        p=behind.p if behind else None,
        null=behind.null if behind else None,
        message=result.message,
    )


def _of_questions(result: CheckResult, probes: Sequence[ProbeView]) -> tuple[Claim, ...]:
    owner = {claim.row.key: claim.probe for view in probes for claim in view.claims}
    claims: list[Claim] = []
    for key, answer in {**result.questions, **result.findings}.items():
        place = owner.get(key)
        probe = None if place is None else result.probes[place]
        evidence = Evidence() if place is None else probes[place].evidence
        claims.append(_claim(key, answer, probe, evidence, place=place))
    return tuple(claims)


def _of_probes(probes: Sequence[ProbeView]) -> tuple[Claim, ...]:
    """Return all claims, named after their probe, and after themselves where a probe makes several."""
    return tuple(
        Claim(_named(claim.row, view, alone=len(view.claims) == 1), claim.effect, claim.probe)
        for view in probes
        for claim in view.claims
    )


def _named(row: Row, view: ProbeView, *, alone: bool) -> Row:
    title = view.name if alone else f"{view.name}: {row.question}"
    return Row(row.key, title, row.verdict, row.effect, row.interval, row.p, row.null, row.message)


def _counts(probes: Sequence[ProbeView]) -> str:
    """Return how the probes ended, the worst first, a few of them by name."""
    if not probes:
        return "no probe ran"
    parts = []
    for verdict, said in COUNTED:
        named = [view.name for view in probes if view.verdict is verdict]
        if not named:
            continue
        shown = ", ".join(named[:_SHOWN]) + (", …" if len(named) > _SHOWN else "")
        quiet = verdict in (Verdict.PASS, Verdict.SKIP)
        parts.append(f"{len(named)} {said}" + ("" if quiet else f" ({shown})"))
    return ", ".join(parts)


def _score(result: SuiteResult) -> Score:
    found = {str(name): number(value) for name, value in result.components.items()}
    return Score(
        value=number(result.score),
        coverage=number(result.coverage) or 0.0,
        band=clean(result.band or "", limit=40),
        components=tuple((words(name), value) for name, value in found.items() if value is not None),
    )


def pairs(raw: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield what a mapping holds as words and facts, those of inner mappings under their path."""
    for key, value in raw.items():
        if isinstance(value, Mapping):
            yield from pairs(value, (*path, str(key)))
        elif value not in (None, "", [], ()):
            yield ": ".join(map(words, (*path, key))), _known(str(key), value)


def _known(key: str, value: object) -> str:
    """Return a fact of the provenance; a seed or a count as it is, other numbers to three digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    found = number(value)
    return fact(value) if found is None or "version" in key else numbers.figure(found)
