from __future__ import annotations

from typing import Any

import pytest

from dlm_sway.core.result import Category, ProbeResult, Verdict
from dlm_sway.suite.score import Score, composite, weights_with

CATEGORIES: dict[str, Category] = {
    "d": "adherence",
    "t": "attribution",
    "t2": "attribution",
    "e": "calibration",
    "a": "ablation",
    "n": "baseline",
}


def _probe(name: str, verdict: str, score: float | None = None, **claims: str) -> ProbeResult:
    evidence: dict[str, Any] = {"claims": {claim: {"verdict": value} for claim, value in claims.items()}}
    return ProbeResult(name=name, kind="k", verdict=Verdict(verdict), score=score, evidence=evidence)


def _score(*results: ProbeResult, **weights: float) -> Score:
    return composite(results, CATEGORIES, weights=weights_with(weights))  # type: ignore[arg-type]


def test_the_score_is_the_weighted_mean_of_the_categories() -> None:
    found = _score(
        _probe("d", "pass", 1.0), _probe("t", "pass", 0.5), _probe("t2", "fail", 0.0), _probe("e", "pass", 1)
    )
    assert found.components == {"adherence": 1.0, "attribution": 0.25, "calibration": 1.0}
    assert found.score == pytest.approx((0.30 + 0.35 * 0.25 + 0.20) / 0.85)
    assert found.coverage == 1.0


def test_a_partial_weight_leaves_the_others_as_they_are() -> None:
    assert weights_with({"calibration": 0.5}) == {
        "baseline": 0.0,
        "adherence": 0.30,
        "attribution": 0.35,
        "calibration": 0.5,
        "ablation": 0.15,
    }
    found = _score(_probe("d", "pass", 1.0), _probe("e", "fail", 0.0), calibration=0.3)
    assert found.score == pytest.approx(0.5)


@pytest.mark.parametrize("verdict", ["skip", "inconclusive"])
def test_what_was_not_decided_is_left_out_and_lowers_the_coverage(verdict: str) -> None:
    found = _score(_probe("d", "pass", 1.0), _probe("e", verdict, 0.9))
    assert found.score == 1.0
    assert found.coverage == pytest.approx(0.30 / 0.50)


def test_an_error_counts_nothing_and_never_raises_the_score() -> None:
    whole = _score(_probe("d", "pass", 1.0), _probe("t", "pass", 0.8))
    broken = _score(_probe("d", "pass", 1.0), _probe("t", "pass", 0.8), _probe("t2", "error", 1.0))
    assert broken.score is not None
    assert whole.score is not None
    assert broken.score < whole.score
    assert broken.coverage == 1.0


def test_a_fail_without_a_score_is_nothing_and_a_pass_without_one_is_information() -> None:
    assert _score(_probe("d", "fail")).score == 0.0
    found = _score(_probe("d", "pass", 1.0), _probe("t", "warn"), _probe("e", "pass"))
    assert (found.score, found.coverage) == (1.0, 1.0)


@pytest.mark.parametrize("learned", [7, None, {"verdict": "perhaps"}, {"odd": 1}])
def test_a_claim_that_does_not_read_is_passed_over(learned: Any) -> None:
    odd = _probe("d", "pass", 1.0).model_copy(update={"evidence": {"claims": {"learned": learned}}})
    assert _score(odd).band == "healthy"
    assert _score(odd.model_copy(update={"verdict": Verdict.FAIL})).band == "noise"


def test_the_baseline_takes_no_part() -> None:
    found = _score(_probe("n", "skip"), _probe("d", "pass", 0.5))
    assert (found.score, found.coverage) == (0.5, 1.0)


def test_nothing_decided_is_no_score() -> None:
    found = _score(_probe("d", "inconclusive"), _probe("n", "pass"))
    assert (found.score, found.coverage, found.band) == (None, 0.0, "undecided")


@pytest.mark.parametrize(
    ("results", "band"),
    [
        ((_probe("d", "pass", 1.0, learned="pass"),), "healthy"),
        ((_probe("d", "pass", 1.0, learned="pass"), _probe("e", "fail", 0.0)), "partial"),
        ((_probe("d", "pass", 0.2, learned="pass"),), "weak"),
        ((_probe("d", "pass", 0.4, learned="pass"),), "partial"),
        ((_probe("d", "fail", 0.0, applied="pass", learned="fail"), _probe("e", "pass", 1.0)), "noise"),
        ((_probe("d", "inconclusive", None, learned="inconclusive"), _probe("e", "pass", 1.0)), "undecided"),
        ((_probe("e", "pass", 1.0),), "undecided"),
        ((_probe("t", "fail", 0.0, on_target="fail"), _probe("e", "pass", 1.0)), "noise"),
        ((_probe("t", "pass", 0.9, on_target="pass"), _probe("e", "pass", 1.0)), "healthy"),
    ],
)
def test_the_band_follows_from_what_was_shown(results: tuple[ProbeResult, ...], band: str) -> None:
    assert _score(*results).band == band


def test_a_noise_adapter_is_noise_whatever_its_weights_make_of_the_score() -> None:
    found = _score(_probe("d", "fail", 0.0, learned="fail"), _probe("e", "pass", 1.0), calibration=100.0)
    assert found.score is not None
    assert found.score > 0.9
    assert found.band == "noise"


@pytest.mark.parametrize("score", [i / 100 for i in range(101)])
def test_the_mean_of_equal_scores_is_that_score(score: float) -> None:
    for names in (("t", "e"), ("t", "e", "a"), ("d", "t", "e", "a")):
        assert _score(*(_probe(name, "pass", score) for name in names)).score == score


def test_a_score_on_the_edge_of_a_band_is_in_it() -> None:
    assert _score(*(_probe(name, "pass", 0.6) for name in ("t", "e", "a"))).band == "healthy"
    assert _score(*(_probe(name, "pass", 0.3) for name in ("t", "e", "a"))).band == "partial"


def test_weights_whose_sum_no_float_holds_still_make_a_mean() -> None:
    probes = (_probe("d", "pass", 0.4), _probe("t", "pass", 0.8), _probe("e", "skip"))
    found = _score(*probes, adherence=1e308, attribution=1e308, calibration=1e308)
    assert (found.score, found.coverage) == pytest.approx((0.6, 2 / 3))
