from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models import ARCHITECTURES, backend_of
from transformers import AutoModelForCausalLM, BloomConfig, LlamaConfig, MambaConfig, MistralConfig

from dlm_sway.engine.kv_cache import Rows, continues, left_padded

_SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def inner(arch: str) -> Any:
    return backend_of(arch, "qv").model.get_base_model()


def random_model(config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_attention_models_continue(arch: str) -> None:
    assert continues(inner(arch))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_attention_models_continue_in_16_bits(arch: str) -> None:
    assert continues(backend_of(arch, "qv", "bf16").model.get_base_model())


def test_alibi_models_continue_without_position_ids() -> None:
    assert continues(random_model(BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4)))


def test_models_with_windows_continue() -> None:
    config = MistralConfig(**_SIZES, intermediate_size=48, num_key_value_heads=2, sliding_window=3)
    assert continues(random_model(config))


def test_state_space_models_do_not_continue() -> None:
    config = MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)
    assert not continues(random_model(config))


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
def test_frequencies_that_follow_the_batch_do_not_continue(rope: str) -> None:
    model = random_model(LlamaConfig(**_SIZES, intermediate_size=48))
    assert continues(model)
    model.config.rope_parameters = {"rope_type": rope, "rope_theta": 1e4, "factor": 2.0}
    assert not continues(model)


def test_chunked_attention_does_not_continue() -> None:
    model = random_model(LlamaConfig(**_SIZES, intermediate_size=48))
    model.config.layer_types = ["chunked_attention"] * 2
    assert not continues(model)


def test_a_model_that_ignores_its_mask_does_not_continue() -> None:
    model = random_model(LlamaConfig(**_SIZES, intermediate_size=48))

    def ignore(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "attention_mask": None}

    model.model.register_forward_pre_hook(ignore, with_kwargs=True)
    assert not continues(model)


def test_a_wrapper_that_computes_something_else_does_not_continue() -> None:
    backend = backend_of("llama", "prompt")
    assert continues(inner("llama"))
    assert not continues(backend.model.get_base_model(), whole=backend.model)


def test_what_is_no_transformers_model_does_not_continue() -> None:
    assert not continues(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_rows_may_be_picked_lent_and_read_on_in_any_order(arch: str) -> None:
    """Lending and selecting leave the rows as they were, so they can be used again."""
    model = inner(arch)  # kept for other tests, so not made in the mode whose tensors cannot be trained
    with torch.inference_mode():
        texts = [torch.arange(5, 5 + n) for n in (4, 30, 11)]
        rows = Rows(model)
        ids, mask = left_padded([t[:-2].numpy() for t in texts], torch.device("cpu"))
        model(input_ids=ids, **rows.read(mask))
        alone = [model(input_ids=t[None], use_cache=False).logits[0, -2:] for t in texts]
        for order in ([2, 0, 2, 1], [1], [0, 1, 2]):
            index = torch.tensor(order)
            ids = torch.stack([texts[i][-2:] for i in order])
            lent, kept = rows.lend(index), rows.select(index)
            together = model(input_ids=ids, **lent.read(torch.ones_like(ids))).logits
            steps = [kept.next_logits(ids[:, k : k + 1], torch.ones_like(ids[:, :1])) for k in range(2)]
            expected = torch.stack([alone[i] for i in order])
            assert torch.allclose(together, expected, atol=1e-4)
            assert torch.allclose(torch.stack(steps, 1), expected, atol=1e-4)
            assert kept.lengths is not None
            assert kept.lengths.tolist() == [len(texts[i]) for i in order]
