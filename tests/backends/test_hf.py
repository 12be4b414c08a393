"""The Hugging Face backend: one view at a time, each what its definition says, and the adapter as it was."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models import adapter_of, backend_of, base_of, lora, open_backend, save_adapter
from transformers import AutoModelForCausalLM

from dlm_sway.adapters import nulls
from dlm_sway.backends.base import BulkBackend
from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.backends.registry import open_backend as open_by_spec
from dlm_sway.core.errors import BadInputError, NullRuleError, ViewError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import BASE, FINETUNED, View, scaled

TEXT = "the bell is struck when the water falls"
ALL_KINDS = ("all-linear", "embedding", "dora", "saved-head", "saved-embedding", "bias-all", "pissa")


@pytest.fixture
def fresh() -> Iterator[HuggingFaceDifferentialBackend]:
    """A backend that a test may close."""
    backend = open_backend(base_of("llama"), adapter_of("llama", "qv"))
    yield backend
    backend.close()


def logprobs(backend: Any, view: View) -> np.ndarray:
    with backend.view(view) as opened:
        return opened.rolling_logprob(TEXT).logprobs


def test_every_pair_of_views_excludes_each_other() -> None:
    backend = backend_of("llama", "qv")
    opens = (backend.as_base, backend.as_finetuned, lambda: backend.as_scaled_adapter(0.5), backend.exclusive)
    opens += (lambda: backend.as_null_adapter(1), lambda: backend.view(View("rotation")))
    for outer in opens:
        for inner in opens:
            with outer(), pytest.raises(ViewError, match=r"another view is open.*leave its with-block first"), inner():
                pass
    assert logprobs(backend, FINETUNED).size


@pytest.mark.parametrize("action", ["logprob_of", "rolling_logprob", "next_token_dist", "generate"])
def test_a_view_answers_nothing_after_its_block(action: str) -> None:
    backend = backend_of("llama", "qv")
    with backend.as_base() as stale:
        pass
    arguments: dict[str, Any] = {
        "logprob_of": (("a", "b"), {}),
        "rolling_logprob": (("ab",), {}),
        "next_token_dist": (("a",), {}),
        "generate": (("a",), {"max_new_tokens": 1}),
    }
    args, kwargs = arguments[action]
    for opened in (backend.as_base, backend.as_finetuned):
        with opened(), pytest.raises(ViewError, match="this view is closed"):
            getattr(stale, action)(*args, **kwargs)


def test_a_closed_backend_refuses_and_closing_twice_is_harmless(fresh: HuggingFaceDifferentialBackend) -> None:
    fresh.close()
    fresh.close()
    for opened in (fresh.as_base, fresh.as_finetuned, fresh.exclusive):
        with pytest.raises(ViewError, match="the backend is closed"), opened():
            pass


def test_closing_inside_a_view_ends_the_view(fresh: HuggingFaceDifferentialBackend) -> None:
    with fresh.as_finetuned() as view:
        fresh.close()
        with pytest.raises(ViewError, match="this view is closed"):
            view.rolling_logprob(TEXT)
    with pytest.raises(ViewError, match="the backend is closed"), fresh.as_base():
        pass


@pytest.mark.parametrize("lam", [math.nan, math.inf, -math.inf])
def test_a_scale_must_be_finite(lam: float) -> None:
    with pytest.raises(ValueError, match="lam must be finite"):
        backend_of("llama", "qv").as_scaled_adapter(lam)


@pytest.mark.parametrize("option", [{"rank_scale": 0.0}, {"rank_scale": math.nan}, {"init_scale": -1.0}])
def test_a_gaussian_null_has_sizes_that_make_sense(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        backend_of("llama", "qv").as_null_adapter(1, **option)


def merged(backend: Any, view: View) -> np.ndarray:
    """Score with a plain model whose weights are W + s lam B' A, from the adapter's file and the nulls' definition."""
    model = AutoModelForCausalLM.from_pretrained(base_of("llama"), dtype=torch.float32)
    stored = load_file(adapter_of("llama", "qv") / "adapter_model.safetensors")
    for key, a in stored.items():
        if "lora_A" not in key:
            continue
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        b = stored[key.replace("lora_A", "lora_B")].numpy()
        draw = {"seed": view.seed, "draw": view.draw, "module": module}
        if view.kind == "rotation":
            b = nulls.rotate_rank(a.numpy(), b, multiplier=view.rank_scale, **draw)[1]
        elif view.kind == "sign_flip":
            b = nulls.sign_flip(a.numpy(), b, **draw)
        elif view.kind == "top_rank":
            u, s, vt = np.linalg.svd(b @ a.numpy(), full_matrices=False)
            k = round(len(a) * view.rank_scale)
            a, b = torch.from_numpy(vt[:k]), u[:, :k] * s[:k]  # noqa: PLW2901 (the two factors of the cut)
        model.get_submodule(module).weight.data += 2.0 * view.lam * torch.from_numpy(b) @ a  # alpha / r = 8 / 4
    ids = torch.from_numpy(backend.codec.encode(TEXT))[None]
    with torch.inference_mode():
        logp = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return logp.gather(1, ids[0, 1:, None])[:, 0].numpy()


