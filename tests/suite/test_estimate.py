from __future__ import annotations

from typing import Any

import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.model import ModelSpec
from dlm_sway.probes.base import Env, Pairs, RunContext, build_probe
from dlm_sway.probes.registry import probes
from dlm_sway.suite.estimate import estimate

MODEL = ModelSpec(base="tiny", kind="dummy")
TEXTS = [f"a text of some words number {i}" for i in range(6)]


def _pairs(*raw: dict[str, Any]) -> Pairs:
    return tuple(build_probe(entry) for entry in raw)


def test_more_draws_cost_more_and_shared_rows_are_counted_once() -> None:
    one = {"name": "a", "kind": "target_gain", "items": TEXTS}
    few, many = (estimate(_pairs(one), Env(n_draws=n), MODEL).view_tokens for n in (19, 99))
    assert 2 * few < many
    twice = estimate(_pairs(one, one | {"name": "b"}), Env(n_draws=19), MODEL)
    assert twice.probes[1].view_tokens < twice.probes[0].view_tokens


def test_a_probe_of_two_rounds_is_planned_to_its_end() -> None:
    (cost,) = estimate(_pairs({"name": "d", "kind": "delta_kl", "prompts": TEXTS}), Env(n_draws=19), MODEL).probes
    assert cost.rounds == 2
    assert cost.view_tokens > 19 * 10


def test_without_the_base_there_are_no_seconds() -> None:
    found = estimate(_pairs({"name": "d", "kind": "delta_kl"}), Env(), MODEL)
    assert (found.seconds, found.parameters, found.counted) == (None, None, "characters")
    assert found.gflops > 0


def test_the_estimate_is_near_what_the_engine_does() -> None:
    raw = [{"name": "d", "kind": "delta_kl", "prompts": TEXTS}, {"name": "t", "kind": "target_gain", "items": TEXTS}]
    found = estimate(_pairs(*raw), Env(n_draws=19), MODEL)
    from dlm_sway.probes.drive import drive

    driven = drive(_pairs(*raw), RunContext(DummyBackend(DummyOptions()), n_draws=19, batch_tokens=1 << 20))
    assert 0.3 < found.view_tokens / driven.engine.view_tokens_done < 3


@pytest.mark.parametrize("kind", sorted(kind for kind, cls in probes().items() if cls.needs_model is not False))
def test_no_probe_breaks_on_made_up_answers(kind: str) -> None:
    needed: dict[str, dict[str, Any]] = {
        "adapter_revert": {"cases": [{"prompt": "a", "gold": "b", "paraphrases": ["c", "d"]}]},
        "target_gain": {"items": TEXTS},
        "leakage": {"items": TEXTS},
        "multi_turn_coherence_decay": {"prompts": TEXTS},
        "membership": {"items": TEXTS, "held_out": ["a text of its own"]},
        "section_internalization": {"sections": TEXTS},
        "gradient_alignment": {"items": TEXTS},
        "preference_flip": {"triples": [{"prompt": "p", "chosen": "a", "rejected": "b"}]},
        "paraphrase_invariance": {"cases": [{"prompt": "p", "gold": "a", "paraphrases": ["q", "r"]}]},
        "style_fingerprint": {"reference": "One. Two."},
        "tool_use_fidelity": {
            "cases": [{"prompt": "p"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        },
    }
    raw = {"name": "x", "kind": kind, **needed.get(kind, {})}
    assert estimate(_pairs(raw), Env(), MODEL).view_tokens >= 0
