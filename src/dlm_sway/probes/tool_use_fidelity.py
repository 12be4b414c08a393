"""`tool_use_fidelity`: does the fine-tune still call tools as their schemas say, and only those it was offered?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import BASE, FINETUNED
from dlm_sway.engine.ask import Write, Written
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.beyond import worst_and_best
from dlm_sway.probes.inputs import shown
from dlm_sway.probes.tool_calls import Call
from dlm_sway.probes.tool_cases import Outcome, ToolCase, ToolList, clusters_of, key_of, offered_names, outcome
from dlm_sway.probes.tool_rates import ONE_SIDED, Pairs, Share, among
from dlm_sway.probes.tool_schema import Schemas
from dlm_sway.stats.proportions import Proportion, newcombe_paired

_MOST = 4096  # cases beyond which "how many would decide" is not worth saying


class ToolUseFidelitySpec(ProbeSpec):
    """Spec of `tool_use_fidelity`.

    Attributes:
        cases: requests; each may bring tools of its own and the call that is right. Those of one `cluster`, such as
            wordings of one request, count as one.
        tools: offered where a case brings none, as `{type: function, function: {name, description, parameters}}`.
        allowed: names that may be called though they are not offered.
        max_new_tokens: length of a reply.
        margin: the largest loss of validity that counts as none, as a share of the cases.
        max_stray: the largest share of calling replies that may call what was not offered.
    """

    kind: Literal["tool_use_fidelity"] = "tool_use_fidelity"
    cases: tuple[ToolCase, ...] = Field(min_length=1)
    tools: ToolList = ()
    allowed: tuple[str, ...] = ()
    max_new_tokens: int = Field(default=128, ge=1)
    margin: float = Field(default=0.05, gt=0, lt=1)
    max_stray: float = Field(default=0.10, gt=0, lt=1)

    @model_validator(mode="after")
    def _offered(self) -> Self:
        for case in self.cases:
            names = offered_names(self.tools_of(case), self.allowed)
            if not self.tools_of(case):
                raise ValueError(f"no tools are offered with {case.label[:60]!r}; give `tools`")
            if case.gold and case.gold.name not in names:
                raise ValueError(f"the gold call {case.gold.name!r} of {case.label[:60]!r} is not offered")
        return self

    def tools_of(self, case: ToolCase) -> tuple[dict[str, Any], ...]:
        """Return the tools offered with a case."""
        return case.tools or self.tools


@register("tool_use_fidelity")
class ToolUseFidelity(Probe[ToolUseFidelitySpec]):
    """Does the fine-tune call tools as their schemas say, only those it was offered, and with the right arguments?

    Asks: by greedy replies through the model's own chat template with the tools in it: are calls as valid as the
        base's, are names invented, and where the right call is known, does the fine-tune make it more often?
    Null: none is drawn; the base's replies to the same requests are the comparison.
    Statistic: `valid`: share of requests answered by calls that parse and fit their schema, fine-tune minus base
        (Newcombe on pairs). `in_set`: of the replies with a call whose name can be read, the share that name a tool
        which was not offered (Clopper-Pearson). `right`: share of requests answered by the gold call alone, fine-tune
        minus base. Requests of one cluster count as one, shared out among what became of them.
    Passes when: the 95 % bound of the loss of valid calls is inside 5 points, that of invented names is at most 10 %,
        and more calls are right than before; a base that is right within the margin of all leaves nothing to gain, and
        then no loss passes. Where neither ever calls it is inconclusive, and so is `valid` where the base's calls are
        valid in 5 % of the requests or fewer and the fine-tune's surely in no more: that is nothing to lose.
    Costs: two greedy replies of at most 128 tokens a request.
    """

    category: ClassVar[Category] = "attribution"
    spec_type: ClassVar[type[ProbeSpec]] = ToolUseFidelitySpec

    def plan(self, spec: ToolUseFidelitySpec, env: Env, seen: Seen) -> tuple[Write, ...]:
        """One round: a request for text for every set of tools."""
        if seen or _refusal(env):
            return ()
        for group in _groups(spec):
            schemas = Schemas(group.tools)
            for case in group.cases:
                _require_valid(case, schemas)
        return tuple(
            Write(tuple(c.messages for c in g.cases), (BASE, FINETUNED), spec.max_new_tokens, tools=g.tools)
            for g in _groups(spec)
        )

    def measure(self, spec: ToolUseFidelitySpec, env: Env, seen: Seen) -> Found:
        """What became of each reply."""
        del env
        rows: list[_Row] = []
        for group, written in zip(_groups(spec), seen[0] if seen else (), strict=bool(seen)):
            rows += _rows(group, written, spec)
        owners = clusters_of([row.case for row in rows])
        return Found(data={"rows": [replace(row, cluster=own) for row, own in zip(rows, owners, strict=True)]})

    def judge(self, spec: ToolUseFidelitySpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """Up to three claims: valid, in_set, right."""
        del p  # no null is drawn
        if refusal := _refusal(env):
            claim = Question(verdict=Verdict.SKIP, message=f"tools cannot be shown to this model: {refusal}")
            return result_of(spec, {"valid": claim}, headline="valid", score=None, evidence={})
        rows: list[_Row] = found.data["rows"]
        claims = _claims(rows, spec)
        decided = [c.verdict is Verdict.PASS for c in claims.values() if c.verdict is not Verdict.INCONCLUSIVE]
        score = sum(decided) / len(decided) if decided else None
        return result_of(spec, claims, headline=_headline(claims), score=score, evidence=_evidence(rows, spec))


def _refusal(env: Env) -> str | None:
    return env.tools_refusal if env.chat else env.tools_refusal or "the tokenizer has no chat template"


@dataclass(frozen=True, slots=True)
class _Group:
    """Requests with the same tools; each is asked once."""

    tools: tuple[dict[str, Any], ...]
    cases: tuple[ToolCase, ...]


def _groups(spec: ToolUseFidelitySpec) -> tuple[_Group, ...]:
    groups: dict[str, tuple[tuple[dict[str, Any], ...], dict[str, ToolCase]]] = {}
    for case in spec.cases:
        tools = spec.tools_of(case)
        groups.setdefault(key_of(tools), (tools, {}))[1].setdefault(key_of(case.messages), case)
    return tuple(_Group(tools, tuple(cases.values())) for tools, cases in groups.values())


def _require_valid(case: ToolCase, schemas: Schemas) -> None:
    fault = case.gold and schemas.fault(Call(case.gold.name, case.gold.arguments))
    if fault and fault != "not offered":  # the spec allows names that are not offered; they have no schema
        raise BadInputError(f"the gold call does not fit its own schema: {fault}", where=f"case {case.label[:60]!r}")


@dataclass(frozen=True, slots=True)
class _Row:
    """One request and what became of the two replies."""

    case: ToolCase
    texts: tuple[str, str]
    base: Outcome
    finetuned: Outcome
    n_tokens: int
    stopped: tuple[bool, bool]
    cluster: str = ""


def _rows(group: _Group, written: Written, spec: ToolUseFidelitySpec) -> list[_Row]:
    schemas, names = Schemas(group.tools), offered_names(group.tools, spec.allowed)
    return [
        _Row(
            case=case,
            texts=(base, finetuned),
            base=outcome(base, case, schemas, names),
            finetuned=outcome(finetuned, case, schemas, names),
            n_tokens=int(written.n_tokens[:, i].sum()),
            stopped=(bool(written.stopped[0, i]), bool(written.stopped[1, i])),
        )
        for i, (case, base, finetuned) in enumerate(zip(group.cases, *written.texts, strict=True))
    ]


def _claims(rows: Sequence[_Row], spec: ToolUseFidelitySpec) -> dict[str, Question]:
    if not any(row.base.called or row.finetuned.called for row in rows):
        message = f"neither model calls a tool in {len(rows)} requests; give requests that need one"
        return {"valid": Question(verdict=Verdict.INCONCLUSIVE, message=message)}
    claims = {"valid": _valid(rows, spec), "in_set": _in_set(rows, spec)}
    golden = [row for row in rows if row.case.gold]
    return {**claims, "right": _right(golden, spec)} if golden else claims


def _headline(claims: Mapping[str, Question]) -> str:
    """The worst claim is the one to read first; among equals the last asks most."""
    order = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
    return min(reversed([*claims]), key=lambda name: order.index(claims[name].verdict))


def _valid(rows: Sequence[_Row], spec: ToolUseFidelitySpec) -> Question:
    pairs = Pairs([(row.base.valid, row.finetuned.valid) for row in rows], [row.cluster for row in rows])
    verdict, message = _no_loss(pairs, spec.margin, "valid calls")
    return _question(pairs.difference(), verdict, message, null=f"margin {spec.margin:.0%}, Newcombe on pairs")


def _shares(pairs: Pairs, what: str) -> str:
    return f"{what} {pairs.finetuned:.0%}, base {pairs.base:.0%} of {among(pairs.n_items, pairs.n, 'requests')}"


def _no_loss(pairs: Pairs, margin: float, what: str) -> tuple[Verdict, str]:
    found, head = pairs.difference(), _shares(pairs, what)
    if pairs.base <= margin and found.low <= 0:
        # So few cannot be lost by more than the margin, whatever became of the model.
        return Verdict.INCONCLUSIVE, f"{head}: the base has too few to lose; can it call tools in this format?"
    if found.low > -margin:
        return Verdict.PASS, f"{head}: surely no loss of {margin:.0%} or more"
    if found.high < -margin:
        return Verdict.FAIL, f"{head}: surely a loss of more than {margin:.0%}"

    def decides(times: int) -> bool:
        more = pairs.difference(times)
        return not more.low <= -margin <= more.high

    need = _would_decide(pairs, decides)
    return Verdict.INCONCLUSIVE, f"{head}: these do not decide whether {margin:.0%} are lost; {need}"


def _in_set(rows: Sequence[_Row], spec: ToolUseFidelitySpec) -> Question:
    calling = [row for row in rows if row.finetuned.named]
    share = Share([bool(row.finetuned.stray) for row in calling], [row.cluster for row in calling])
    found, limit, null = share.rate(), spec.max_stray, f"at most {spec.max_stray:.0%}, Clopper-Pearson"
    head = f"{share.n_so} of {among(share.n_items, share.n, 'calling replies')} name a tool that was not offered"
    if not calling:
        tried = any(row.finetuned.called for row in rows)
        what = "no call of the fine-tune can be read" if tried else "the fine-tune never calls a tool"
        return _question(found, Verdict.INCONCLUSIVE, what, null=null)
    if found.high <= limit:
        return _question(found, Verdict.PASS, f"{head}: surely at most {limit:.0%}", null=null)
    if found.low > limit:
        names = ", ".join(sorted({shown(name, limit=40) for row in calling for name in row.finetuned.stray})[:5])
        return _question(found, Verdict.FAIL, f"{head} ({names}): surely more than {limit:.0%}", null=null)

    def decides(times: int) -> bool:
        more = share.rate(times)
        return more.high <= limit or more.low > limit

    message = f"{head}: these do not decide whether it is at most {limit:.0%}; {_would_decide(share, decides)}"
    return _question(found, Verdict.INCONCLUSIVE, message, null=null)


def _right(rows: Sequence[_Row], spec: ToolUseFidelitySpec) -> Question:
    pairs = Pairs([(row.base.right, row.finetuned.right) for row in rows], [row.cluster for row in rows])
    found, head = pairs.difference(), _shares(pairs, "right calls")
    null = "the base's right calls, Newcombe on pairs"
    if pairs.base > 1 - spec.margin and found.high > -spec.margin:
        verdict, message = _no_loss(pairs, spec.margin, "right calls")
        return _question(found, verdict, f"{message}; the base left nothing to gain", null=null)
    if found.low > 0:
        return _question(found, Verdict.PASS, f"{head}: surely more than before", null=null)
    if found.high < spec.margin:
        return _question(found, Verdict.FAIL, f"{head}: surely no gain of {spec.margin:.0%}", null=null)

    def decides(times: int) -> bool:
        more = pairs.difference(times)
        return more.low > 0 or more.high < spec.margin

    message = f"{head}: these do not show a gain; {_would_decide(pairs, decides)}"
    return _question(found, Verdict.INCONCLUSIVE, message, null=null)


def _question(found: Proportion, verdict: Verdict, message: str, *, null: str) -> Question:
    interval = None if found.estimate is None else (found.low, found.high)
    effect = found.estimate
    return Question(verdict=verdict, effect=effect, unit="share", interval=interval, null=null, message=message)


def _would_decide(of: Pairs | Share, decides: Callable[[int], bool]) -> str:
    """Return how many requests of the same kind would decide, in clusters where they form some."""
    times = next((k for k in range(2, max(3, _MOST // of.n)) if decides(k)), None)
    what = "clusters " if of.n < of.n_items else ""
    return f"about {times * of.n} {what}would" if times else "no sensible number would"


def _smallest_loss(n: int, margin: float) -> float | None:
    """Return the smallest share of lost calls that this many requests show to be over the margin, if nothing is won."""
    lost = (k for k in range(1, n + 1) if newcombe_paired(n - k, k, 0, 0, confidence=ONE_SIDED).low > margin)
    return next((k / n for k in lost), None)


def _evidence(rows: Sequence[_Row], spec: ToolUseFidelitySpec) -> dict[str, Any]:
    n, n_clusters = len(rows), len({row.cluster for row in rows})
    return {
        "n_items": n,
        "n_clusters": n_clusters,
        "n_tokens": sum(row.n_tokens for row in rows),
        "confidence": "two-sided 90 %: each bound is one-sided 95 %",
        "base": _rates([row.base for row in rows]),
        "finetuned": _rates([row.finetuned for row in rows]),
        "cut_at_max_new_tokens": [sum(not row.stopped[side] for row in rows) for side in (0, 1)],
        "smallest_decidable_effect": _smallest_loss(n_clusters, spec.margin),
        "items": worst_and_best([_value(row) for row in rows], lambda i: _shown(rows[i])),
        "dropped": [{"reason": "asked twice", "n": len(spec.cases) - n}] if len(spec.cases) > n else [],
    }


def _rates(outcomes: Sequence[Outcome]) -> dict[str, float | int | None]:
    golden = [o.agreement for o in outcomes if o.agreement is not None]
    return {
        "calls": sum(o.called for o in outcomes),
        "valid": sum(o.valid for o in outcomes),
        "stray": sum(bool(o.stray) for o in outcomes),
        "right": sum(o.right for o in outcomes) if golden else None,
        "argument_agreement": sum(golden) / len(golden) if golden else None,
    }


def _value(row: _Row) -> float:
    """Return how much better the fine-tune's reply is: valid counts as much as the arguments do."""
    return sum(s * (o.valid + (o.agreement or 0.0)) for s, o in ((1, row.finetuned), (-1, row.base)))


def _shown(row: _Row) -> dict[str, Any]:
    return {
        "label": shown(row.case.label),
        "base": shown(row.texts[0]),
        "finetuned": shown(row.texts[1]),
        "base_fault": shown(row.base.fault or ""),
        "finetuned_fault": shown(row.finetuned.fault or ""),
        "agreement": row.finetuned.agreement,
    }
