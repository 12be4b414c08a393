from __future__ import annotations

from typing import Any

import numpy as np

from dlm_sway.adapters.checks import inspect_adapter

PREFIX = "base_model.model."


def found(inspection: Any, code: str) -> Any:
    """The one fault of this code."""
    faults = [fault for fault in inspection.faults if fault.code == code]
    assert len(faults) == 1, [fault.code for fault in inspection.faults]
    return faults[0]


def codes(inspection: Any) -> Any:
    return {fault.code for fault in inspection.faults}


def test_an_adapted_embedding_under_tied_weights_is_a_warning(kit: Any, inspected: Any) -> None:
    base = kit.base(kit.weights(tied=True), tie_word_embeddings=True)
    targets = ["q_proj", "v_proj", "up_proj", "down_proj", "embed_tokens"]
    inspection = inspected(kit.tensors() | kit.embedding_factors(), base=base, target_modules=targets)
    assert found(inspection, "tied_weights").tensors == ("model.embed_tokens",)
    assert codes(inspection) == {"tied_weights"}


def test_an_adapted_head_under_tied_weights_is_a_warning(kit: Any, inspected: Any) -> None:
    base = kit.base(kit.weights(tied=True), tie_word_embeddings=True)
    tensors = kit.tensors() | kit.factors("lm_head", (64, 16))
    inspection = inspected(tensors, base=base, target_modules=["q_proj", "v_proj", "up_proj", "down_proj", "lm_head"])
    assert found(inspection, "tied_weights").tensors == ("lm_head",)
    assert codes(inspection) == {"tied_weights"}


def test_a_tokenizer_longer_than_the_embedding_fails(kit: Any) -> None:
    adapter, base = kit.adapter(), kit.base()
    kit.tokenizer(adapter, 66)
    inspection = inspect_adapter(adapter, str(base))
    fault = found(inspection, "tokenizer_too_long")
    assert fault.severity == "fail"
    assert "ids up to 65" in fault.message
    assert "64 rows" in fault.message


def test_a_base_that_ships_a_longer_tokenizer_itself_is_a_warning(kit: Any) -> None:
    inspection = inspect_adapter(kit.adapter(), str(kit.base(n_ids=65)))
    assert found(inspection, "tokenizer_too_long").severity == "warn"


def test_a_resized_embedding_is_a_warning_and_makes_room_for_its_tokenizer(kit: Any) -> None:
    name = f"{PREFIX}model.embed_tokens.weight"
    adapter = kit.adapter(kit.tensors() | {name: np.ones((66, 16), np.float32)}, modules_to_save=["embed_tokens"])
    kit.tokenizer(adapter, 66)
    inspection = inspect_adapter(adapter, str(kit.base()))
    assert codes(inspection) == {"resized_vocabulary"}
    remedy = found(inspection, "resized_vocabulary").remedy
    assert remedy == "save the resized base (model.resize_token_embeddings(66), save_pretrained) and name it as --base"
