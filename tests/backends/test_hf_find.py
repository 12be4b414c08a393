"""Every trained tensor is found once, with its rule, or refused by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import pytest
import torch
from tests.models import ARCHITECTURES, backend_of, lora, open_backend, save_adapter, save_base
from torch import nn

from dlm_sway.adapters import nulls
from dlm_sway.adapters.config import holds_base
from dlm_sway.backends.hf_find import find_sites, name_in_base, why_blocked
from dlm_sway.backends.hf_overlay import shown
from dlm_sway.core.errors import NullRuleError
from dlm_sway.core.views import BASE, FINETUNED, View, scaled


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["all-linear", "ranks", "embedding", "lm_head", "dora", "saved-head", "bias-all"])
def test_every_adapter_tensor_belongs_to_one_site(arch: str, kind: str) -> None:
    backend = backend_of(arch, kind)
    sites = backend.sites
    claimed = [id(p) for s in sites.low_rank for p in (s.a, s.b)] + [id(s.live) for s in sites.dense]
    claimed += [id(s.magnitude.trained) for s in sites.low_rank if s.magnitude]
    assert len(claimed) == len(set(claimed))
    adapter = {id(p) for n, p in backend.model.named_parameters() if ".default" in n}
    assert adapter <= set(claimed)
    assert sites.unruled == ()


@pytest.mark.parametrize("kind", ["all-linear", "embedding", "saved-head", "bias-all", "pissa"])
def test_sites_are_named_as_in_the_base(kind: str) -> None:
    backend = backend_of("gpt2", kind)
    plain = {name_in_base(n) for n, _ in backend.model.named_parameters() if "lora_" not in n}
    for site in backend.sites.low_rank:
        assert f"{site.name}.weight" in plain or f"{site.name}.original_module.weight" in plain
    for dense in backend.sites.dense:
        assert "base_layer" not in dense.name
        assert not dense.name.startswith("base_model")


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_16", "PiSSA", "olora", "OLoRA", "corda", "loftq", "lora_ga"])
def test_factors_that_hold_a_part_of_the_base_are_refused_by_their_setting(init: str) -> None:
    assert holds_base(init)
    assert why_blocked(SimpleNamespace(init_lora_weights=init)) == (
        f"init_lora_weights is {init!r}, so its factors also hold a part of the base"
    )


@pytest.mark.parametrize("init", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_other_starts_are_not(init: Any) -> None:
    assert why_blocked(SimpleNamespace(init_lora_weights=init)) is None


def test_target_parameters_are_refused() -> None:
    config = SimpleNamespace(init_lora_weights=True, target_parameters=["mlp.experts.gate_up_proj"])
    assert "target_parameters names mlp.experts.gate_up_proj" in str(why_blocked(config))
    assert why_blocked(SimpleNamespace(init_lora_weights=True, target_parameters=[])) is None


class _Convs(nn.Module):
    """Two convolutions, one of them in groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="convs", tie_word_embeddings=False, to_dict=dict)
        self.conv = nn.Conv1d(8, 8, 3, groups=groups, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(x)
        return out


def convolution(groups: int) -> Any:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["conv"], init_lora_weights=False)
    return peft.get_peft_model(_Convs(groups), config).eval()


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT's remark on grouped convolutions
def test_a_grouped_convolution_is_refused_and_a_plain_one_is_turned() -> None:
    grouped = find_sites(convolution(2), base_values={})
    assert grouped.low_rank == ()
    assert "conv.lora_A" in str(grouped.refusal())
    with pytest.raises(NullRuleError, match="conv"):
        grouped.require_rules()
    model = convolution(1)
    (site,) = find_sites(model, base_values={}).low_rank
    assert site.form == "conv"
    a, b = site.draw(View("rotation", seed=1))
    assert (a.shape, b.shape) == (site.a.shape, site.b.shape)
    # A turn keeps what the change does to any input in size: B' = H B with H orthogonal.
    flat = site.b.detach().flatten(1)
    torch.testing.assert_close(b.flatten(1).T @ b.flatten(1), flat.T @ flat, atol=1e-5, rtol=1e-4)
    x = torch.randn(2, 8, 5)
    sites = find_sites(model, base_values={})
    outs = []
    for view in (BASE, FINETUNED, View("rotation", seed=1)):
        with shown(model, sites, view), torch.inference_mode():
            outs.append(model(x))
    assert (outs[2] - outs[0]).norm() == pytest.approx(float((outs[1] - outs[0]).norm()), rel=1e-4)
    assert not torch.allclose(outs[1], outs[2])


