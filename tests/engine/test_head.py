"""Stopping a model before its vocabulary."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from types import MethodType
from typing import Any

import pytest
import torch
from tests.models import ARCHITECTURES, backend_of, config_of
from transformers import AutoModelForCausalLM, CohereConfig, GraniteConfig

from dlm_sway.core.views import FINETUNED
from dlm_sway.engine import head as head_module
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.head import Head
from dlm_sway.engine.run import Engine

IDS = torch.arange(3, 24).reshape(3, 7)


def model_of(config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def model(arch: str = "llama") -> Any:
    return model_of(config_of(arch))


def same_as_the_model(head: Head, whole: Any) -> None:
    with torch.inference_mode():
        expected = whole(input_ids=IDS).logits
    torch.testing.assert_close(head.logits(head.hidden(IDS)), expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_both_halves_give_the_logits_of_the_model(arch: str) -> None:
    whole = model(arch)
    head = Head(whole)
    assert head.is_separate
    same_as_the_model(head, whole)
    assert head.hidden(IDS).shape == (3, 7, 32)


@pytest.mark.parametrize(
    "config",
    [
        GraniteConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=1, logits_scaling=8.0),
        CohereConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=1, logit_scale=0.06),
    ],
    ids=["divided", "scaled"],
)
def test_what_an_architecture_does_to_its_logits_is_done(config: Any) -> None:
    config.num_attention_heads = config.num_key_value_heads = 4
    whole = model_of(config)
    head = Head(whole)
    assert head.is_separate
    same_as_the_model(head, whole)


@pytest.fixture
def stubborn() -> Iterator[Any]:
    """A model that triples its logits, and tells nobody."""
    whole = model()
    forward = whole.forward

    def tripled(_: Any, **kwargs: Any) -> Any:
        out = forward(**kwargs)
        out.logits = out.logits * 3
        return out

    whole.forward = MethodType(tripled, whole)
    yield whole
    del whole.forward


def test_a_model_that_does_something_unknown_to_its_logits_is_read_whole(stubborn: Any) -> None:
    head = Head(stubborn)
    assert not head.is_separate
    same_as_the_model(head, stubborn)
    hidden = head.hidden(IDS)[None, 0]  # [V, P, K]
    (block,) = head.blocks(hidden)
    torch.testing.assert_close(block[1], hidden.float())


def test_a_model_that_never_calls_its_projection_is_read_whole() -> None:
    whole = model()
    whole.get_output_embeddings = lambda: torch.nn.Linear(32, 300)
    head = Head(whole)
    assert not head.is_separate
    same_as_the_model(head, whole)


def test_the_vocabulary_is_not_computed_for_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model()
    head = Head(whole)
    read: list[int] = []
    monkeypatch.setattr(whole.lm_head, "forward", lambda x: read.append(x[..., 0].numel()))
    head.hidden(IDS)
    assert read == []


def test_blocks_cover_all_positions_in_order_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head(model())
    hidden = head.hidden(IDS).repeat(1, 5, 1)  # three views of 35 positions
    ((_, whole),) = head.blocks(hidden)
    for n_bytes in (1, 300 * 4 * 3 * 12, 300 * 4 * 3 * 34):
        monkeypatch.setattr(head_module, "BLOCK_BYTES", n_bytes)
        parts = list(head.blocks(hidden))
        assert len(parts) > 1
        assert [i for s, _ in parts for i in range(35)[s]] == list(range(35))
        assert torch.equal(torch.cat([z for _, z in parts], dim=1), whole)


@pytest.mark.parametrize("kind", ["qv", "ia3"])  # stacked, and view by view
def test_no_block_is_kept_while_the_next_is_computed(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(head_module, "BLOCK_BYTES", 1)
    project, before, alive = Head.logits, [], []

    def counted(head: Head, hidden: torch.Tensor) -> torch.Tensor:
        alive.append(sum(ref() is not None for ref in before))
        z = project(head, hidden)
        before.append(weakref.ref(z))
        return z

    monkeypatch.setattr(Head, "logits", counted)
    items = tuple(TextItem("", text, text, text) for text in ("one text of some length", "and another one"))
    Engine(backend_of("llama", kind)).answer([Ask(items, (FINETUNED,), frozenset({"gain", "kl"}), format="raw")])
    assert len(alive) > 2
    assert set(alive) == {0}


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_virtual_tokens_are_cut_off(kind: str) -> None:
    backend = backend_of("llama", kind)
    head = Head(backend.model)
    assert head.hidden(IDS).shape[:2] == IDS.shape
    with torch.inference_mode():
        expected = backend.model(input_ids=IDS).logits[:, -7:]
    torch.testing.assert_close(head.logits(head.hidden(IDS)), expected, atol=1e-5, rtol=1e-5)


def test_no_hook_is_left_behind() -> None:
    whole = model()
    head = Head(whole)
    head.hidden(IDS)
    with pytest.raises(IndexError):
        head.hidden(torch.full((1, 2), 10**6))
    assert not whole.lm_head._forward_pre_hooks
