"""`section_internalization`: which sections of a document did the fine-tune take in, and which not?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Ask, Reducer, Scores
from dlm_sway.probes.base import Env, Found, NullTest, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.claims import Measured, estimate_evidence, interval_of, item_records, null_evidence
from dlm_sway.probes.controls import matched_controls
from dlm_sway.probes.inputs import Items, shown
from dlm_sway.probes.section_cells import Cells, Layout, Section, cells_of, layout
from dlm_sway.probes.section_marks import Mark, MarkRule, Nulls, marks_of, nulls_of
from dlm_sway.probes.section_whole import whole_cells, whole_layout
from dlm_sway.stats.crossed import Crossed, own_against_others
from dlm_sway.stats.paired import Estimate, gain

CONTROL_TOKENS = 96
_NAMED = 5  # sections that a message names
_LABELS = 24  # sections that the matrix shows
_GAIN: frozenset[Reducer] = frozenset({"gain"})

BOUND_NULL = "permutation of first halves (N4)"


class SectionInternalizationSpec(ProbeSpec):
    """Spec of `section_internalization`.

    Attributes:
        sections: the sections, at least 2: texts, or all of them with a prompt that then stands for the first half.
        read: `halves` scores each second half behind its first half; `whole` scores what a section is made of as it
            stands, all texts of one `cluster` together, which is free where another probe reads them too.
        controls: texts of the same form and other content; matched passages of the shipped corpus when none are given.
        min_gain: the smallest gain of a section worth counting, nat per token.
        max_sections: of more sections so many are drawn by the run's seed.
        partners: sections that exchange their first halves; more are split at random into groups of at most so many,
            and one more where one would be left over.
        max_tokens: tokens of a second half that are scored behind its own first half.
        matrix_tokens: tokens of a second half that are scored behind every first half of its group.
        text_tokens: with `read: whole`, tokens of a text that are scored, its first ones; all of them when not given.
        context: characters of a first half that are read, its last ones.
        null_tokens: tokens of a second half that each null sees.
    """

    kind: Literal["section_internalization"] = "section_internalization"
    sections: Items = Field(min_length=1)
    read: Literal["halves", "whole"] = "halves"
    controls: Items = ()
    min_gain: float = Field(default=0.05, gt=0)
    max_sections: int = Field(default=24, ge=2)
    partners: int = Field(default=8, ge=2)
    max_tokens: int = Field(default=256, ge=8)
    matrix_tokens: int = Field(default=48, ge=8)
    text_tokens: int | None = Field(default=None, ge=16)
    context: int = Field(default=240, ge=20)
    null_tokens: int = Field(default=48, ge=8)

    @model_validator(mode="after")
    def _names_differ(self) -> SectionInternalizationSpec:
        if self.read == "whole":
            return self
        labels = [s.label for s in self.sections]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"two sections are called {twice!r}; give each a label of its own")
        if len({bool(s.prompt) for s in self.sections}) > 1:
            raise ValueError("some sections have a prompt and some have none; give all or none of them one")
        return self


@register("section_internalization")
class SectionInternalization(Probe[SectionInternalizationSpec]):
    """Which sections of the data did the fine-tune take in, and which not?

    Asks: does each section's second half, behind its own first half, become more probable, more so than control text of
        the same form? And, as evidence: is that bound to its own first half? With `read: whole`: does each section as
        it stands?
    Null: rotation (N1) at scale 1, maxT over the sections, within the suite's family; permutation of first halves (N4)
        for the bond; resampling of pieces of 8 tokens for a section's interval, of sections for the mean. With
        `read: whole` none is drawn, and pieces flip signs (N5, Bonferroni): ask it beside `target_gain`, which has one.
    Statistic: gain in log-prob per token of each second half; its difference to controls as hard; the matrix M[s, t],
        gain of t's second half behind s's first half, and own minus others in it, at equal difficulty.
    Passes when: every section took. A section took when its gain and the difference to the controls are both >= 0.05
        nat/token with lower bounds > 0, and p <= alpha against the nulls. Where some took and some did not, it is a
        warning that lists them, each with the gain that would have shown; where none took, it fails. The bond decides
        nothing: what is known in any context is not bound to one, and the base gains from a fitting context too.
    Costs: one pass of all second halves behind the first halves of their group for base and fine-tune (24 sections in
        groups of 8: 24 of at most 256 and 192 of 48 tokens), and (n_draws + 2) views of 48 tokens a section. With
        `read: whole` one pass of the texts and no nulls.
    """

    category: ClassVar[Category] = "attribution"
    spec_type: ClassVar[type[ProbeSpec]] = SectionInternalizationSpec

    def plan(self, spec: SectionInternalizationSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """One round: own halves, the matrix and the controls under the fine-tune, own halves under the nulls."""
        drawn = _layout(spec, env)
        if seen or len(drawn.sections) < 2:  # noqa: PLR2004 (nothing to compare with)
            return ()
        if spec.read == "whole":
            return _whole_asks(spec, env, drawn)
        form = env.format if spec.sections[0].prompt else "raw"
        real = (FINETUNED,)
        own = tuple(s.behind(s) for s in drawn.sections)
        controls = spec.controls or matched_controls(own, rng=env.rng(spec.name, "controls"))
        asks = [
            Ask(own, real, _GAIN, format=form, max_tokens=spec.max_tokens),
            Ask(drawn.cells, real, _GAIN, format=form, max_tokens=spec.matrix_tokens),
            Ask(controls, real, _GAIN, format=form, max_tokens=CONTROL_TOKENS),
        ]
        if not env.null_refusal:
            asks.append(Ask(own, env.adapter_and_nulls(), _GAIN, format=form, max_tokens=spec.null_tokens))
        return tuple(asks)

    def measure(self, spec: SectionInternalizationSpec, env: Env, seen: Seen) -> Found:
        """Gains of all cells, the bond, and the null test of the section that stands out most."""
        if not seen:
            return Found()
        drawn = _layout(spec, env)
        if spec.read == "whole":
            whole, control = seen[0]
            return Found(data={"cells": whole_cells(drawn, whole, control), "control": control, "nulls": None})
        own, matrix, control, *rest = seen[0]
        cells = cells_of(drawn, own, matrix, control)
        bond = own_against_others(cells.excess, rng=env.rng(spec.name, "bond"))
        nulls = nulls_of(rest[0].item_sums("gain") / rest[0].tokens, alpha=env.alpha) if rest else None
        tests = (NullTest("took", float(nulls.largest[0]), nulls.largest[1:], "linear"),) if nulls else ()
        return Found(tests, {"cells": cells, "control": control, "bond": bond, "nulls": nulls})

    def judge(self, spec: SectionInternalizationSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """One claim: took."""
        drawn = _layout(spec, env)
        if not found.data:
            message = f"{len(drawn.sections)} sections have two halves; give at least 2"
            took = Question(verdict=Verdict.INCONCLUSIVE, message=message)
            evidence: dict[str, Any] = {"dropped": list(drawn.dropped)}
            return result_of(spec, {"took": took}, headline="took", score=None, evidence=evidence)
        cells: Cells = found.data["cells"]
        nulls: Nulls | None = found.data["nulls"]
        rule = MarkRule(spec.min_gain, env, spec.name, p.get("took"))
        marks = marks_of(cells, found.data["control"], nulls, rule)
        names = [s.label for s in drawn.sections]
        mean = gain(cells.own_gain, cells.own_tokens, names, rng=env.rng(spec.name, "mean"))
        took = _took(marks, mean, env, nulls, p)
        evidence = _evidence(spec, drawn, found, marks, mean)
        evidence |= item_records({"took": _measured(spec, drawn, cells, marks)}, seed=env.seed)
        if "bond" in found.data:
            evidence["bond"] = _bond(cells, found.data["bond"], env, spec)
        if found.tests:
            evidence |= null_evidence(found.tests[0], p["took"])
        return result_of(spec, {"took": took}, headline="took", score=_score(took, marks), evidence=evidence)

    def at_end(self, found: Found, *, above: bool) -> Found:
        """Each section's own p, too, at the end that later draws could bring it to."""
        nulls: Nulls | None = found.data.get("nulls")
        if nulls is None:
            return found
        return replace(found, data={**found.data, "nulls": nulls.at_end(found.tests[0].draws.size, above=above)})