class _Bare(nn.Module):
    """What holds parameters of its own, under names and in shapes of which not all tell their outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 6, 3)
        self.inner = nn.Linear(6, 4)
        self.gate_up_proj = nn.Parameter(torch.zeros(3, 8, 6))
        self.A_log = nn.Parameter(torch.zeros(6))
        self.weight = nn.Parameter(torch.zeros(3, 6, 6))
        self.bias = nn.Parameter(torch.zeros(3, 6))


class _Around(_Convs):
    """A model with such a module."""

    def __init__(self) -> None:
        super().__init__(1)
        self.bare = _Bare()


def test_a_tensor_trained_whole_is_turned_only_where_its_outputs_are_known() -> None:
    config = peft.LoraConfig(r=2, target_modules=["conv"], exclude_modules=["bare.conv"], modules_to_save=["bare"])
    model = peft.get_peft_model(_Around(), config).eval()
    sites = find_sites(model, base_values={})
    ruled = {s.name for s in sites.dense if s.ruled}
    assert ruled == {f"bare.{m}.{leaf}" for m in ("conv", "inner") for leaf in ("weight", "bias")}
    bare = {f"bare.{leaf}" for leaf in ("gate_up_proj", "A_log", "weight", "bias")}
    assert set(sites.unruled) == {s.name for s in sites.dense} - ruled == bare
    with pytest.raises(NullRuleError, match=r"no rotation rule for bare\."):
        sites.require_rules()
    assert sites.scale_refusal() is None


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_tied_modules_that_were_trained_together_are_one_tensor(arch: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", arch, tie_word_embeddings=True)
    embedding = {"gpt2": "wte"}.get(arch, "embed_tokens")
    config = lora(arch, modules_to_save=[embedding, "lm_head"])
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", config))
    live = [id(s.live) for s in backend.sites.dense]
    assert len(live) == len(set(live))
    before = [s.live.detach().clone() for s in backend.sites.dense]
    with backend.view(View("rotation", seed=1)):
        for site, was in zip(backend.sites.dense, before, strict=True):
            assert (site.live - site.original).norm() == pytest.approx(float((was - site.original).norm()), rel=1e-4)
    for site, was in zip(backend.sites.dense, before, strict=True):
        assert torch.equal(site.live, was)


@pytest.mark.parametrize(
    ("arch", "modules", "axes"),
    [
        ("llama", ["embed_tokens"], {"model.embed_tokens.weight": 1}),
        ("llama", ["lm_head"], {"lm_head.weight": 0}),
        ("gpt2", ["0.mlp.c_fc"], {"transformer.h.0.mlp.c_fc.weight": 1, "transformer.h.0.mlp.c_fc.bias": 0}),
    ],
)  # fmt: skip
def test_a_trained_module_is_turned_on_its_output_side(
    arch: str, modules: list[str], axes: dict[str, int], tmp_path: Path
) -> None:
    base = save_base(tmp_path / "base", arch)
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", lora(arch, modules_to_save=modules)))
    assert {s.name: s.axis for s in backend.sites.dense} == axes
    view = View("rotation", lam=0.5, seed=4, draw=2)
    for site in backend.sites.dense:
        ((live, turned),) = site.tensors(view)
        delta = (live.detach() - site.original).movedim(site.axis, -1)
        perm, sign = nulls.signed_permutation(delta.shape[-1], seed=4, draw=2, module=site.module)
        expected = site.original + 0.5 * (delta[..., perm] * torch.from_numpy(sign)).movedim(-1, site.axis)
        torch.testing.assert_close(turned, expected)


@pytest.mark.parametrize("kind", ["dora"])
def test_doras_magnitudes_move_with_the_scale_and_are_shuffled_in_nulls(kind: str) -> None:
    site = backend_of("qwen2", kind).sites.low_rank[0]
    magnitude = site.magnitude
    assert magnitude is not None
    base, trained = magnitude.base, magnitude.trained.detach()
    torch.testing.assert_close(base, site.weight().norm(dim=1))
    torch.testing.assert_close(magnitude.at(scaled(0.3), site.name), base + 0.3 * (trained - base))
    moved = magnitude.at(View("rotation", seed=1), site.name) - base
    np.testing.assert_allclose(np.sort(moved.numpy()), np.sort((trained - base).numpy()), atol=1e-6)
    assert not torch.allclose(moved, trained - base)
    torch.testing.assert_close(magnitude.at(View("gaussian", seed=1), site.name), base)


def test_a_part_of_the_model_has_its_own_sites() -> None:
    backend = backend_of("llama", "lm_head")
    head = backend.model.get_base_model().get_output_embeddings()
    assert [s.name for s in backend.sites.within(head).low_rank] == ["lm_head"]
    assert len(backend.sites.within(head).layers) == 1
    assert backend.sites.within(nn.Linear(2, 2)).low_rank == ()
