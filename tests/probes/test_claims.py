from __future__ import annotations

import numpy as np
import pytest

from dlm_sway.core.determinism import stream
from dlm_sway.core.result import Verdict
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.base import NullTest
from dlm_sway.probes.beyond import surely_over
from dlm_sway.probes.claims import at_least, extremes, interval_of, null_evidence, power_line, standing
from dlm_sway.stats.paired import Estimate, gain


def _estimate(value: float, low: float | None, high: float | None, *, se: float | None = 0.1) -> Estimate:
    return Estimate(value, low, high, 9, 9, 90, se, "t", 0.01)


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (0.2, 0.1, 0.3, Verdict.PASS),
        (0.05, 0.01, 0.09, Verdict.PASS),
        (0.2, -0.01, 0.4, Verdict.INCONCLUSIVE),
        (0.2, 0.0, 0.4, Verdict.INCONCLUSIVE),
        (0.04, 0.01, 0.07, Verdict.INCONCLUSIVE),
        (0.02, 0.01, 0.03, Verdict.FAIL),
        (-0.2, -0.3, -0.1, Verdict.FAIL),
        (0.9, None, None, Verdict.INCONCLUSIVE),
    ],
)
def test_at_least_needs_the_size_and_a_bound_over_zero(
    value: float, low: float | None, high: float | None, verdict: Verdict
) -> None:
    assert at_least(_estimate(value, low, high), 0.05) is verdict


def test_there_is_no_interval_without_bounds_and_no_power_without_spread() -> None:
    assert interval_of(_estimate(0.2, None, None)) is None
    assert interval_of(_estimate(0.2, 0.1, 0.3)) == (0.1, 0.3)
    assert power_line(_estimate(0.2, None, None, se=None)) is None
    assert power_line(_estimate(0.2, 0.1, 0.3)) == pytest.approx(0.1 * (2.306 + 0.889), abs=1e-3)


@pytest.mark.parametrize("n", [12, 64])
@pytest.mark.parametrize("surely", [False, True])
def test_the_power_line_is_shown_four_times_in_five(n: int, surely: bool) -> None:
    """Before, it was that of a one-sided 5 % z test, and was shown 0.36 to 0.7 of the time."""
    probe = Estimate(0.2, 0.1, 0.3, n, n, n, 0.2 / n**0.5, "t", 0.01)
    effect = power_line(probe, minimum=0.05, surely=surely)
    rule = surely_over if surely else at_least
    passed = []
    for run in range(300):
        rng = stream(run, "power", n)
        found = gain(effect + 0.2 * rng.standard_normal(n), np.ones(n, dtype=np.int64), rng=rng)
        passed.append(rule(found, 0.05) is Verdict.PASS)
    assert 0.74 < np.mean(passed) < 0.88


def test_the_evidence_of_a_null_test_holds_what_a_reader_needs_to_judge_it_again() -> None:
    draws = np.linspace(1.0, 2.0, 39)
    found = null_evidence(NullTest("learned", 3.0, draws, "log"), 0.05)
    assert found["null_draws"] == draws.tolist()
    assert (found["rank"], found["n_draws"], found["p"], found["p_adjusted"]) == (1, 39, 1 / 40, 0.05)
    assert (found["null_median"], found["ratio"]) == (1.5, 2.0)
    assert found["z_extrapolated"] > 2
    assert null_evidence(NullTest("learned", 3.0, draws[:19], "log"), 0.05)["z_extrapolated"] is None


def test_the_standing_names_the_family_where_it_decides() -> None:
    null = {"rank": 1, "n_draws": 39, "p": 0.025, "p_adjusted": 0.025}
    assert standing(null) == "rank 1 of 40"
    assert standing(null | {"p_adjusted": 0.125}) == "rank 1 of 40, p 0.125 over all questions"


def test_extremes_are_ordered_per_token() -> None:
    items = [TextItem("", f"text {i}", str(i), f"item {i}") for i in range(3)]
    found = extremes(items, np.array([4.0, 3.0, -1.0]), np.array([8, 3, 2]), n=2)
    assert [row["label"] for row in found["largest"]] == ["item 1", "item 0"]
    assert [row["value"] for row in found["smallest"]] == [-0.5, 0.5]
    assert found["largest"][0] == {"label": "item 1", "value": 1.0, "tokens": 3, "text": "text 1"}
