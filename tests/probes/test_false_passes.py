"""The level that is promised, on two hundred adapters that learned nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from dlm_sway.core.determinism import stream
from dlm_sway.core.result import Verdict
from dlm_sway.probes.drive import Driven

N, M, ALPHA = 200, 19, 0.05
STRENGTHS = (0.1, 0.3, 1.0)
MOST = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / N)
Ran = list[dict[str, tuple[int, str]]]


@pytest.fixture(scope="module")
def noise(driven: Callable[..., Driven], language: Callable[..., tuple[str, ...]]) -> Ran:
    """Return, for each noise adapter under nulls of its own seed, the rank and the verdict of each claim."""
    target, unseen = language(12), language(8, seed=1)
    specs = (
        {"kind": "delta_kl", "prompts": target, "null_tokens": 100},
        {
            "kind": "target_gain",
            "items": target,
            "held_out": unseen,
            "controls": language(12, first=70),
            "null_tokens": 100,
        },
    )
    found: Ran = []
    for seed in range(N):
        options = {"strength": STRENGTHS[seed % 3], "adapter_seed": 1000 + seed}
        kl, gain = (r.evidence for r in driven(options, *specs, n_draws=M, seed=seed).results)
        nulls = {"learned": kl, "on_target": gain["on_target"]["null"], "generalises": gain["generalises"]["null"]}
        claims = {**kl["claims"], **gain["claims"]}
        found.append({name: (null["rank"], claims[name]["verdict"]) for name, null in nulls.items()})
    return found


@pytest.mark.parametrize("name", ["learned", "on_target", "generalises"])
def test_the_rank_of_an_adapter_that_learned_nothing_is_uniform(noise: Ran, name: str) -> None:
    ranks = np.array([run[name][0] for run in noise])
    assert ranks.min() >= 1
    assert ranks.max() <= M + 1
    spread = (ranks - stream(0, name).random(N)) / (M + 1)  # a rank stands for an interval of p
    assert stats.kstest(spread, "uniform").pvalue > 0.01
    assert np.mean(ranks / (M + 1) <= ALPHA) <= MOST


@pytest.mark.parametrize("name", ["learned", "on_target", "generalises"])
def test_no_claim_passes_more_often_than_its_level(noise: Ran, name: str) -> None:
    assert np.mean([run[name][1] == Verdict.PASS for run in noise]) <= MOST


def test_all_claims_together_keep_the_level_of_one(noise: Ran) -> None:
    passed = [any(verdict == Verdict.PASS for _, verdict in run.values()) for run in noise]
    assert np.mean(passed) <= MOST


def test_an_adapter_that_learned_is_found_at_the_same_number_of_draws(
    driven: Callable[..., Driven], language: Callable[..., tuple[str, ...]]
) -> None:
    target = language(12)
    for strength in STRENGTHS:
        options = {"adapter": "trained", "towards": target, "strength": 3 * strength}
        result = driven(options, {"kind": "delta_kl", "prompts": target}, n_draws=M).results[0]
        assert result.verdict is Verdict.PASS
