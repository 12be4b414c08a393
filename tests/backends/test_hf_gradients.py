"""Gradients by hooks against autograd through PEFT's own factors, on tiny models of several architectures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.models import backend_of

from dlm_sway.backends.base import GradientBackend
from dlm_sway.core.errors import ViewError
from dlm_sway.core.views import BASE, FINETUNED

TEXT = "the bell is struck"


def by_autograd(backend: Any, ids: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Return the gradient with respect to PEFT's own B, all of them zero."""
    kept = [(site.b, site.b.data, site.b.requires_grad) for site in backend.sites.low_rank]
    try:
        for parameter, *_ in kept:
            parameter.data = torch.zeros_like(parameter)
            parameter.requires_grad_()
        logits = backend.model(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0, -len(targets) :]
        picked = torch.log_softmax(logits, dim=1).gather(1, torch.from_numpy(targets)[:, None])
        found = torch.autograd.grad(picked.sum(), [p for p, *_ in kept], allow_unused=True)
        return {s.name: g.numpy() for s, g in zip(backend.sites.low_rank, found, strict=True)}
    finally:
        for parameter, data, needs in kept:
            parameter.data = data
            parameter.requires_grad_(needs)


CASES = (
    *(("llama", kind) for kind in ("all-linear", "embedding", "lm_head")),
    *(("gpt2", "qv"), ("qwen2", "rslora"), ("gemma3", "ranks"), ("gemma3", "embedding")),
)


@pytest.mark.parametrize(("arch", "kind"), CASES)
def test_gradients_are_those_of_the_factors_at_zero(arch: str, kind: str) -> None:
    backend = backend_of(arch, kind)
    pair = backend.codec.encode_pair("the", f" {TEXT}", format="raw")
    ids, first, targets = pair.ids[:-1], pair.start - 1, pair.ids[pair.start :]
    with backend.exclusive():
        found = backend.factor_gradients(ids, first, targets)
    wanted = by_autograd(backend, ids, targets)
    assert set(found) == set(wanted) == set(backend.trained_factors())
    for name, gradient in wanted.items():
        size = float(np.abs(gradient).max())
        np.testing.assert_allclose(found[name], gradient, rtol=1e-4, atol=1e-4 * size)
        assert size > 0


def test_the_slope_is_the_change_of_the_log_prob_for_a_small_scale() -> None:
    backend = backend_of("llama", "all-linear")
    pair = backend.codec.encode_pair("the", f" {TEXT}", format="raw")
    with backend.exclusive():
        slope = backend.factor_gradients(pair.ids[:-1], pair.start - 1, pair.ids[pair.start :])
    predicted = sum(float(np.vdot(slope[name], b)) for name, b in backend.trained_factors().items())
    step = 1e-3
    ends = []
    for lam in (-step, step):
        with backend.as_scaled_adapter(lam) as view:
            ends.append(view.logprob_of("the", f" {TEXT}"))
    assert predicted == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=0.05)


def test_the_model_is_as_it_was_and_keeps_no_gradient() -> None:
    backend = backend_of("llama", "qv")
    pair = backend.codec.encode_pair("", TEXT)
    with backend.view(FINETUNED) as view:
        before = view.logprob_of("", TEXT)
    with backend.exclusive():
        backend.factor_gradients(pair.ids[:-1], 0, pair.ids[1:])
    assert all(p.grad is None for p in backend.model.parameters())
    assert not any(module._forward_hooks for module in backend.model.modules())
    with backend.view(FINETUNED) as view:
        assert view.logprob_of("", TEXT) == before
    with backend.view(BASE) as view:
        assert view.logprob_of("", TEXT) != before


def test_without_the_model_in_hand_nothing_is_differentiated() -> None:
    backend = backend_of("llama", "qv")
    assert isinstance(backend, GradientBackend)
    with pytest.raises(ViewError, match="not held for bulk work"):
        backend.factor_gradients(np.array([0, 1]), 0, np.array([1, 2]))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("dora", "no trained module is a plain LoRA"), ("ia3", "no trained module"), ("pissa", "part of the base")],
)
def test_what_is_not_linear_in_b_is_refused_with_the_reason(kind: str, reason: str) -> None:
    assert reason in (backend_of("llama", kind).gradient_refusal() or "")


def test_what_has_no_part_in_it_is_named() -> None:
    backend = backend_of("llama", "saved-norm")
    assert backend.gradient_refusal() is None
    assert "model.norm.weight" in backend.without_gradient()
    assert not set(backend.trained_factors()) & set(backend.without_gradient())
    assert backend_of("llama", "qv").without_gradient() == ()