def _layout(spec: SectionInternalizationSpec, env: Env) -> Layout:
    if spec.read == "whole":
        return whole_layout(spec.sections, most=spec.max_sections, rng=env.rng(spec.name, "groups"))
    return layout(
        spec.sections,
        most=spec.max_sections,
        group=spec.partners,
        context=spec.context,
        rng=env.rng(spec.name, "groups"),
    )


def _whole_asks(spec: SectionInternalizationSpec, env: Env, drawn: Layout) -> tuple[Ask, ...]:
    items = tuple(item for section in drawn.sections for item in section.texts)
    controls = spec.controls or matched_controls(items, rng=env.rng(spec.name, "controls"))
    return tuple(
        Ask(texts, (FINETUNED,), _GAIN, format=env.format, max_tokens=spec.text_tokens) for texts in (items, controls)
    )


def _took(marks: tuple[Mark, ...], mean: Estimate, env: Env, nulls: Nulls | None, p: Mapping[str, float]) -> Question:
    by = {status: [m for m in marks if m.status == status] for status in ("took", "not", "open")}
    took, missed, unsure = by["took"], by["not"], by["open"]
    if len(took) == len(marks):
        verdict = Verdict.PASS
    elif took and missed:
        verdict = Verdict.WARN
    else:
        verdict = Verdict.FAIL if len(missed) == len(marks) else Verdict.INCONCLUSIVE
    parts = [f"{len(took)} of {len(marks)} sections took"]
    parts += [f"not: {_named(missed)}"] * bool(missed) + [f"undecided: {_named(unsure)}"] * bool(unsure)
    return Question(
        verdict=verdict,
        effect=mean.estimate,
        unit="nat/token",
        interval=interval_of(mean),
        p=p["took"] if nulls else None,
        null=f"{env.null_name}, maxT over {len(marks)} sections" if nulls else "sign flip of pieces (N5), Bonferroni",
        message=f"gain {mean.estimate:+.3f} nat/token; " + "; ".join(parts),
    )


