from __future__ import annotations

import pytest

from dlm_sway.adapters.naming import Part, parse_name

Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("suffix", "part"),
    [
        ("lora_A.weight", Part.LORA_A),
        ("lora_B.weight", Part.LORA_B),
        ("lora_B.bias", Part.LORA_B_BIAS),
        ("lora_embedding_A", Part.EMBEDDING_A),
        ("lora_embedding_B", Part.EMBEDDING_B),
        ("lora_magnitude_vector", Part.MAGNITUDE),
        ("lora_magnitude_vector.weight", Part.MAGNITUDE),
        ("token_adapter.trainable_tokens_delta", Part.TOKENS),
        ("trainable_tokens_delta", Part.TOKENS),
        ("ia3_l", Part.OTHER_METHOD),
        ("vera_lambda_b", Part.OTHER_METHOD),
        ("hada_w1_a", Part.OTHER_METHOD),
        ("lokr_w1", Part.OTHER_METHOD),
        ("oft_R.weight", Part.OTHER_METHOD),
        ("lora_E", Part.OTHER_METHOD),
        ("lora_A", Part.OTHER_METHOD),
        ("modules_to_save.default.weight", Part.WRAPPED),
        ("original_module.weight", Part.WRAPPED),
    ],
)
def test_a_saved_name_gives_its_module_and_part(suffix: str, part: Part) -> None:
    key = parse_name(f"base_model.model.{Q}.{suffix}")
    assert (key.module, key.part, key.parameter) == (Q, part, "")


@pytest.mark.parametrize(
    ("path", "module", "part", "parameter"),
    [
        ("lm_head.weight", "lm_head", Part.WHOLE, "lm_head.weight"),
        (f"{Q}.bias", Q, Part.BIAS, f"{Q}.bias"),
        (f"{Q}.base_layer.bias", Q, Part.BIAS, f"{Q}.bias"),
        ("model.embed_tokens.base_layer.weight", "model.embed_tokens", Part.WHOLE, "model.embed_tokens.weight"),
    ],
)
def test_a_parameter_of_the_base_itself_keeps_its_own_name(path: str, module: str, part: Part, parameter: str) -> None:
    key = parse_name(f"base_model.model.{path}")
    assert (key.module, key.part, key.parameter) == (module, part, parameter)


@pytest.mark.parametrize(
    "name",
    [
        f"{Q}.lora_A.weight",
        f"base_model.model.{Q}.lora_A.default.weight",
        "base_model.model.weight",
        "",
        "x",
    ],
)
def test_a_name_that_peft_would_not_load_is_unknown(name: str) -> None:
    assert parse_name(name).part is Part.UNKNOWN


def test_prompts_and_shared_matrices_have_no_module() -> None:
    assert parse_name("prompt_embeddings").part is Part.PROMPT
    assert parse_name("base_model.vera_A").part is Part.OTHER_METHOD
    assert parse_name("base_model.vera_A").module == ""
