from __future__ import annotations

import pytest

from dlm_sway.adapters.base_copies import is_copy
from dlm_sway.adapters.config import AdapterConfig
from dlm_sway.adapters.naming import PREFIX, parse_name


@pytest.mark.parametrize(
    ("name", "bias", "expected"),
    [
        ("lm_head.base_layer.weight", "none", True),
        ("lm_head.base_layer.weight", "all", True),
        ("lm_head.base_layer.bias", "none", True),
        ("lm_head.base_layer.bias", "all", False),
        ("lm_head.weight", "none", False),
        ("model.embed_tokens.base_layer.weight", "none", False),
        ("lm_head.lora_A.weight", "none", False),
    ],
)
def test_a_copy_lies_under_factors_and_was_not_trained(name: str, bias: str, *, expected: bool) -> None:
    config = AdapterConfig(peft_type="LORA", bias=bias)
    assert is_copy(parse_name(PREFIX + name), adapted={"lm_head"}, config=config) is expected
