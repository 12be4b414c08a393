from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dlm_sway.report.terminal import print_check
from dlm_sway.report.work import work_line
from dlm_sway.suite.result import CheckResult


def _worked(result: CheckResult, **timing: float) -> CheckResult:
    floor = {"median_kl": 1e-12, "max_kl": 3.61e-11, "max_logprob": 1e-6}
    provenance = {**result.provenance, "engine": "stacked", "numeric_floor": floor}
    probes = result.probes * 3
    return result.model_copy(update={"timing": timing, "provenance": provenance, "probes": probes})


@pytest.mark.parametrize(
    ("timing", "line"),
    [
        (
            {"view_tokens": 37120.0, "scoring_s": 41.02, "cached_positions": 0.0},
            "scored 37,120 view-tokens in 41 s (905/s), stacked, 3 probes, N0 3.6e-11",
        ),
        (
            {"view_tokens": 0.0, "scoring_s": 0.0, "cached_positions": 12300.0},
            "scored 0 view-tokens in 0.0 s, 12,300 positions from the cache, stacked, 3 probes, N0 3.6e-11",
        ),
    ],
)
def test_the_line_says_what_was_done(healthy: CheckResult, timing: dict[str, float], line: str) -> None:
    assert work_line(_worked(healthy, **timing)) == line


def test_in_16_bits_the_line_names_them_and_what_they_cost(healthy: CheckResult) -> None:
    worked = _worked(healthy, view_tokens=5.0, scoring_s=1.0)
    floor = {"max_kl": 0.0044, "against_fp32": {"mean_kl": 0.0022, "max_kl": 0.06, "max_logprob": 0.1}}
    there = worked.model_copy(update={"provenance": worked.provenance | {"dtype": "bfloat16", "numeric_floor": floor}})
    assert work_line(there).endswith("3 probes, bf16, N0 0.0044 (0.0022 against fp32)")


def test_a_quick_look_is_told_from_a_whole_one_whose_effects_are_of_whole_texts(healthy: CheckResult) -> None:
    worked = _worked(healthy, view_tokens=5.0, scoring_s=1.0)
    quick = worked.model_copy(update={"provenance": worked.provenance | {"quick": True}})
    assert "in 1.0 s (5/s), --quick: beginnings of texts alone, stacked" in work_line(quick)
    assert "quick" not in work_line(worked)


def test_where_no_model_was_asked_there_is_no_line(healthy: CheckResult) -> None:
    assert work_line(healthy) == ""
    assert work_line(healthy.model_copy(update={"timing": {"scoring_s": 1.0}, "probes": ()})) == ""


@pytest.mark.parametrize("floor", [None, {}, {"max_kl": None}, {"max_kl": float("nan")}, "text"])
def test_a_floor_that_was_not_measured_is_left_out(healthy: CheckResult, floor: Any) -> None:
    worked = _worked(healthy, view_tokens=5.0, scoring_s=1.0)
    update = {"provenance": {"numeric_floor": floor}, "probes": healthy.probes}
    assert work_line(worked.model_copy(update=update)) == "scored 5 view-tokens in 1.0 s (5/s), 1 probe"


def test_the_line_ends_the_report(healthy: CheckResult, printed: Callable[..., str]) -> None:
    worked = _worked(healthy, view_tokens=5.0, scoring_s=1.0)
    report = printed(lambda console: print_check(worked, console), width=80)
    assert report.endswith("\n\nscored 5 view-tokens in 1.0 s (5/s), stacked, 3 probes, N0 3.6e-11\n")
