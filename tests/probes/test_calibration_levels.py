"""The levels that the probes of calibration and recital promise, on made-up data at the edge of each claim."""

from __future__ import annotations

import math
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.result import Verdict

N = 100
MOST = 0.05 + 2 * math.sqrt(0.05 * 0.95 / N)
AT_THE_MARGIN = {1.0: 0.101, 0.05: 1.653}  # what the right option loses, by the share of facts that lose it


@pytest.fixture(scope="module")
def made() -> Mapping[str, Any]:
    """Return what makes data for the tables of docs/statistics/probes-calibration.md."""
    return runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "stats" / "probes_calibration.py"))


def share(verdicts: list[Verdict], of: Verdict) -> float:
    return float(np.mean([v is of for v in verdicts]))


def test_harm_to_one_register_rarely_fails_at_the_margin_and_is_found_beyond_it(made: Mapping[str, Any]) -> None:
    def verdicts(one: float) -> list[Verdict]:
        return [made["control"](one, 0.0, run)[0].verdict for run in range(N // 2)]

    assert share(verdicts(0.05), Verdict.FAIL) <= MOST
    assert share(verdicts(0.0), Verdict.PASS) >= 0.95
    assert share(verdicts(0.2), Verdict.FAIL) >= 0.95


@pytest.mark.parametrize("where", sorted(AT_THE_MARGIN))
def test_a_loss_at_the_margin_is_rarely_called_no_harm_and_rarely_harm(made: Mapping[str, Any], where: float) -> None:
    for n in (30, 80):
        verdicts = [made["drift"](n, AT_THE_MARGIN[where], where, run).verdict for run in range(N)]
        assert share(verdicts, Verdict.PASS) <= MOST
        assert share(verdicts, Verdict.FAIL) <= 0.12  # three claims and the categories can each fail it


def test_harm_is_found_and_its_absence_too(made: Mapping[str, Any]) -> None:
    kept, harmed = ([made["drift"](320, shift, 1.0, run).verdict for run in range(20)] for shift in (0.0, 1.0))
    assert share(kept, Verdict.PASS) >= 0.9
    assert share(harmed, Verdict.FAIL) == 1.0


def test_a_share_of_recited_spans_at_the_limit_rarely_passes_and_rarely_fails(made: Mapping[str, Any]) -> None:
    for n in (59, 200):
        verdicts = [made["leak"](n, 0.0, 0.05, run).verdict for run in range(N)]
        assert share(verdicts, Verdict.PASS) <= MOST
        assert share(verdicts, Verdict.FAIL) <= MOST


def test_recital_is_found_and_its_absence_too(made: Mapping[str, Any]) -> None:
    assert share([made["leak"](59, 0.0, 0.0, run).verdict for run in range(20)], Verdict.PASS) == 1.0
    assert share([made["leak"](80, 0.0, 0.3, run).verdict for run in range(20)], Verdict.FAIL) >= 0.9


def test_documents_that_are_no_members_have_a_uniform_p_and_those_at_the_limit_rarely_pass(
    made: Mapping[str, Any],
) -> None:
    p = np.array([made["member"](30, 0.5, run).evidence["p"] for run in range(N // 2)])
    assert np.mean(p <= 0.05) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(p))
    assert 0.35 < p.mean() < 0.65
    edge = [made["told"](made["member"](30, 0.65, run)) for run in range(N // 2)]
    assert share(edge, Verdict.PASS) <= 0.12
    assert share(edge, Verdict.FAIL) <= 0.12
    found = [made["told"](made["member"](60, 0.9, run)) for run in range(10)]
    assert share(found, Verdict.FAIL) >= 0.8
