"""What probes record of their items is enough to compare two fine-tunes; on a dummy in the place of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.result import SuiteResult
from dlm_sway.probes.base import RunContext, build_probe
from dlm_sway.probes.drive import drive
from dlm_sway.suite.compare import compare
from dlm_sway.suite.compare_result import Comparison

Language = Callable[..., tuple[str, ...]]


def _suite(name: str, specs: list[dict[str, Any]], **options: Any) -> SuiteResult:
    backend = DummyBackend(DummyOptions(**options))
    pairs = tuple(build_probe({"name": spec["kind"], **spec}) for spec in specs)
    driven = drive(pairs, RunContext(backend=backend, n_draws=19, batch_tokens=1 << 20))
    return SuiteResult(base="b", adapter=name, probes=driven.results)


@pytest.fixture(scope="module")
def found(language: Language) -> Comparison:
    """Compare an adapter that learned a little with one that learned more, on probes of every sort of record."""
    texts = language(52)
    items, held, learned = list(texts[:20]), list(texts[20:40]), texts[40:]
    halves = [text.split() for text in items]
    cases = [
        {"prompt": " ".join(w[:6]), "gold": " ".join(w[6:]), "paraphrases": [" ".join(w[:5]), " ".join(w[1:6])]}
        for w in halves
    ]
    triples = [{"prompt": " ".join(w[:6]), "chosen": " ".join(w[6:12]), "rejected": " ".join(w[12:18])} for w in halves]
    facts = [
        {"prompt": " ".join(w[:6]), "options": [" ".join(w[6:9]), " ".join(w[9:12])], "answer": " ".join(w[6:9])}
        for w in halves
    ]
    specs: list[dict[str, Any]] = [
        {"kind": "delta_kl", "prompts": items},
        {"kind": "target_gain", "items": items, "held_out": held},
        {"kind": "external_perplexity", "passages": held},
        {"kind": "leakage", "items": items, "given": 4, "scored": 16},
        {"kind": "calibration_drift", "facts": facts},
        {"kind": "preference_flip", "triples": triples},
        {"kind": "paraphrase_invariance", "cases": cases},
        {"kind": "section_internalization", "sections": items},
    ]
    made = [
        _suite(name, specs, adapter="trained", towards=learned, strength=strength)
        for name, strength in (("little", 0.5), ("more", 2.0))
    ]
    return compare(*made)


def test_every_probe_of_log_probs_is_paired_on_its_items(found: Comparison) -> None:
    paired = {(c.probe, c.claim): c for c in found.contrasts if c.paired}
    assert set(paired) >= {
        ("delta_kl", "applied"),
        ("target_gain", "on_target"),
        ("target_gain", "generalises"),
        ("external_perplexity", "no_harm"),
        ("calibration_drift", "calibration"),
        ("preference_flip", "prefers"),
        ("paraphrase_invariance", "in_other_words"),
        ("section_internalization", "took"),
    }
    assert all(c.n_shared == c.n_reference == c.n_candidate > 0 for c in paired.values())


def test_the_one_that_learned_more_is_better(found: Comparison) -> None:
    outcomes = {(c.probe, c.claim): c.outcome for c in found.contrasts}
    assert outcomes["target_gain", "on_target"] == "better"
    assert outcomes["target_gain", "generalises"] == "better"
    assert outcomes["section_internalization", "took"] == "better"
    assert outcomes["delta_kl", "applied"] == "differs"


def test_a_value_is_the_one_that_the_probe_claims(found: Comparison) -> None:
    rows = {(c.probe, c.claim): c for c in found.contrasts}
    assert rows["target_gain", "on_target"].unit == "nat/token"
    assert rows["external_perplexity", "no_harm"].better == "lower"
    assert rows["external_perplexity", "no_harm"].minimum == 0.05
