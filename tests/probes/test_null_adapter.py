from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.core.views import View
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.probes.drive import Driven

Language = Callable[..., tuple[str, ...]]
Drive = Callable[..., Driven]
Run = Callable[..., ProbeResult]
OPTIONS = {"strength": 1.0}


def _null(**spec: Any) -> dict[str, Any]:
    return {"kind": "null_adapter", "runs": 6, **spec}


def _kl(texts: tuple[str, ...], **spec: Any) -> dict[str, Any]:
    return {"kind": "delta_kl", "prompts": texts, **spec}


@pytest.mark.healthy_pair
def test_the_evidence_has_the_shape_of_the_contract(ran: Run) -> None:
    result = ran(OPTIONS, **_null(rank_multipliers=[0.5, 1.0, 2.0], calibrate_kinds=["delta_kl"]))
    assert result.verdict is Verdict.PASS
    by_rank = result.evidence["null_stats_by_rank"]
    assert set(by_rank) == {"rank_0.50", "rank_1.00", "rank_2.00"}
    for kinds in by_rank.values():
        stats = kinds["delta_kl"]
        assert set(stats) == {"mean", "std", "median", "min", "max", "n"}
        assert stats["n"] == 6.0
        assert stats["std"] > 0
        assert stats["min"] < stats["median"] < stats["max"]
    assert result.evidence["null_stats"] == by_rank["rank_1.00"]
    assert by_rank["rank_0.50"]["delta_kl"]["mean"] < by_rank["rank_2.00"]["delta_kl"]["mean"]


def test_a_rank_other_than_one_leaves_the_plain_statistics_empty(ran: Run) -> None:
    result = ran(OPTIONS, **_null(rank_multipliers=[0.5], calibrate_kinds=["delta_kl"]))
    assert result.evidence["null_stats"] == {}
    assert set(result.evidence["null_stats_by_rank"]) == {"rank_0.50"}


def test_the_kinds_later_in_the_suite_are_calibrated_on_their_own_inputs(driven: Drive, language: Language) -> None:
    first, kl, gain, _ = driven(
        OPTIONS,
        _null(runs=19),
        _kl(language(12)),
        {"kind": "target_gain", "items": language(12)},
        {"kind": "external_perplexity"},
    ).results
    stats = first.evidence["null_stats"]
    assert set(stats) == {"delta_kl", "target_gain"}
    assert kl.evidence["lam_star"] == gain.evidence["lam_star"] < 1  # so their own draws stand at another scale
    assert stats["delta_kl"]["mean"] > np.mean(kl.evidence["null_draws"])
    assert stats["target_gain"]["std"] > np.std(gain.evidence["null_draws"], ddof=1)
    assert first.message == "calibrated delta_kl, target_gain with 19 draws a rank"


def test_a_weak_adapter_is_calibrated_with_the_very_draws_of_the_probe(driven: Drive, language: Language) -> None:
    kinds = (
        _kl(language(12), position="last"),
        _kl(language(12), divergence="tv"),
        {"kind": "delta_kl"},
        {"kind": "target_gain", "items": language(12)},
    )
    for spec in kinds:
        first, probe = driven({"strength": 0.1}, _null(runs=19), spec).results
        assert probe.evidence["lam_star"] == 1.0
        stats = first.evidence["null_stats"][probe.kind]
        assert stats["mean"] == pytest.approx(np.mean(probe.evidence["null_draws"]))
        assert stats["std"] == pytest.approx(np.std(probe.evidence["null_draws"], ddof=1))


def test_the_first_of_two_probes_of_a_kind_stands_for_it(driven: Drive, language: Language) -> None:
    specs = [_kl(language(4), name="first"), _kl(language(4, first=70), name="second")]
    both = driven(OPTIONS, _null(), *specs).results[0].evidence["null_stats"]
    alone = driven(OPTIONS, _null(), specs[0]).results[0].evidence["null_stats"]
    assert both == alone


def test_probes_before_it_are_not_calibrated(driven: Drive, language: Language) -> None:
    result = driven(OPTIONS, _kl(language(4)), _null()).results[1]
    assert result.verdict is Verdict.SKIP
    assert result.message == "nothing to calibrate: no later probe has a null; set calibrate_kinds"


def test_a_kind_without_inputs_is_listed_as_not_calibrated(ran: Run) -> None:
    result = ran(OPTIONS, **_null(calibrate_kinds=["delta_kl", "target_gain"]))
    assert result.verdict is Verdict.WARN
    assert result.evidence["uncalibrated"] == ["target_gain"]
    assert "not calibrated (needs its inputs): target_gain" in result.message
    alone = ran(OPTIONS, **_null(calibrate_kinds=["target_gain"]))
    assert (alone.verdict, alone.evidence["uncalibrated"]) == (Verdict.SKIP, ["target_gain"])


def test_a_kind_that_has_no_null_is_refused_with_those_that_have(ran: Run) -> None:
    with pytest.raises(BadInputError, match=r"calibrate_kinds.0: has no null \('delta_kl', 'target_gain' have\)"):
        ran(OPTIONS, **_null(calibrate_kinds=["external_perplexity"]))


@pytest.mark.planted_fault
def test_an_adapter_without_a_null_is_skipped_with_the_reason(driven: Drive, language: Language) -> None:
    result = driven({"refusal": "tensor x has no rule"}, _null(), _kl(language(4))).results[0]
    assert result.verdict is Verdict.SKIP
    assert result.message == "no null for this adapter: tensor x has no rule"
    assert result.evidence["null_stats"] == {}


@pytest.mark.parametrize(
    ("multipliers", "message"),
    [
        ([0.0], "positive and finite"),
        ([1.0, -1.0], "positive and finite"),
        ([float("nan")], "should be a finite number"),
        ([float("inf")], "should be a finite number"),
        ([], "positive and finite"),
        ([1.0, 1.001], "differ in their first two decimals"),
    ],
)
def test_multipliers_that_make_no_sense_are_refused(multipliers: list[float], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        build_probe({"name": "x", **_null(rank_multipliers=multipliers)})


def test_one_run_has_no_spread_and_is_refused() -> None:
    with pytest.raises(BadInputError, match="runs: Input should be greater than or equal to 2"):
        build_probe({"name": "x", **_null(runs=1)})


def test_a_rank_beyond_the_output_is_an_error_of_this_probe_alone(driven: Drive, language: Language) -> None:
    first, kl = driven(OPTIONS, _null(rank_multipliers=[20.0]), _kl(language(4))).results
    assert first.verdict is Verdict.ERROR
    assert "use a rank multiplier of at most 12" in first.message
    assert kl.verdict is not Verdict.ERROR


def test_all_multipliers_ride_one_ask_with_the_draws_of_the_run(language: Language) -> None:
    probe, spec = build_probe({"name": "x", **_null(runs=3, rank_multipliers=[0.5, 1.0])})
    later = build_probe({"name": "kl", **_kl(language(4))})
    (ask,) = probe.plan(spec, Env(seed=7, n_draws=99, later=(later,)), ())
    assert ask.views == tuple(View("rotation", 1.0, 7, draw, m) for m in (0.5, 1.0) for draw in range(3))
