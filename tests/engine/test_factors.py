"""The factors of many views: drawn once, shared where they are equal, bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.models import ARCHITECTURES, backend_of, base_of, lora, open_backend, save_adapter

from dlm_sway.adapters import nulls
from dlm_sway.backends.hf_sites import LowRankSite
from dlm_sway.core.views import BASE, FINETUNED, View, rotations, scaled
from dlm_sway.engine.factors import FactorStore, stack_factors
from dlm_sway.engine.stacked import keeps_rows, supported

NULLS = (View("rotation", seed=2), View("rotation", seed=2, rank_scale=0.5), View("sign_flip", seed=2))
GAUSSIAN = View("gaussian", seed=2, init_scale=0.1)


def sites(kind: str = "all-linear", arch: str = "llama") -> tuple[LowRankSite, ...]:
    return backend_of(arch, kind).sites.low_rank


def test_a_draw_is_made_once_whatever_its_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[View] = []
    draw = LowRankSite.draw
    monkeypatch.setattr(LowRankSite, "draw", lambda self, view: drawn.append(view) or draw(self, view))
    store = FactorStore(max_bytes=10**8)
    site = sites()[0]
    for lam in (1.0, 0.25, 0.07):
        for view in (View("rotation", lam=lam, seed=2), View("rotation", lam=lam, seed=2, draw=1)):
            store.get(site, view)
    assert len(drawn) == 2


def test_a_full_store_makes_draws_again_and_never_grows() -> None:
    site = sites()[0]
    size = site.b.numel() * 4
    store = FactorStore(max_bytes=3 * size)
    views = rotations(seed=0, n_draws=9)
    first = [store.get(site, v)[1].clone() for v in views]
    assert sum(b.numel() * 4 for _, b in store._kept.values()) == 3 * size
    for view, b in zip(views, first, strict=True):
        torch.testing.assert_close(store.get(site, view)[1], b, atol=0, rtol=0)


@pytest.mark.parametrize("view", NULLS, ids=lambda v: f"{v.kind}-{v.rank_scale}")
def test_nulls_that_keep_a_share_the_adapters_own(view: View) -> None:
    site = sites()[0]
    a, _ = FactorStore(max_bytes=0).get(site, view)
    assert a.data_ptr() == site.a.data_ptr()
    assert stack_factors(site, (BASE, FINETUNED, *NULLS), FactorStore(max_bytes=0)).a_t.shape == site.a.T.shape


def test_a_null_with_an_a_of_its_own_gives_every_view_its_own() -> None:
    site = sites()[0]
    stack = stack_factors(site, (BASE, FINETUNED, GAUSSIAN), FactorStore(max_bytes=0))
    assert stack.a_t.shape == (3, *site.a.T.shape)
    torch.testing.assert_close(stack.a_t[1], site.a.detach().T)
    assert not torch.equal(stack.a_t[2], stack.a_t[1])


def test_the_stack_is_the_scaled_transpose_and_zero_for_the_base() -> None:
    site = sites("ranks")[0]
    stack = stack_factors(site, (BASE, FINETUNED, scaled(0.3), View("rotation", 0.3, 2)), FactorStore(max_bytes=0))
    b = site.b.detach()
    assert not stack.b_t[0].any()
    torch.testing.assert_close(stack.b_t[1], b.T * site.scaling)
    torch.testing.assert_close(stack.b_t[2], b.T * (site.scaling * 0.3))
    turned = torch.from_numpy(nulls.rotate_output(b.numpy(), seed=2, draw=0, module=site.name))
    torch.testing.assert_close(stack.b_t[3], turned.T * (site.scaling * 0.3))


def test_the_same_views_are_stacked_once_and_another_pass_replaces_them() -> None:
    store = FactorStore(max_bytes=10**8)
    views = (BASE, FINETUNED, *NULLS)
    first = store.stack(sites(), views)
    assert store.stack(sites(), views) is first
    other = store.stack(sites(), views[:2])
    assert other is not first
    assert other[0].b_t.shape[0] == 2


def test_how_many_views_fit_follows_from_the_bytes_they_need() -> None:
    some = sites()
    view_bytes = sum(s.b.numel() * 4 for s in some)
    own_bytes = sum(s.a.numel() * 4 for s in some)
    for n in (1, 2, 7):
        store = FactorStore(max_bytes=view_bytes * (n + 1))
        assert store.views_per_pass(some, (FINETUNED, *NULLS)) == n
        assert store.views_per_pass(some, (FINETUNED, GAUSSIAN)) <= n
    assert FactorStore(max_bytes=(view_bytes + own_bytes) * 4).views_per_pass(some, (GAUSSIAN,)) == 3
    assert FactorStore(max_bytes=1).views_per_pass(some, NULLS) == 1


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_doras_row_norms_are_those_of_the_whole_matrix(arch: str) -> None:
    views = (BASE, FINETUNED, scaled(0.3), scaled(1.25), *NULLS, GAUSSIAN)
    for site in sites("dora", arch):
        stack = stack_factors(site, views, FactorStore(max_bytes=0))
        assert stack.growth is not None
        assert not stack.growth[0].any()
        for v, view in enumerate(views[1:], start=1):
            a, b = (site.a, site.b) if view.kind == "adapter" else site.draw(view)
            whole = site.weight() + site.scaling * view.lam * (b @ a)
            assert site.magnitude is not None
            ratio = (site.magnitude.at(view, site.name) / whole.norm(dim=1)).detach()
            torch.testing.assert_close(stack.growth[v, 0], ratio - 1, atol=1e-5, rtol=1e-4)
            delta = stack.b_t[v].T @ (stack.a_t if stack.a_t.dim() == 2 else stack.a_t[v]).T
            expected = ratio[:, None] * (whole - site.weight()).detach()
            torch.testing.assert_close(delta, expected, atol=1e-5, rtol=1e-3)


def test_a_broken_factor_stays_out_of_the_base() -> None:
    site = sites()[0]
    broken = site.b.data
    try:
        site.b.data = torch.full_like(broken, float("nan"))
        stack = stack_factors(site, (BASE, FINETUNED), FactorStore(max_bytes=0))
    finally:
        site.b.data = broken
    assert not stack.b_t[0].any()
    assert stack.b_t[1].isnan().all()


def test_dora_on_a_quantised_base_has_no_stacked_form(monkeypatch: pytest.MonkeyPatch) -> None:
    dora, plain = backend_of("llama", "dora"), backend_of("llama", "qv")
    assert supported(dora.sites)
    monkeypatch.setattr(LowRankSite, "is_quantised", property(lambda _: True))
    assert not supported(dora.sites)
    assert supported(plain.sites)


class _Router(torch.nn.Module):
    """Sends every other token to the module inside."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        out = flat.clone()
        out[::2] = self.inner(flat[::2])
        return out.reshape(x.shape)


class _TimeFirst(_Router):
    """Shows the module inside time before rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(x.transpose(0, 1)).transpose(0, 1)
        return out


@pytest.mark.parametrize("wrapper", [_Router, _TimeFirst])
def test_a_module_that_does_not_read_rows_in_order_is_found(wrapper: Any, tmp_path: Any) -> None:
    base = base_of("llama")
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", lora(target_modules=["q_proj", "o_proj"])))
    assert keeps_rows(backend.model, backend.sites)
    attention = backend.model.base_model.model.model.layers[0].self_attn
    attention.o_proj = wrapper(attention.o_proj)
    assert not keeps_rows(backend.model, backend.sites)
    assert np.isfinite(backend.sites.low_rank[0].scaling)