@pytest.mark.parametrize(
    "view",
    [
        BASE, FINETUNED, scaled(0.3), scaled(1.25), scaled(-0.5), View("rotation", seed=5, draw=2),
        View("rotation", 0.4, 5, 2), View("rotation", seed=5, rank_scale=2.0), View("sign_flip", seed=5),
        View("top_rank", rank_scale=0.5), View("top_rank", 0.4, rank_scale=0.25),
    ],
    ids=lambda v: f"{v.kind}-{v.lam}-{v.rank_scale}",
)  # fmt: skip
def test_a_view_is_the_model_that_its_definition_makes(view: View) -> None:
    backend = backend_of("llama", "qv")
    np.testing.assert_allclose(logprobs(backend, view), merged(backend, view), atol=1e-4)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_scale_zero_is_the_base_and_scale_one_the_fine_tune(kind: str) -> None:
    backend = backend_of("qwen2", kind)
    np.testing.assert_array_equal(logprobs(backend, scaled(0.0)), logprobs(backend, BASE))
    np.testing.assert_array_equal(logprobs(backend, scaled(1.0)), logprobs(backend, FINETUNED))
    # Between them nothing jumps: a hundredth of the way in is about a hundredth of the way.
    np.testing.assert_allclose(logprobs(backend, scaled(1e-4)), logprobs(backend, BASE), atol=1e-2)
    np.testing.assert_allclose(logprobs(backend, scaled(1 - 1e-4)), logprobs(backend, FINETUNED), atol=1e-2)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("view", [BASE, scaled(0.3), View("rotation", seed=1), View("gaussian", seed=1)], ids=str)
def test_the_adapter_is_back_bit_for_bit_even_after_an_error(kind: str, view: View) -> None:
    backend = backend_of("gpt2", kind)
    before = {n: (p.data_ptr(), p.detach().clone()) for n, p in backend.model.named_parameters()}
    scales = [dict(layer.scaling) for layer in backend.sites.layers]
    error = NullRuleError if kind == "pissa" and view.kind != "adapter" else KeyError

    def stop() -> None:
        with backend.view(view) as opened:
            opened.rolling_logprob(TEXT)
            raise KeyError("stop")

    with pytest.raises(error):
        stop()
    for name, p in backend.model.named_parameters():
        assert p.data_ptr() == before[name][0], name
        assert torch.equal(p, before[name][1]), name
    assert [dict(layer.scaling) for layer in backend.sites.layers] == scales


@pytest.mark.parametrize("kind", ["lora-bias", "pissa", "ia3", "prompt", "prefix"])
def test_an_adapter_without_a_rule_is_refused_with_the_reason(kind: str) -> None:
    backend = backend_of("llama", kind)
    reason = backend.null_refusal()
    assert reason
    for null in (backend.view(View("rotation")), backend.as_null_adapter(1)):
        with pytest.raises(NullRuleError) as caught, null:
            pass
        assert reason in str(caught.value)
    assert logprobs(backend, FINETUNED).size  # the failed attempt left nothing open


def test_an_adapter_with_rules_is_not_refused() -> None:
    for kind in ("qv", "dora", "embedding", "saved-norm", "bias-all"):
        assert backend_of("llama", kind).null_refusal() is None


@pytest.mark.parametrize("broken", ["base", "adapter"])
def test_preflight_names_the_side_that_gives_no_numbers(broken: str, tmp_path: Path) -> None:
    base = Path(shutil.copytree(base_of("llama"), tmp_path / "base"))
    adapter = save_adapter(base, tmp_path / "adapter", lora())
    file, name = {
        "base": (base / "model.safetensors", "model.norm.weight"),
        "adapter": (
            adapter / "adapter_model.safetensors",
            "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
        ),
    }[broken]
    weights = load_file(file)
    weights[name][0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    backend = open_backend(base, adapter)
    ok, reason = backend.preflight_finite_check()
    assert not ok
    assert reason.startswith(f"the {'base' if broken == 'base' else 'fine-tuned'} model gives")
    if broken == "adapter":
        assert np.isfinite(logprobs(backend, BASE)).all()
    assert backend_of("llama", "qv").preflight_finite_check() == (True, "")


def test_it_opens_by_its_kind_and_says_what_it_is() -> None:
    spec = ModelSpec(base=str(base_of("llama")), adapter=adapter_of("llama", "qv"), device="cpu", dtype="fp32")
    backend = open_by_spec(spec)
    assert isinstance(backend, HuggingFaceDifferentialBackend)
    assert isinstance(backend, BulkBackend)
    with backend.as_scaled_adapter(0.25) as view:
        assert view.id == f"{base_of('llama')} + llama-qv [scaled 0.25]"
        view.close()  # the context closes it
        assert view.rolling_logprob(TEXT).logprobs.size
    backend.close()


def test_a_spec_without_an_adapter_is_refused() -> None:
    with pytest.raises(BadInputError, match="no adapter is named"):
        open_by_spec(ModelSpec(base=str(base_of("llama"))))
