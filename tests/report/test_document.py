from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.report.samples import stored

from dlm_sway.core.result import ProbeResult, Question, SuiteResult, Verdict
from dlm_sway.report.charts import effect_chart
from dlm_sway.report.document import document_of
from dlm_sway.report.effects import Bar, Effect, effect_of
from dlm_sway.report.evidence import Null, read_evidence
from dlm_sway.report.json import to_json
from dlm_sway.report.read import read_result


def _probe(**evidence: Any) -> ProbeResult:
    return ProbeResult(name="p", kind="k", verdict=Verdict.PASS, evidence=evidence)


def test_the_same_document_comes_from_a_result_and_from_its_file() -> None:
    for kind in ("check", "suite"):
        result = stored(kind)
        assert document_of(read_result(to_json(result))) == document_of(result)


def test_each_claim_of_a_check_knows_its_probe_and_its_nulls() -> None:
    claims = {claim.row.key: claim for claim in document_of(stored("check")).claims}
    assert claims["sound"].probe is None
    found = claims["generalises"]
    assert found.probe == 1
    assert found.effect is not None
    assert found.effect.null is not None
    assert found.effect.null.path == "generalises.null"


def test_a_copy_of_a_null_test_at_the_top_is_not_shown_twice() -> None:
    nulls = read_evidence(stored("check").probes[1].evidence).nulls
    assert sorted(null.path for null in nulls) == ["generalises.null", "on_target.null"]


def test_the_draws_behind_a_ratio_are_shown_as_ratios() -> None:
    null = Null("", 6.0, (1.0, 2.0, 3.0), 2.0)
    effect = effect_of("learned", Question(verdict="pass", effect=3.0, unit="x", p=0.25), None, (null,))
    assert effect is not None
    assert effect.null == Null("", 3.0, (0.5, 1.0, 1.5), 1.0)


def test_draws_of_another_unit_are_not_drawn_on_the_axis_of_the_effect() -> None:
    null = Null("", 100.0, (1.0, 2.0, 3.0), 2.0)
    effect = effect_of("x", Question(verdict="pass", effect=0.4, p=0.25), None, (null,))
    assert effect is not None
    assert effect.null is None


def _gain_at(lam: float, *, unit: str = "nat/token") -> Effect:
    raw = {"statistic": 0.2, "null_draws": [-0.1, 0.0, 0.1], "null_unit": unit, "lam_star": lam}
    question = Question(verdict="pass", effect=1.0, unit="nat/token", p=0.25)
    effect = effect_of("on_target", question, None, read_evidence({"on_target": {"null": raw}}).nulls)
    assert effect is not None
    return effect


def test_draws_that_say_their_unit_are_drawn_however_far_the_effect_is() -> None:
    assert _gain_at(0.25).null == Null("on_target.null", 0.2, (-0.1, 0.0, 0.1), 0.0, "nat/token", 0.25)
    assert _gain_at(0.25, unit="nat").null is None


def test_draws_at_another_scale_stand_beside_the_adapter_at_that_scale() -> None:
    drawn = json.dumps(effect_chart(_gain_at(0.25)).to_dict())
    assert "the adapter on what the nulls saw, at 0.25 of its scale: 0.200 nat/token" in drawn
    same = Effect(1.0, None, None, "nat/token", None, Null("", 1.0, (0.1, 0.2), 0.15, "nat/token"))
    assert "on what the nulls saw" not in json.dumps(effect_chart(same).to_dict())


@pytest.mark.parametrize(
    ("null", "unit", "bar"),
    [
        ("margin 0.05 nat/token", "nat/token lost", Bar("margin", 0.05)),
        ("margin 5%, Newcombe on pairs", "of calls", Bar("margin", 0.05, both=True)),
        ("resampling of cases, minimum 0.05 cosine", "cosine", Bar("minimum", 0.05)),
        ("at most 0.25 of the way", None, Bar("margin", 0.25)),
        ("numeric floor (N0), must exceed 10 x 2.0e-03", None, Bar("minimum", 0.02)),
        ("rotation (N1), 39 draws", None, None),
        ("margin ...", None, None),
    ],
)
def test_what_was_declared_is_read_from_what_the_claim_says(null: str, unit: str | None, bar: Bar | None) -> None:
    effect = effect_of("x", Question(verdict="pass", effect=1.0, unit=unit, null=null), None)
    assert effect is not None
    assert effect.bar == bar


def test_what_was_declared_is_read_from_the_evidence_first() -> None:
    question = Question(verdict="pass", effect=1.0, unit="nat", null="minimum 0.3")
    by_claim = effect_of("x", question, _probe(minimum={"x": 0.1}, unit="other"))
    headline = effect_of("x", question, _probe(minimum=0.2, unit="nat"))
    other = effect_of("x", question, _probe(minimum=0.2, unit="other"))
    assert [e.bar for e in (by_claim, headline, other) if e] == [Bar("minimum", x) for x in (0.1, 0.2, 0.3)]


def test_a_one_sided_interval_in_a_file_is_open_on_the_other_side() -> None:
    claim = {"verdict": "pass", "effect": 0.1, "interval": [None, 0.2]}
    (found,) = document_of(SuiteResult(probes=(_probe(claims={"x": claim}),))).claims
    assert found.row.interval == "at most 0.200"
    assert found.effect is not None
    assert (found.effect.low, found.effect.high) == (None, 0.2)


def test_standard_evidence_is_taken_whole() -> None:
    found = read_evidence(stored("suite").probes[7].evidence)
    assert [curve.name for curve in found.curves] == ["held-out gain", "harm elsewhere", "divergence"]
    assert all(curve.low and curve.high for curve in found.curves)
    matrix = read_evidence(stored("suite").probes[4].evidence).matrix
    assert matrix is not None
    assert len(matrix.labels) == len(matrix.values) == len(matrix.values[0]) == 6
    assert len(read_evidence(stored("suite").probes[8].evidence).layers) == 84


def test_a_point_without_a_number_leaves_the_curve_and_others_stay_in_order() -> None:
    (curve,) = read_evidence({"curves": [{"name": "c", "x": [2, 1, None, 3], "y": [20, 10, 5, math.nan]}]}).curves
    assert (curve.x, curve.y) == ((1.0, 2.0), (10.0, 20.0))


def test_long_tables_are_cut_and_say_so() -> None:
    (table,) = read_evidence({"per_item": [{"label": i, "value": 1.0} for i in range(500)]}).tables
    assert (len(table.rows), table.left_out) == (200, 300)


_WORDS = st.sampled_from(
    [
        *("claims", "verdict", "effect", "interval", "unit", "minimum", "margin", "statistic", "null_draws", "curves"),
        *("name", "x", "y", "low", "high", "matrix", "labels", "values", "layers", "module", "layer", "value", "items"),
        *("largest", "smallest", "label", "text", "per_item", "dropped"),
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("pass"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=5),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_WORDS, _JSON, max_size=6))
def test_evidence_of_any_shape_gives_a_document(evidence: dict[str, Any]) -> None:
    document = document_of(SuiteResult(name="s", probes=(_probe(**evidence),)))
    assert document.probes[0].name == "p"
    assert document.claims
