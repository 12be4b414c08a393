from __future__ import annotations

from typing import Any

import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Question, Verdict
from dlm_sway.core.views import FINETUNED, View, rotations
from dlm_sway.probes.base import Env, build_probe, result_of
from dlm_sway.probes.delta_kl import DeltaKL


def test_a_probe_is_built_from_a_mapping() -> None:
    probe, spec = build_probe({"name": "mine", "kind": "delta_kl", "prompts": ["one", {"prompt": "a", "text": "b"}]})
    assert isinstance(probe, DeltaKL)
    first, second = spec.prompts  # type: ignore[attr-defined]
    assert (first.prompt, first.completion, first.cluster, first.label) == ("", "one", "0", "0")
    assert (second.prompt, second.completion) == ("a", "b")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"name": "x", "kind": "delta_lk"}, r"unknown probe kind 'delta_lk'; did you mean 'delta_kl'\?"),
        ({"name": "x"}, "unknown probe kind ''; known kinds: .*delta_kl"),
        ({"kind": "delta_kl"}, r"probe None: name: Field required; run: sway list-probes"),
        ({"name": "", "kind": "delta_kl"}, "name: String should have at least 1 character"),
        ({"name": "x", "kind": "delta_kl", "promts": []}, r"probe 'x': promts: Extra inputs are not permitted"),
        ({"name": "x", "kind": "delta_kl", "null_tokens": 3}, "null_tokens: Input should be greater than or equal to"),
        ({"name": "x", "kind": "delta_kl", "prompts": [3]}, r"prompts\.0: Input should be a dictionary or an instance"),
        ({"name": "x", "kind": "delta_kl", "prompts": "abc"}, "prompts: Input should be a valid tuple"),
        ({"name": "x", "kind": "target_gain", "items": []}, "items: .*at least 1 item"),
    ],
)
def test_a_wrong_spec_is_one_line_that_names_the_fault(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        build_probe(raw)
    assert "\n" not in caught.value.one_line()


def test_several_faults_are_all_named() -> None:
    with pytest.raises(BadInputError, match=r"divergence: .*; min_ratio: "):
        build_probe({"name": "x", "kind": "delta_kl", "divergence": "l2", "min_ratio": 0.5})


def test_the_nulls_of_a_run_are_the_same_draws_at_every_scale() -> None:
    env = Env(seed=3, n_draws=4)
    assert env.adapter_and_nulls() == (FINETUNED, *rotations(seed=3, n_draws=4))
    assert env.adapter_and_nulls(0.25) == (View(lam=0.25), *rotations(seed=3, n_draws=4, lam=0.25))
    assert Env(null_refusal="no rule").adapter_and_nulls() == (FINETUNED,)
    assert env.null_name == "rotation (N1), 4 draws"


def test_the_random_streams_of_a_run_differ_by_their_words_and_seed() -> None:
    def drawn(seed: int, *words: str) -> float:
        return float(Env(seed=seed).rng(*words).random())

    assert drawn(1, "a", "b") == drawn(1, "a", "b")
    assert len({drawn(1, "a", "b"), drawn(1, "ab"), drawn(1, "b", "a"), drawn(2, "a", "b")}) == 4


def test_a_result_takes_its_effect_from_the_headline_and_its_verdict_from_the_worst_claim() -> None:
    _, spec = build_probe({"name": "x", "kind": "delta_kl"})
    claims = {
        "one": Question(verdict=Verdict.FAIL, effect=1.0, unit="nat"),
        "two": Question(verdict=Verdict.PASS, effect=2.0, unit="x", interval=(1.0, 3.0), message="said"),
    }
    result = result_of(spec, claims, headline="two", evidence={"more": 1}, score=0.5)
    assert (result.verdict, result.raw, result.ci_95, result.message) == (Verdict.FAIL, 2.0, (1.0, 3.0), "said")
    assert (result.evidence["unit"], result.evidence["more"]) == ("x", 1)
    assert result.evidence["claims"]["one"]["verdict"] == "fail"
