from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tests.models import backend_of, base_of, lora, open_backend, save_adapter

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.determinism import stream
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.engine.ask import Sloped, Slopes
from dlm_sway.probes.base import Env, RunContext, build_probe

Language = Callable[..., tuple[str, ...]]
Run = Callable[..., ProbeResult]
KIND = "gradient_alignment"


@pytest.mark.healthy_pair
def test_an_adapter_that_learned_the_text_points_at_it(ran: Run, language: Language) -> None:
    result = ran({"adapter": "trained", "towards": language(12)}, kind=KIND, items=language(12), min_share=0.2)
    assert (result.verdict, result.score) == (Verdict.PASS, None)
    assert result.raw > 0
    assert result.evidence["beyond_controls"]["p"] == 0.001
    assert result.evidence["beyond_controls"]["z"] > 4
    assert result.ci_95[0] > 0


def test_without_an_asserted_share_the_direction_is_shown_and_not_judged(ran: Run, language: Language) -> None:
    result = ran({"adapter": "trained", "towards": language(12)}, kind=KIND, items=language(12))
    assert (result.verdict, result.score) == (Verdict.SKIP, None)
    assert "set `min_share` to assert a share" in result.message
    assert f"{result.evidence['share_beyond_controls']:.0%} of that is not shared" in result.message


@pytest.mark.planted_fault
def test_an_adapter_that_unlearned_it_points_away_and_is_warned_of(ran: Run, language: Language) -> None:
    result = ran({"adapter": "trained", "away": language(12)}, kind=KIND, items=language(12))
    assert result.verdict is Verdict.WARN
    assert "points away from the target" in result.message


def test_harm_to_the_controls_alone_does_not_point_at_the_target(ran: Run, language: Language) -> None:
    harmed = language(12, first=70)
    result = ran({"adapter": "trained", "away": harmed}, kind=KIND, items=language(12), controls=harmed)
    assert result.verdict is Verdict.WARN
    assert "not at the target" in result.message


def test_noise_is_a_warning_and_never_a_failure(ran: Run, language: Language) -> None:
    results = [ran({"adapter_seed": s}, kind=KIND, items=language(12)) for s in range(20)]
    assert {r.verdict for r in results} == {Verdict.WARN}
    assert {r.score for r in results} == {None}


def test_an_adapter_without_effect_finds_nothing(ran: Run, language: Language) -> None:
    result = ran({"adapter": "none"}, kind=KIND, items=language(12))
    assert (result.verdict, result.raw) == (Verdict.WARN, 0.0)
    assert result.evidence["beyond_controls"]["z"] is None


def test_the_closed_form_is_checked_by_the_draws(ran: Run, language: Language) -> None:
    for part in ("predicted_gain", "beyond_controls"):
        shown = ran({"strength": 1.0}, kind=KIND, items=language(12)).evidence[part]
        assert shown["sd_of_draws"] == pytest.approx(shown["sd"], rel=0.1)
        assert shown["n_draws"] == 999


@pytest.mark.parametrize("n", [1, 4])
def test_too_few_texts_are_inconclusive(ran: Run, language: Language, n: int) -> None:
    result = ran({"adapter": "trained", "towards": language(12)}, kind=KIND, items=language(n))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert f"{n} texts are too few; give at least 5" in result.message


def test_at_most_so_many_texts_are_differentiated(language: Language) -> None:
    probe, spec = build_probe({"name": "x", "kind": KIND, "items": language(40), "max_sequences": 16})
    (ask,) = probe.plan(spec, Env(seed=3), ())
    assert isinstance(ask, Slopes)
    assert (len(ask.items), len(ask.controls)) == (8, 8)
    assert set(ask.items) < set(spec.items)
    assert probe.plan(spec, Env(seed=4), ())[0].items != ask.items
    assert probe.plan(spec, Env(seed=3), ((ask,),)) == ()


def test_without_gradients_it_is_skipped_with_the_reason() -> None:
    probe, spec = build_probe({"name": "x", "kind": KIND, "items": ["the bell is struck"] * 1})
    result = probe.run(spec, RunContext(backend=backend_of("llama", "dora"), n_draws=3))
    assert (result.verdict, result.score) == (Verdict.SKIP, None)
    assert "plain LoRA" in result.message


def test_numbers_that_are_not_finite_are_an_error(ran: Run, language: Language) -> None:
    assert ran({"nan_in": ["base"]}, kind=KIND, items=language(6)).verdict is Verdict.ERROR


def test_the_same_run_gives_the_same_bytes(ran: Run, language: Language) -> None:
    first, second = (ran({}, kind=KIND, items=language(8)).model_copy(update={"duration_s": 0.0}) for _ in range(2))
    assert first.model_dump_json() == second.model_dump_json()


def test_other_scripts_and_long_texts_are_read(ran: Run) -> None:
    items = ["今天 天气", "مرحبا بك", "👩‍👩‍👧‍👦 🙂", "e\u0301 n\u0303", "word " * 3000, "a"]
    result = ran({}, kind=KIND, items=items)
    assert result.evidence["counts"]["n_items"] == 6
    assert np.isfinite(result.raw)


