from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dlm_sway.core import errors
from dlm_sway.core.errors import BadInputError, ExitCode, SwayError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.result import ProbeResult, Question, SuiteResult, Verdict, finite_or_none, worst
from dlm_sway.core.scoring import RollingLogprob, TokenDist


def _rolling(logprobs: list[float], num_tokens: int) -> RollingLogprob:
    values = np.array(logprobs, dtype=np.float32)
    return RollingLogprob(np.arange(num_tokens, dtype=np.int64), values, num_tokens, float(values.sum()))


def test_an_error_says_where_what_and_what_to_do_on_one_line() -> None:
    error = SwayError("is\nbroken", where=Path("a/b"), remedy="mend\tit")
    assert str(error) == error.one_line() == "a/b: is broken; mend it"
    assert SwayError("broken").one_line() == "broken"
    assert (error.what, error.where, error.remedy) == ("is\nbroken", "a/b", "mend\tit")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SwayError, 3),
        (errors.BadInputError, 2),
        (errors.AdapterError, 2),
        (errors.NullRuleError, 3),
        (errors.ViewError, 3),
        (errors.MissingExtraError, 3),
        (errors.CannotRunError, 3),
    ],
)
def test_every_error_ends_with_its_exit_code(error: type[SwayError], code: int) -> None:
    assert error("x").exit_code == code
    assert isinstance(error("x").exit_code, ExitCode)


def test_an_adapter_error_is_bad_input() -> None:
    assert issubclass(errors.AdapterError, BadInputError)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["pass", "warn"], "warn"),
        (["warn", "inconclusive"], "inconclusive"),
        (["inconclusive", "fail"], "fail"),
        (["fail", "error"], "error"),
        (["skip", "pass"], "pass"),
        (["skip"], "skip"),
        ([], "skip"),
    ],
)
def test_the_worst_verdict_wins_and_a_skip_does_not_count(verdicts: list[str], expected: str) -> None:
    assert worst(map(Verdict, verdicts)) is Verdict(expected)


@given(st.lists(st.sampled_from(Verdict)), st.randoms(use_true_random=False))
def test_the_worst_verdict_does_not_depend_on_the_order(verdicts: list[Verdict], random: object) -> None:
    shuffled = verdicts.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert worst(shuffled) is worst(verdicts)


def test_a_suite_takes_the_worst_verdict_of_its_probes() -> None:
    probes = tuple(ProbeResult(name=v, kind="x", verdict=v) for v in (Verdict.PASS, Verdict.FAIL, Verdict.SKIP))
    assert SuiteResult(probes=probes).verdict is Verdict.FAIL
    assert SuiteResult().verdict is Verdict.SKIP


def test_a_suite_written_as_json_comes_back_and_its_verdict_is_never_believed() -> None:
    suite = SuiteResult(name="s", probes=(ProbeResult(name="a", kind="x", verdict=Verdict.FAIL),))
    document = suite.model_dump(mode="json")
    assert document["verdict"] == "fail"
    assert SuiteResult.model_validate(document | {"verdict": "pass"}) == suite


@pytest.mark.parametrize("record", [ProbeResult(name="a", kind="b", verdict=Verdict.PASS), Question(verdict="pass")])
def test_results_are_frozen_and_refuse_unknown_keys(record: ProbeResult | Question) -> None:
    with pytest.raises(ValidationError):
        record.message = "x"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        type(record).model_validate({**record.model_dump(), "extra": 1})


@pytest.mark.parametrize(("value", "kept"), [(1, 1.0), (None, None), (math.nan, None), (-math.inf, None)])
def test_only_finite_numbers_are_kept(value: float | None, kept: float | None) -> None:
    assert finite_or_none(value) == kept


def test_a_rolling_logprob_averages_over_the_scored_tokens() -> None:
    rolling = _rolling([-1.0, -3.0], num_tokens=3)
    assert rolling.mean_logprob == -2.0
    assert rolling.perplexity == pytest.approx(math.exp(2.0))


@pytest.mark.parametrize("num_tokens", [0, 1])
def test_a_text_with_nothing_to_score_has_perplexity_one(num_tokens: int) -> None:
    assert _rolling([], num_tokens).mean_logprob == 0.0
    assert _rolling([], num_tokens).perplexity == 1.0


@pytest.mark.parametrize("record", [_rolling([-1.0], 2), TokenDist(np.arange(1), np.zeros(1, np.float32), 5)])
def test_scoring_records_are_frozen_and_take_no_other_fields(record: RollingLogprob | TokenDist) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.token_ids = np.arange(3)  # type: ignore[misc]
    assert not hasattr(record, "__dict__")


def test_a_token_distribution_has_no_tail_unless_one_is_given() -> None:
    assert TokenDist(np.arange(2), np.zeros(2, np.float32), 2).tail_logprob is None


def test_a_model_spec_keeps_its_adapter_absolute_and_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert ModelSpec(base="m", adapter=Path("~/a")).adapter == tmp_path / "a"
    assert ModelSpec(base="m", adapter=Path("b")).adapter == tmp_path / "b"
    assert ModelSpec(base="m").adapter is None


@pytest.mark.parametrize("fault", [{"base": ""}, {"dtype": "fp8"}, {"quantization": "2bit"}, {"adaptor": "x"}])
def test_a_model_spec_refuses_what_it_does_not_know(fault: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ModelSpec.model_validate({"base": "m", **fault})


def test_a_model_spec_is_frozen_and_trusts_no_remote_code() -> None:
    spec = ModelSpec(base="m")
    assert (spec.kind, spec.dtype, spec.device, spec.trust_remote_code) == ("hf", "auto", "auto", False)
    with pytest.raises(ValidationError):
        spec.base = "other"  # type: ignore[misc]
