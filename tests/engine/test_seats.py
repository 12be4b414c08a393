"""Tensors trained whole: which have a stacked form, and that what has none falls back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tests.engine.test_golden import NULLS, SCALES, engine_logprobs, path_of, peft_logprobs
from tests.models import ARCHITECTURES, DENSE, backend_of, base_of, lora, open_backend, save_adapter, save_base
from torch import nn

from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.views import BASE, FINETUNED, View, scaled
from dlm_sway.engine.dense import at_base, dense_forward
from dlm_sway.engine.factors import FactorStore, stack_turns
from dlm_sway.engine.seats import Seats, find_seats
from dlm_sway.engine.sources import ViewwiseSource
from dlm_sway.engine.stacked import agrees, stacked

VIEWS = SCALES + NULLS
NAMES = {"llama": ("model.embed_tokens", "model.norm"), "gpt2": ("transformer.wte", "transformer.ln_f")}


def seats_of(backend: HuggingFaceDifferentialBackend) -> Seats:
    seats = find_seats(backend.model, backend.sites)
    assert seats is not None
    return seats


def in_place(arch: str, folder: Path, *names: str, base: Path | None = None) -> HuggingFaceDifferentialBackend:
    """A backend whose adapter file holds weights under the base's own names."""
    base = base or base_of(arch)
    adapter = save_adapter(base, folder / "adapter", lora(arch))
    file = adapter / "adapter_model.safetensors"
    weights, tensors = load_file(base / "model.safetensors"), load_file(file)
    rng = np.random.default_rng(5)
    for name in names:
        moved = weights[name] + 0.2 * rng.standard_normal(weights[name].shape).astype(np.float32)
        tensors[f"base_model.model.{name}"] = moved
    save_file(tensors, file)
    return open_backend(base, adapter)


def assert_golden(backend: HuggingFaceDifferentialBackend, *, path: str) -> None:
    assert path_of(backend) == path
    expected = peft_logprobs(backend, VIEWS)
    np.testing.assert_allclose(engine_logprobs(backend, VIEWS), expected, atol=1e-4)
    apart = np.abs(expected[:, None] - expected[None]).max(axis=-1)
    assert apart[~np.eye(len(apart), dtype=bool)].min() > 1e-3


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_weights_that_an_adapter_put_into_the_base_are_stacked(arch: str, tmp_path: Path) -> None:
    embedding, norm = NAMES[arch]
    backend = in_place(arch, tmp_path, f"{embedding}.weight", f"{norm}.weight", "lm_head.weight")
    assert len(backend.sites.dense) == 3
    before = {n: p.detach().clone() for n, p in backend.model.named_parameters()}
    assert_golden(backend, path="stacked")
    assert all(torch.equal(p, before[n]) for n, p in backend.model.named_parameters())


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@pytest.mark.parametrize("modules", [["embedding"], ["lm_head"], ["embedding", "lm_head"]])
def test_copies_of_tied_weights_are_stacked(arch: str, modules: list[str], tmp_path: Path) -> None:
    """PEFT copies each module by itself, so the copies are not tied."""
    base = save_base(tmp_path / "base", arch, tie_word_embeddings=True)
    name = NAMES[arch][0].rpartition(".")[2]
    config = lora(arch, modules_to_save=[name if m == "embedding" else m for m in modules])
    assert_golden(open_backend(base, save_adapter(base, tmp_path / "adapter", config)), path="stacked")


