from __future__ import annotations

from typing import Any

import pytest

from dlm_sway.core.errors import ExitCode
from dlm_sway.core.result import ProbeResult, SuiteResult, Verdict
from dlm_sway.report.gate import gate_view
from dlm_sway.suite.gate import Gate, gate

CATEGORIES = {"d": "adherence", "t": "attribution", "e": "calibration"}


def _result(*probes: tuple[str, str, float | None], **suite: Any) -> SuiteResult:
    made = tuple(
        ProbeResult(name=n, kind="k", verdict=Verdict(v), score=s, message=f"{n} said so") for n, v, s in probes
    )
    return SuiteResult(probes=made, provenance={"suite": {"categories": CATEGORIES, **suite}})


def _whys(found: Gate) -> list[str]:
    return [breach.why for breach in found.breaches]


HEALTHY = (("d", "pass", 1.0), ("t", "pass", 0.9), ("e", "pass", 1.0))


def test_a_healthy_result_opens_it() -> None:
    found = gate(_result(*HEALTHY))
    assert (found.breaches, found.exit_code) == ((), ExitCode.PASS)


@pytest.mark.parametrize(
    ("changed", "why", "code"),
    [
        (("t", "fail", 0.0), "fail", ExitCode.FAIL),
        (("t", "error", 0.9), "error", ExitCode.ERROR),
    ],
)
def test_a_verdict_that_is_turned_changes_the_end(
    changed: tuple[str, str, float | None], why: str, code: ExitCode
) -> None:
    found = gate(_result(HEALTHY[0], changed, HEALTHY[2]))
    assert found.exit_code == code
    assert found.breaches[0].why == why
    assert found.breaches[0].message == "t said so"


def test_an_error_is_worse_than_a_failure() -> None:
    found = gate(_result(("d", "fail", 0.0), ("t", "error", 0.0), ("e", "pass", 1.0)))
    assert _whys(found)[0] == "error"
    assert found.exit_code == ExitCode.ERROR


def test_what_stands_in_the_file_beside_the_probes_is_not_believed() -> None:
    lying = _result(("d", "pass", 0.1), ("t", "pass", 0.1), ("e", "pass", 0.1))
    found = gate(lying.model_copy(update={"score": 1.0, "coverage": 1.0}))
    assert _whys(found) == ["score"]
    assert found.exit_code == ExitCode.FAIL


def test_too_little_that_was_decided_closes_it() -> None:
    found = gate(_result(("d", "pass", 1.0), ("t", "skip", None), ("e", "inconclusive", None)))
    assert _whys(found) == ["coverage"]
    assert found.exit_code == ExitCode.INCONCLUSIVE


def test_nothing_at_all_never_passes() -> None:
    for empty in (_result(), _result(("n", "pass", None)), _result(("d", "skip", None)), SuiteResult()):
        assert gate(empty).exit_code == ExitCode.INCONCLUSIVE


def test_strict_closes_on_inconclusive() -> None:
    result = _result(*HEALTHY[:2], ("e", "inconclusive", None))
    assert gate(result).exit_code == ExitCode.PASS
    assert _whys(gate(result, strict=True)) == ["inconclusive"]
    assert gate(result, strict=True).exit_code == ExitCode.INCONCLUSIVE


def test_the_suite_sets_the_thresholds_and_the_caller_comes_first() -> None:
    probes = (("d", "pass", 0.7), ("t", "pass", 0.7), ("e", "pass", 0.7))
    assert gate(_result(*probes)).exit_code == ExitCode.PASS
    assert _whys(gate(_result(*probes, score_threshold=0.8))) == ["score"]
    assert gate(_result(*probes, score_threshold=0.8), threshold=0.5).exit_code == ExitCode.PASS
    half = (("d", "pass", 1.0), ("t", "skip", None), ("e", "pass", 1.0))
    assert gate(_result(*half, coverage_threshold=0.5)).exit_code == ExitCode.PASS
    assert _whys(gate(_result(*half, coverage_threshold=0.5), coverage_threshold=0.9)) == ["coverage"]


def test_the_weights_of_the_suite_are_used_again() -> None:
    probes = (("d", "pass", 0.2), ("t", "pass", 1.0), ("e", "pass", 1.0))
    assert gate(_result(*probes)).exit_code == ExitCode.PASS
    assert _whys(gate(_result(*probes, weights={"adherence": 5.0}))) == ["score"]
    assert _whys(gate(_result(*probes), weights={"adherence": 5.0})) == ["score"]


@pytest.mark.parametrize("suite", [7, {"categories": [1]}, {"weights": {"adherence": "x"}, "score_threshold": "high"}])
def test_a_file_that_says_odd_things_never_opens_it(suite: Any) -> None:
    result = SuiteResult(provenance={"suite": suite}, probes=_result(*HEALTHY).probes)
    assert gate(result).exit_code == ExitCode.INCONCLUSIVE


def test_a_threshold_beyond_all_floats_never_opens_it() -> None:
    assert _whys(gate(_result(*HEALTHY, score_threshold=10**400))) == ["score"]


@pytest.mark.parametrize("threshold", [0.06, 0.29, 0.57, 0.6, 0.7])
def test_a_score_and_a_coverage_on_the_threshold_reach_it(threshold: float) -> None:
    assert gate(_result(*((n, "pass", threshold) for n in "dte")), threshold=threshold).breaches == ()
    half = _result(("d", "skip", None), ("t", "pass", 1.0), ("e", "skip", None), ("a", "skip", None))
    half.provenance["suite"]["categories"] = {"d": "ablation", "t": "attribution", "e": "calibration", "a": "ablation"}
    assert gate(half, coverage_threshold=0.5).breaches == ()


def test_what_is_just_under_a_threshold_is_told_with_the_digits_that_show_it() -> None:
    (breach,) = gate(_result(*((n, "pass", 0.5996) for n in "dte"))).breaches
    assert breach.message == "the score of 0.5996 is under 0.6000"
    (breach,) = gate(_result(HEALTHY[0], ("t", "skip", None), HEALTHY[2]), coverage_threshold=0.59).breaches
    assert breach.message == "58.8% of what the score is made of was decided, under 59.0%"


def test_a_probe_whose_answer_was_cut_out_closes_it() -> None:
    found = gate(_result(*HEALTHY[:2]))
    assert [(breach.why, breach.name) for breach in found.breaches] == [("missing", "e")]
    assert found.exit_code == ExitCode.INCONCLUSIVE


def test_a_probe_whose_weight_was_cut_out_closes_it() -> None:
    result = _result(*HEALTHY[:2], ("bad", "pass", 0.0), HEALTHY[2])
    assert [(breach.why, breach.name) for breach in gate(result).breaches] == [("missing", "bad")]


def test_a_run_of_a_part_of_the_suite_says_so() -> None:
    found = gate(_result(*HEALTHY, only=["d", "t", "e"], skip=[], limit=4))
    assert found.part == ("--only", "--limit")
    assert gate_view(found).headline == (
        "the gate is open: score 0.96 of 0.60 needed, for a part of the suite (--only, --limit)"
    )
    assert gate(_result(*HEALTHY, only=[], skip=[], limit=None)).part == ()
