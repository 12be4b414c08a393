"""Every architecture with every kind of adapter: the engine gives what PEFT gives one view and one text at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.models import ARCHITECTURES, NO_NULL, STACKED, VIEW_BY_VIEW, backend_of, base_of
from transformers import AutoModelForCausalLM

from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.core.errors import CannotRunError, NullRuleError
from dlm_sway.core.views import BASE, FINETUNED, View, rotations, scaled, top_ranks
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.run import Engine
from dlm_sway.engine.sources import ViewwiseSource

TEXTS = ("the bell is struck when the water falls", "a", "below the line of the bell", "Ebbe und Flut: 潮")
SCALES = (FINETUNED, scaled(0.3), scaled(1.25))
NULLS = (
    *rotations(seed=3, n_draws=2),
    View("rotation", lam=0.3, seed=3, draw=1),
    View("rotation", seed=3, rank_scale=0.5),
    View("rotation", seed=3, rank_scale=2.0),
    View("sign_flip", seed=3),
    View("gaussian", seed=3, init_scale=0.1),
)
CUTS = (*top_ranks((0.25, 0.5, 0.75)), *top_ranks((0.5,), lam=0.3))
UNSCALED = ("dora-embedding", "ia3", "prompt", "prefix")


def engine_logprobs(backend: Any, views: tuple[View, ...], source: Any = None) -> np.ndarray:
    """Log-probs of the base and the views, [1 + V, P]."""
    engine = Engine(backend)
    if source is not None:
        with engine.opened():
            engine._source = source(backend)
    items = tuple(TextItem("", text, str(i), str(i)) for i, text in enumerate(TEXTS))
    (scores,) = engine.answer([Ask(items, views, frozenset({"gain"}), format="raw")])
    return scores.base_logprob + np.vstack([np.zeros_like(scores.base_logprob), scores.values["gain"]])


def peft_logprobs(backend: HuggingFaceDifferentialBackend, views: tuple[View, ...]) -> np.ndarray:
    rows = []
    for view in (BASE, *views):
        with backend.view(view) as opened:
            rows.append(np.concatenate([opened.rolling_logprob(text).logprobs for text in TEXTS]))
    return np.stack(rows)


def path_of(backend: Any) -> str:
    engine = Engine(backend)
    with engine.opened():
        return engine.path


@pytest.mark.parametrize("kind", [*STACKED, *VIEW_BY_VIEW])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_engine_gives_what_peft_gives_one_view_at_a_time(arch: str, kind: str) -> None:
    backend = backend_of(arch, kind)
    got, expected = engine_logprobs(backend, SCALES + NULLS), peft_logprobs(backend, SCALES + NULLS)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    apart = np.abs(expected[:, None] - expected[None]).max(axis=-1)
    assert apart[~np.eye(len(apart), dtype=bool)].min() > 1e-2  # or two views could be mixed up unseen


@pytest.mark.parametrize("kind", NO_NULL)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_an_adapter_without_a_null_is_scored_and_its_nulls_are_refused(arch: str, kind: str) -> None:
    backend = backend_of(arch, kind)
    views = (FINETUNED,) if kind in UNSCALED else SCALES
    np.testing.assert_allclose(engine_logprobs(backend, views), peft_logprobs(backend, views), atol=1e-4)
    assert backend.null_refusal()
    with pytest.raises(NullRuleError, match=r"lora_|init_lora_weights|ia3_l|prompt_encoder"):
        engine_logprobs(backend, NULLS[:1])


@pytest.mark.parametrize("kind", UNSCALED)
def test_an_adapter_without_a_scale_says_so(kind: str) -> None:
    with pytest.raises(CannotRunError, match="cannot be scaled"):
        engine_logprobs(backend_of("llama", kind), (scaled(0.5),))


@pytest.mark.parametrize("arch", ["gpt2", "gemma3"])
@pytest.mark.parametrize("kind", STACKED)
def test_what_is_stacked_gives_the_same_view_by_view(arch: str, kind: str) -> None:
    backend = backend_of(arch, kind)
    assert path_of(backend) == "stacked"
    views = SCALES + NULLS
    np.testing.assert_allclose(
        engine_logprobs(backend, views), engine_logprobs(backend, views, ViewwiseSource), atol=1e-4
    )


@pytest.mark.parametrize("arch", ["gpt2", "qwen2"])
@pytest.mark.parametrize("kind", ["qv", "all-linear", "rslora", "ranks", "embedding", "lm_head"])
def test_cuts_ride_with_nulls_and_are_what_one_view_alone_gives(arch: str, kind: str) -> None:
    backend = backend_of(arch, kind)
    views = (FINETUNED, *CUTS, *NULLS[:1])
    got, expected = engine_logprobs(backend, views), peft_logprobs(backend, views)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    np.testing.assert_allclose(got, engine_logprobs(backend, views, ViewwiseSource), atol=1e-4)
    assert (np.abs(got[2:5] - got[1]).max(axis=1) > 1e-3).all()
    whole = engine_logprobs(backend, (FINETUNED, View("top_rank")))
    np.testing.assert_array_equal(whole[1], whole[2])


@pytest.mark.parametrize(
    "kind", ["dora", "saved-head", "saved-norm", "dora-bias", "lora-bias", "pissa", "ia3", "prompt"]
)
def test_what_has_no_rank_is_not_cut(kind: str) -> None:
    backend = backend_of("qwen2", kind)
    assert backend.cut_refusal()
    for source in (None, ViewwiseSource):
        with pytest.raises(CannotRunError, match="cannot be cut to its largest directions"):
            engine_logprobs(backend, CUTS[:1], source)


def test_the_spectrum_of_each_module_has_its_scale() -> None:
    backend = backend_of("qwen2", "ranks")
    assert backend.cut_refusal() is None
    for site in backend.sites.low_rank:
        found = backend.spectra()[site.name]
        whole = np.linalg.svd((site.scaling * site.b @ site.a).detach().numpy(), compute_uv=False)
        rank = min(site.a.shape[0], *whole.shape)
        np.testing.assert_allclose(found.spectrum.singular_values, whole[:rank], rtol=1e-4)
        assert found.d_out == site.b.shape[0]


@pytest.mark.parametrize("kind", [*VIEW_BY_VIEW, *NO_NULL])
def test_what_has_no_stacked_form_goes_view_by_view(kind: str) -> None:
    assert path_of(backend_of("gpt2", kind)) == "view by view"


@pytest.mark.parametrize("kind", [*STACKED, *VIEW_BY_VIEW, *NO_NULL])
@pytest.mark.parametrize("arch", ["gpt2", "qwen2"])
def test_the_base_is_the_model_without_peft(arch: str, kind: str) -> None:
    """PEFT's own way to switch an adapter off leaves trained biases, and weights that PiSSA changed."""
    backend = backend_of(arch, kind)
    plain = AutoModelForCausalLM.from_pretrained(base_of(arch), dtype=torch.float32)
    expected = []
    for text in TEXTS:
        ids = torch.from_numpy(backend.codec.encode(text))[None]
        with torch.inference_mode():
            logp = plain(input_ids=ids).logits[0, :-1].log_softmax(-1)
        expected.append(logp.gather(1, ids[0, 1:, None])[:, 0].numpy())
    np.testing.assert_allclose(engine_logprobs(backend, ())[0], np.concatenate(expected), atol=1e-5)


@pytest.mark.parametrize("kind", ["qv", "dora", "embedding", "saved-norm"])
def test_in_bf16_both_ways_agree_as_far_as_bf16_does(kind: str) -> None:
    backend = backend_of("llama", kind, "bf16")
    views = (*SCALES, *NULLS[:2])
    got, expected = engine_logprobs(backend, views), peft_logprobs(backend, views)
    effect = np.abs(expected[1:] - expected[0]).mean()
    assert np.abs(got - expected).max() < 0.15
    assert np.abs(got - expected).mean() < 0.05 * effect


@pytest.mark.parametrize("kind", ["all-linear", "saved-head"])
def test_the_adapter_is_there_bit_for_bit_after_the_engine(kind: str) -> None:
    backend = backend_of("llama", kind)
    before = {n: p.detach().clone() for n, p in backend.model.named_parameters()}
    tuned = peft_logprobs(backend, (FINETUNED,))
    engine_logprobs(backend, SCALES + NULLS)
    assert all(torch.equal(p, before[n]) for n, p in backend.model.named_parameters())
    assert not any("forward" in vars(m) for m in backend.model.modules())
    np.testing.assert_array_equal(peft_logprobs(backend, (FINETUNED,)), tuned)
