"""The rule: three claims, each of which can break a link or leave it open; and what is an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models import adapter_of, backend_of, base_of, byte_tokenizer, open_backend

from dlm_sway.adapters.config import AdapterConfig
from dlm_sway.backends.whole import open_whole
from dlm_sway.chain.behaviour import decide, judge
from dlm_sway.chain.reference import OWN, Reference, observe, take_reference
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.result import Verdict
from dlm_sway.engine.ask import TextItem
from dlm_sway.stats.equivalence import Equivalence
from dlm_sway.stats.survival import Survival

TEXTS = [f"the bell number {i} is struck when the water falls below line {7 * i}" for i in range(12)]
SAME = Equivalence(0.0, -0.001, 0.001, 0.0, 0.02, "within", 40, 8, "t over clusters")
LEFT = Survival(1.0, 0.97, 1.03, 1.0, 0.97, 1.03, 0.1, 0.08, 0.12, 0.0, 0.5, "t over clusters")


@pytest.mark.parametrize(
    ("same", "left", "verdict"),
    [
        ({}, {}, Verdict.PASS),
        ({"decision": "outside"}, {}, Verdict.FAIL),
        ({"decision": "undecided"}, {}, Verdict.INCONCLUSIVE),
        ({}, {"low": 0.5, "high": 0.89}, Verdict.FAIL),
        ({}, {"low": 0.85, "high": 0.97}, Verdict.INCONCLUSIVE),
        ({}, {"low": 1.11, "high": 1.3}, Verdict.FAIL),
        ({}, {"low": 1.05, "high": 1.2}, Verdict.INCONCLUSIVE),
        ({}, {"unexplained_low": 1.2, "unexplained_high": 3.0}, Verdict.FAIL),
        ({}, {"unexplained_low": 0.8, "unexplained_high": 1.2}, Verdict.INCONCLUSIVE),
        ({}, {"low": None, "high": None}, Verdict.INCONCLUSIVE),
        ({"decision": "outside"}, {"low": None, "high": None}, Verdict.INCONCLUSIVE),
    ],
)
def test_each_claim_can_break_a_link_or_leave_it_open(
    same: dict[str, str], left: dict[str, float], verdict: Verdict
) -> None:
    assert decide(replace(SAME, **same), replace(LEFT, **left), own=True) is verdict  # type: ignore[arg-type]


def test_on_general_text_a_format_larger_than_the_effect_is_no_fault() -> None:
    drowned = replace(LEFT, unexplained_low=2.0, unexplained_high=3.0)
    assert decide(SAME, drowned, own=False) is Verdict.INCONCLUSIVE


def reference(*, own: bool, n: int = 40, effect: float = 0.3) -> Reference:
    rng = np.random.default_rng(0)
    scales = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    change = effect * rng.standard_normal(20 * n)
    items = tuple(TextItem("", "x", str(i), str(i), OWN if own else "general") for i in range(n))
    return Reference(
        asked=items,
        scales=scales,
        logprobs=np.array(scales)[:, None] * change - 3.0,
        offsets=np.arange(n + 1) * 20,
        stops=np.zeros((len(scales), 0)),
        stop_clusters=(),
        is_stop=np.zeros(20 * n, dtype=np.bool_),
        floor=1e-6,
        max_tokens=20,
    )


def test_noise_larger_than_the_effect_fails_on_the_data_and_asks_for_data_without() -> None:
    noise = 0.6 * np.random.default_rng(1).standard_normal(800)
    on_data = judge(reference(own=True), reference(own=True).tuned + noise, margin=0.1)
    assert (on_data.verdict, on_data.cause) == (Verdict.FAIL, "other weights")
    general = judge(reference(own=False), reference(own=False).tuned + noise, margin=0.1)
    assert general.verdict is Verdict.INCONCLUSIVE
    assert "give --data with what it was trained on" in general.remedy


def test_an_adapter_that_does_nothing_here_is_inconclusive() -> None:
    taken = reference(own=True, effect=1e-7)
    found = judge(taken, taken.tuned, margin=0.1)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "nothing could be lost" in found.message


def test_a_server_that_leaves_tokens_out_is_skipped_by_name() -> None:
    taken = reference(own=True)
    seen = taken.tuned.copy()
    seen[[3, 9]] = np.nan
    found = judge(taken, seen, margin=0.1)
    assert found.verdict is Verdict.SKIP
    assert "no log-prob for 2 of 800 tokens" in found.message
    assert "llama.cpp" in found.remedy


def test_a_model_whose_numbers_are_none_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    open_backend(base_of("llama"), adapter_of("llama", "qv")).model.merge_and_unload().save_pretrained(tmp_path)
    whole = open_whole(tmp_path, tokenizer=byte_tokenizer(), device="cpu")
    with torch.no_grad():
        next(whole.model.parameters()).fill_(float("nan"))
    config = AdapterConfig(peft_type="LORA", r=4, lora_alpha=8)
    taken = take_reference(backend_of("llama", "qv"), [TextItem("", TEXTS[0], "a", "a")], config, max_tokens=20)
    with pytest.raises(CannotRunError, match=r"no numbers|not finite"):
        observe(whole, taken)