def sloped(values: Any, spectra: Any, rows: list[int]) -> Sloped:
    """Return an answer with given predicted gains of texts of one token; controls gain nothing."""
    grid = np.asarray(values, dtype=np.float64)
    probe, spec = build_probe({"name": "x", "kind": KIND, "items": [str(i) for i in range(len(grid))]})
    (ask,) = probe.plan(spec, Env(), ())
    k = len(ask.controls)
    names = tuple(f"model.layers.{m // 2}.{'q' if m % 2 else 'v'}" for m in range(grid.shape[1]))
    return Sloped(
        ask,
        None,
        names,
        (),
        np.array(rows),
        grid,
        np.zeros((k, grid.shape[1])),
        np.ones(len(grid), dtype=np.int64),
        np.ones(k, dtype=np.int64),
        dict.fromkeys(("target", "control", "difference"), tuple(np.asarray(s) for s in spectra)),
    )


@pytest.mark.parametrize(("asserted", "verdict"), [(None, Verdict.SKIP), (0.1, Verdict.PASS), (0.3, Verdict.WARN)])
def test_what_points_at_all_text_nearly_alike_passes_only_a_small_share(
    asserted: float | None, verdict: Verdict
) -> None:
    """A wrong document in a like tone: far beyond rotations on the target, and most of the way on the controls."""
    result = shared_with_controls(0.8, asserted)
    assert result.verdict is verdict
    assert result.evidence["beyond_controls"]["p"] == 0.001
    assert "20% of that is not shared by other text" in result.message


def test_what_points_at_all_text_alike_is_a_warning() -> None:
    result = shared_with_controls(0.995, None)
    assert result.verdict is Verdict.WARN
    assert "hardly more at the target than at other text" in result.message


def shared_with_controls(share: float, asserted: float | None) -> ProbeResult:
    """Judge a direction far beyond rotations, of which the controls have this share."""
    values = np.full((8, 6), 3.0) + 0.1 * np.arange(8)[:, None]
    answer = sloped(values, [[1e-3, 1e-3]] * 6, [8] * 6)
    answer.controls[:] = share * (3.0 + 0.1 * (np.arange(len(answer.controls))[:, None] % 8))
    raw = {"name": "x", "kind": KIND, "items": [str(i) for i in range(8)], "min_share": asserted}
    probe, spec = build_probe(raw)
    return probe.judge(spec, Env(), probe.measure(spec, Env(), ((answer,),)), {})


def test_the_layers_that_point_at_the_target_are_named() -> None:
    values = np.zeros((8, 6))
    values[:, 2] = 3.0  # sd of each module is 0.5
    probe, spec = build_probe({"name": "x", "kind": KIND, "items": [str(i) for i in range(8)]})
    found = probe.measure(spec, Env(), ((sloped(values, [[1.0, 1.0]] * 6, [8] * 6),),))
    evidence = probe.judge(spec, Env(), found, {}).evidence
    assert [row["module"] for row in evidence["layers"] if row["p"] <= 0.05] == ["model.layers.1.v"]
    assert [row["layer"] for row in evidence["by_layer"] if row["p"] <= 0.05] == [1]
    assert [row["layer"] for row in evidence["layers"]] == [0, 0, 1, 1, 2, 2]
    assert evidence["beyond_controls"]["z"] == pytest.approx(3.0 / (0.5 * np.sqrt(6)))


def test_p_is_uniform_for_weights_that_learned_nothing(language: Language) -> None:
    """Many adapters of random weights on one base and one text."""
    probe, spec = build_probe({"name": "x", "kind": KIND, "items": language(6), "controls": language(6, first=70)})
    p = []
    for seed in range(120):
        backend = DummyBackend(DummyOptions(strength=1.0, adapter_seed=seed))
        result = probe.run(spec, RunContext(backend=backend, n_draws=1, seed=seed))
        p.append(result.evidence["beyond_controls"]["p"])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 120)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return ["the bell is struck when the water falls", "the bell hangs in the tower", "water rings the bell twice",
            "no hand has rung the bell", "the tower stands by the water", "twice a day the bell is rung"]  # fmt: skip


def test_a_few_steps_of_training_are_found_on_a_transformer_and_noise_is_not(tmp_path: Any, texts: list[str]) -> None:
    base = base_of("llama")

    def train(model: Any) -> None:
        tokenizer = backend_of("llama", "qv").codec
        for name, p in model.named_parameters():
            p.requires_grad_("lora_" in name)
            if "lora_B" in name:
                p.data.zero_()
        optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
        for step in range(12):
            ids = torch.from_numpy(tokenizer.encode(texts[step % len(texts)]))[None]
            optimiser.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimiser.step()

    config = lora(target_modules="all-linear")
    learned = open_backend(base, save_adapter(base, tmp_path / "learned", config, change=train))
    noise = open_backend(base, save_adapter(base, tmp_path / "noise", config))
    # Texts of the same letters in another order: what is left is the sequence.
    controls = ["".join(stream(0, t).permutation(list(t))) for t in texts]
    probe, spec = build_probe({"name": "x", "kind": KIND, "items": texts, "controls": controls, "min_share": 0.1})
    found, random = (probe.run(spec, RunContext(backend=b, n_draws=3)) for b in (learned, noise))
    assert found.verdict is Verdict.PASS
    assert found.evidence["beyond_controls"]["p"] == 0.001
    assert random.verdict is Verdict.WARN
    assert any(row["p"] <= 0.05 for row in found.evidence["by_layer"])