def _named(marks: list[Mark]) -> str:
    names = [f"{shown(m.label, limit=40)} ({m.why})" for m in marks[:_NAMED]]
    return ", ".join(names) + (f" and {len(marks) - _NAMED} more" if len(marks) > _NAMED else "")


def _bond(cells: Cells, bond: Crossed, env: Env, spec: SectionInternalizationSpec) -> dict[str, Any]:
    """Return how far gains are bound to their own first halves, at equal difficulty."""
    effect = gain(bond.difference, cells.tokens_by_block, rng=env.rng(spec.name, "bond", "interval"))
    return {
        **estimate_evidence(effect),
        "unit": "nat/token",
        "p": bond.p,
        "null": f"{BOUND_NULL}, {bond.n_permutations} {'listed' if bond.exact else 'draws'}",
        "shown": bond.p <= env.alpha and effect.estimate > 0,
        "unadjusted": cells.own_minus_others(),
    }


def _score(took: Question, marks: tuple[Mark, ...]) -> float | None:
    """Map the claim to [0, 1]: the share of sections that took."""
    if took.verdict is Verdict.INCONCLUSIVE:
        return None
    return sum(m.status == "took" for m in marks) / len(marks)


def _evidence(
    spec: SectionInternalizationSpec, drawn: Layout, found: Found, marks: tuple[Mark, ...], mean: Estimate
) -> dict[str, Any]:
    cells: Cells = found.data["cells"]
    control: Scores = found.data["control"]
    order = np.argsort([m.gain.estimate for m in marks], kind="stable")
    rows = [_row(m, s) for m, s in zip(marks, drawn.sections, strict=True)]
    return {
        "gain": estimate_evidence(mean),
        "minimum": spec.min_gain,
        "took": [m.label for m in marks if m.status == "took"],
        "did_not": [_row(m) for m in marks if m.status == "not"],
        "undecided": [_row(m) for m in marks if m.status == "open"],
        "smallest_decidable_effect": max((m.smallest for m in marks if m.smallest is not None), default=None),
        **(_matrix(drawn, cells) if drawn.groups else {}),
        "counts": {
            "n_items": len(marks),
            "n_clusters": len(marks),
            "n_tokens": int(cells.own_tokens.sum()),
            "n_cells": sum(len(g) ** 2 for g in drawn.groups),
            "n_controls": len(control.items),
        },
        "items": {
            "largest": [rows[i] for i in order[::-1][:5]],
            "smallest": [rows[i] for i in order[:5]],
        },
        "dropped": list(drawn.dropped),
    }


def _matrix(drawn: Layout, cells: Cells) -> dict[str, Any]:
    return {
        "matrix": {
            "labels": [s.label for s in drawn.ordered[:_LABELS]],
            "values": cells.table(_LABELS),
            "unit": "nat/token",
            "rows": "whose first half is given",
            "columns": "whose second half is scored",
        },
        "matrix_note": f"{len(drawn.groups)} groups by the run's seed; pairs of other groups were not read (null)"
        if len(drawn.groups) > 1
        else "all pairs were read",
    }


def _measured(spec: SectionInternalizationSpec, drawn: Layout, cells: Cells, marks: tuple[Mark, ...]) -> Measured:
    own = [s.behind(s) for s in drawn.sections]
    return Measured(
        items=own,
        total=cells.own_gain,
        weight=cells.own_tokens,
        unit="nat/token",
        better="higher",
        minimum=spec.min_gain,
        row=lambda i: {k: v for k, v in _row(marks[i], drawn.sections[i]).items() if k not in ("value", "tokens")},
    )


def _row(mark: Mark, section: Section | None = None) -> dict[str, Any]:
    own = {
        "label": shown(mark.label),
        "value": mark.gain.estimate,
        "status": mark.status,
        "why": mark.why,
        "low": mark.gain.low,
        "high": mark.gain.high,
        "beyond_controls": mark.beyond.estimate,
        "p": mark.p,
        "smallest_decidable_effect": mark.smallest,
        "tokens": mark.gain.n_tokens,
    }
    return own if section is None else {**own, "text": shown(section.second)}
