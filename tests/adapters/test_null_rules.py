import pytest

from dlm_sway.adapters.null_rules import Rule, has_rule_whole, rule_for
from dlm_sway.core.errors import NullRuleError

Q = "base_model.model.model.layers.0.self_attn.q_proj"

RULES = {
    f"{Q}.lora_A.default.weight": Rule.KEEP,
    f"{Q}.lora_A.weight": Rule.KEEP,
    f"{Q}.lora_B.default.weight": Rule.ROTATE_OUTPUT,
    f"{Q}.lora_B.weight": Rule.ROTATE_OUTPUT,
    f"{Q}.lora_B.ia3_like.weight": Rule.ROTATE_OUTPUT,
    f"{Q}.lora_B.default.bias": Rule.SIGN_PERMUTATION,
    f"{Q}.lora_B.bias": Rule.SIGN_PERMUTATION,
    f"{Q}.lora_magnitude_vector": Rule.PERMUTE_MAGNITUDE,
    f"{Q}.lora_magnitude_vector.default": Rule.PERMUTE_MAGNITUDE,
    f"{Q}.lora_magnitude_vector.default.weight": Rule.PERMUTE_MAGNITUDE,
    "base_model.model.model.embed_tokens.lora_embedding_A.default": Rule.KEEP,
    "base_model.model.model.embed_tokens.lora_embedding_A": Rule.KEEP,
    "base_model.model.model.embed_tokens.lora_embedding_B.default": Rule.ROTATE_OUTPUT,
    "base_model.model.model.embed_tokens.lora_embedding_B": Rule.ROTATE_OUTPUT,
    "base_model.model.model.layers.0.mlp.experts.3.w1.lora_B.weight": Rule.ROTATE_OUTPUT,
    f"{Q}.base_layer.bias": Rule.SIGN_PERMUTATION,
    f"{Q}.bias": Rule.SIGN_PERMUTATION,
    "base_model.model.lm_head.modules_to_save.default.weight": Rule.SIGNED_PERMUTATION,
    "base_model.model.lm_head.modules_to_save.prompt_v2.weight": Rule.SIGNED_PERMUTATION,
    "base_model.model.lm_head.modules_to_save.default.bias": Rule.SIGN_PERMUTATION,
    "base_model.model.score.modules_to_save.default.dense.weight": Rule.SIGNED_PERMUTATION,
    "base_model.model.lm_head.weight": Rule.SIGNED_PERMUTATION,
    "model.layers.0.self_attn.q_proj.weight": Rule.SIGNED_PERMUTATION,
    "model.norm.weight": Rule.SIGNED_PERMUTATION,
}

WHOLE = (Rule.SIGNED_PERMUTATION, Rule.SIGN_PERMUTATION)
NO_RULE = (
    f"{Q}.ia3_l.default",
    f"{Q}.ia3_l",
    f"{Q}.vera_lambda_b.default",
    "base_model.vera_A.default",
    f"{Q}.hada_w1_a.default",
    f"{Q}.lokr_w1",
    f"{Q}.oft_R.default.weight",
    f"{Q}.ln_tuning_layers.default.weight",
    f"{Q}.poly_lora_A.default.weight",
    f"{Q}.lora_E.default",
    f"{Q}.lora_A.default",
    f"{Q}.lora_B",
    f"{Q}.lora_A.default.bias",
    f"{Q}.lora_B.default.extra.weight",
    f"{Q}.lora_monteclora_sampler.weight",
    "prompt_embeddings",
    "prompt_encoder.default.embedding.weight",
    "base_model.model.internal_xlora_classifier.layers.0.weight",
    "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
    "base_model.model.model.layers.0.mlp.experts.lora_A.weight",
    "base_model.model.model.layers.0.mlp.experts.base_layer.lora_B.default.weight",
    "base_model.model.model.layers.0.mlp.experts.gate_up_proj",
    "model.layers.0.mixer.A_log",
    "base_model.model.lm_head.modules_to_save.default",
    "base_model.model.lm_head.modules_to_save",
    "lora_A.weight",
    "",
)


@pytest.mark.parametrize("name", RULES)
def test_a_trained_tensor_has_a_rule(name: str) -> None:
    assert rule_for(name) is RULES[name]


@pytest.mark.parametrize("name", NO_RULE)
def test_refuses_a_tensor_without_a_rule_by_name(name: str) -> None:
    with pytest.raises(NullRuleError) as caught:
        rule_for(name)
    assert caught.value.where == name
    assert name in caught.value.one_line()


@pytest.mark.parametrize("name", [*RULES, *NO_RULE])
def test_a_tensor_trained_whole_has_a_rule_where_its_rule_is_one_of_whole_tensors(name: str) -> None:
    assert has_rule_whole(name) is (RULES.get(name) in WHOLE and ".lora_" not in name)