def test_a_copy_that_is_tied_itself_goes_view_by_view(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", tie_word_embeddings=True)
    config = lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    assert_golden(open_backend(base, save_adapter(base, tmp_path / "adapter", config)), path="view by view")


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_a_tied_weight_changed_in_the_base_goes_view_by_view(arch: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", arch, tie_word_embeddings=True)
    backend = in_place(arch, tmp_path, f"{NAMES[arch][0]}.weight", base=base)
    assert len(backend.sites.dense) == 1
    assert_golden(backend, path="view by view")


@pytest.mark.parametrize("kind", DENSE)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_what_is_trained_whole_is_stacked(arch: str, kind: str) -> None:
    assert path_of(backend_of(arch, kind)) == "stacked"


def test_a_bias_costs_no_product_of_its_own() -> None:
    seats = seats_of(backend_of("gpt2", "bias-all")).seats
    assert {seat.form for seat in seats} == {"shift"}
    assert len(seats) > 8


def test_weight_and_bias_of_a_norm_move_together() -> None:
    (seat,) = seats_of(backend_of("gpt2", "saved-norm")).seats
    assert (seat.form, set(seat.sites)) == ("norm", {"weight", "bias"})
    perms = [site.turn(View("rotation", seed=4))[0] for site in seat.sites.values()]
    torch.testing.assert_close(*perms)


def test_a_null_of_a_whole_module_keeps_the_size_of_what_it_adds() -> None:
    backend = backend_of("gpt2", "saved-all")
    views = (BASE, FINETUNED, View("rotation", seed=4))
    for seat in seats_of(backend).seats:
        if seat.form != "output" or not isinstance(seat.layer, nn.Embedding):
            continue
        turns = stack_turns(seat.site, views, FactorStore(max_bytes=0))
        y = dense_forward(seat, turns, [])(torch.arange(6).repeat(3, 1)).detach()
        delta = (y[1:] - y[:1]).double()
        torch.testing.assert_close(delta[1].square().sum(-1), delta[0].square().sum(-1), rtol=1e-4, atol=1e-6)
        assert not torch.allclose(delta[0], delta[1])
        return
    pytest.fail("no embedding was found")


@pytest.mark.parametrize("kind", DENSE)
def test_a_broken_tensor_stays_out_of_the_base(kind: str) -> None:
    backend = backend_of("gpt2", kind)
    healthy = engine_logprobs(backend, ())[0]
    kept = [(s.live, s.live.data) for s in backend.sites.dense]
    try:
        for p, data in kept:
            p.data = torch.full_like(data, float("nan"))
        got = engine_logprobs(backend, ())[0]
        with pytest.raises(CannotRunError, match="not finite"):
            engine_logprobs(backend, (FINETUNED,))
        assert path_of(backend) == "stacked"
    finally:
        for p, data in kept:
            p.data = data
    np.testing.assert_allclose(got, healthy, atol=1e-5)


class _Squared(nn.Module):
    """A norm that is not linear in its weight."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight.square() * x


class _Gated(nn.Module):
    """A norm that needs a second input."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return self.weight * x * gate


@pytest.mark.parametrize("norm", [_Squared, _Gated])
def test_a_module_of_another_kind_has_no_stacked_form(norm: Any, tmp_path: Path) -> None:
    backend = in_place("llama", tmp_path, "model.norm.weight")
    core = backend.model.get_base_model().model
    assert find_seats(backend.model, backend.sites) is not None
    core.norm = norm(core.norm.weight)
    assert find_seats(backend.model, backend.sites) is None


def test_a_tensor_read_past_its_module_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of("llama")
    config = lora(modules_to_save=["embed_tokens"])
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", config))
    seats = seats_of(backend)
    assert agrees(backend.model, backend.sites, seats)
    core = backend.model.get_base_model()
    monkeypatch.setattr(core, "lm_head", _Reads(core.model.embed_tokens))
    assert not agrees(backend.model, backend.sites, seats)
    assert path_of(backend) == "view by view"


class _Reads(nn.Module):
    """A head that multiplies with the weight of the embedding."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self._read = lambda: embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self._read().T


def test_norms_of_heads_are_stacked(tmp_path: Path) -> None:
    base = base_of("gemma3")
    adapter = save_adapter(base, tmp_path / "adapter", lora("gemma3", modules_to_save=["q_norm", "k_norm"]))
    assert_golden(open_backend(base, adapter), path="stacked")


def test_turns_are_drawn_once_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from dlm_sway.backends.hf_sites import DenseSite

    drawn: list[View] = []
    turn = DenseSite.turn
    monkeypatch.setattr(DenseSite, "turn", lambda self, view: drawn.append(view) or turn(self, view))
    site = seats_of(backend_of("llama", "saved-head")).seats[0].site
    store = FactorStore(max_bytes=10**6)
    views = (BASE, FINETUNED, View("rotation", seed=1), View("rotation", 0.3, 1))
    first = store.turns([site], views)
    assert store.turns([site], views) is first
    (turns,) = store.turns([site], views[1:])
    assert len(drawn) == 1
    assert turns.rows.tolist() == [0, 1, 2]
    torch.testing.assert_close(turns.scale[2], 0.3 * turns.scale[1])
    per_view = 12 * site.d_out
    assert FactorStore(max_bytes=5 * per_view).views_per_pass((), views, [site]) == 4


def test_an_error_in_a_pass_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    backend = in_place("llama", tmp_path, "model.norm.weight", "lm_head.weight")
    before = {n: p.detach().clone() for n, p in backend.model.named_parameters()}
    with (
        pytest.raises(ZeroDivisionError),
        stacked(backend.sites, (BASE, scaled(0.5)), FactorStore(max_bytes=0), seats_of(backend)),
    ):
        raise ZeroDivisionError
    assert all(torch.equal(p, before[n]) for n, p in backend.model.named_parameters())
    assert not any("forward" in vars(m) for m in backend.model.modules())
    with at_base(seats_of(backend)):
        assert all(torch.equal(s.live, s.original) for s in backend.sites.dense)


@pytest.mark.parametrize("kind", ["saved-all", "bias-all"])
def test_in_bf16_both_paths_agree_as_far_as_bf16_does(kind: str) -> None:
    backend = backend_of("gpt2", kind, "bf16")
    assert path_of(backend) == "stacked"
    got, expected = engine_logprobs(backend, VIEWS), engine_logprobs(backend, VIEWS, ViewwiseSource)
    effect = np.abs(expected[1:] - expected[0]).mean()
    assert np.abs(got - expected).mean() < 0.05 * effect
