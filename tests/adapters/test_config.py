from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.adapters.config import AdapterConfig, load_config
from dlm_sway.core.errors import AdapterError


def _write(folder: Path, text: str) -> Any:
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    return folder


def _load(folder: Path, **values: Any) -> Any:
    return load_config(_write(folder, json.dumps(values)))


def test_unknown_keys_are_ignored_and_known_ones_kept(kit: Any) -> None:
    config = load_config(kit.adapter(use_rslora=True, modules_to_save=["lm_head"], eva_config={"rho": 2.0}))
    assert config.peft_type == "LORA"
    assert config.base_model_name_or_path == "someone/base"
    assert config.r == 4
    assert config.target_modules == ("q_proj", "v_proj", "up_proj", "down_proj")
    assert config.modules_to_save == ("lm_head",)
    assert config.use_rslora


def test_absent_and_null_keys_take_the_defaults_of_peft(tmp_path: Path) -> None:
    assert _load(tmp_path, peft_type="LORA", rank_pattern=None, r=None) == AdapterConfig(peft_type="LORA")


def test_a_missing_or_unknown_type_is_left_to_the_checks(tmp_path: Path) -> None:
    assert _load(tmp_path).peft_type is None
    assert _load(tmp_path, peft_type="lora").peft_type == "LORA"
    assert _load(tmp_path, peft_type="SOMETHING").peft_type == "SOMETHING"


def test_keys_that_mean_something_else_for_other_methods_are_not_read_for_them(tmp_path: Path) -> None:
    config = _load(tmp_path, peft_type="ADALORA", r=0, rank_pattern={"q_proj": [True, False]})
    assert config.r == 8
    assert config.rank_pattern == {}


def test_ranks_and_alphas_follow_the_first_pattern_that_ends_the_name() -> None:
    config = AdapterConfig(
        r=8,
        lora_alpha=16,
        rank_pattern={r"layers\.0\.q_proj": 2, "q_proj": 4, "^model.k_proj": 32},
        alpha_pattern={"v_proj": 64},
    )
    assert config.rank_of("model.layers.0.q_proj") == 2
    assert config.rank_of("model.layers.1.q_proj") == 4
    assert config.rank_of("q_proj") == 4
    assert config.rank_of("model.layers.1.fq_proj") == 8
    assert config.rank_of("q_proj.inner") == 8
    assert config.rank_of("model.k_proj") == 32
    assert config.alpha_of("a.v_proj") == 64
    assert config.alpha_of("a.o_proj") == 16


def test_scale_is_alpha_over_r_and_over_its_root_under_rslora() -> None:
    config = {"r": 16, "lora_alpha": 32, "rank_pattern": {"q_proj": 4}}
    assert AdapterConfig(**config).scale_of("k_proj") == 2
    assert AdapterConfig(**config).scale_of("q_proj") == 8
    assert AdapterConfig(**config, use_rslora=True).scale_of("k_proj") == 8
    assert math.isclose(AdapterConfig(**config, use_rslora=True).scale_of("q_proj"), 16)


def test_target_modules_may_be_names_a_pattern_or_all_linear(tmp_path: Path) -> None:
    assert _load(tmp_path, target_modules=["a", "b"]).target_modules == ("a", "b")
    assert _load(tmp_path, target_modules=r".*\.q_proj").target_modules == r".*\.q_proj"
    assert _load(tmp_path, target_modules="all-linear").target_modules == "all-linear"
    assert _load(tmp_path, layers_to_transform=3, layers_pattern="h").layers_to_transform == (3,)


@pytest.mark.parametrize("nothing", ["", [], None])
def test_an_empty_layers_pattern_is_none_as_peft_reads_it(tmp_path: Path, nothing: Any) -> None:
    assert _load(tmp_path, layers_to_transform=[3], layers_pattern=nothing).layers_pattern == ()
    assert _load(tmp_path, layers_to_transform=[3], layers_pattern="h").layers_pattern == ("h",)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"r": "8"}, "r is '8', not a whole number"),
        ({"r": 0}, "r is 0"),
        ({"r": True}, "r is True"),
        ({"lora_alpha": math.nan}, "lora_alpha is nan"),
        ({"lora_alpha": [1]}, "lora_alpha"),
        ({"use_rslora": "yes"}, "use_rslora"),
        ({"use_dora": 1}, "use_dora"),
        ({"rank_pattern": {"q": 2.5}}, "rank_pattern"),
        ({"rank_pattern": ["q"]}, "rank_pattern"),
        ({"alpha_pattern": {"q": "x"}}, "alpha_pattern"),
        ({"rank_pattern": {"(": 2}}, "no regular expression"),
        ({"target_modules": 3}, "target_modules is 3"),
        ({"target_modules": [1]}, "target_modules"),
        ({"target_modules": "(unclosed"}, "no regular expression"),
        ({"layers_pattern": ["("]}, "no regular expression"),
        ({"layers_to_transform": "0"}, "layers_to_transform"),
        ({"modules_to_save": {"a": 1}}, "modules_to_save"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path"),
        ({"init_lora_weights": 3}, "init_lora_weights"),
        ({"bias": False}, "bias"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(tmp_path: Path, values: Any, words: str) -> None:
    with pytest.raises(AdapterError, match=words) as caught:
        _load(tmp_path, **({"peft_type": "LORA"} | values))
    assert caught.value.where.endswith("adapter_config.json")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{not json", "not valid JSON.*line 1"),
        (b"", "not valid JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[]", "array, not an object"),
        (b"null", "null, not an object"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_config_that_is_no_json_object_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "adapter_config.json").write_bytes(content)
    with pytest.raises(AdapterError, match=words):
        load_config(tmp_path)


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(b'\xef\xbb\xbf{"peft_type": "LORA"}')
    assert load_config(tmp_path).is_lora


def test_a_missing_path_a_file_and_a_directory_that_is_no_adapter_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no such directory"):
        load_config(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(AdapterError, match="not a directory"):
        load_config(tmp_path / "file")
    with pytest.raises(AdapterError, match=r"holds no adapter_config\.json"):
        load_config(tmp_path)


def test_a_path_that_the_system_refuses_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="cannot be read"):
        load_config(tmp_path / ("x" * 5000))


def test_an_adapter_of_mlx_lm_is_not_called_a_broken_one(tmp_path: Path) -> None:
    _write(tmp_path, '{"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}')
    (tmp_path / "adapters.safetensors").write_bytes(b"x")
    with pytest.raises(AdapterError, match="is an adapter of mlx_lm, not of PEFT") as refused:
        load_config(tmp_path)
    assert refused.value.remedy == f"`sway convert {tmp_path} --to peft -o OUT`, or a suite with `kind: mlx`"
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    load_config(tmp_path)  # PEFT's own weights lie there too


@pytest.mark.parametrize("weights", ["model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin"])
def test_a_whole_model_is_called_one_and_has_its_way(tmp_path: Path, weights: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / weights).write_bytes(b"x")
    with pytest.raises(AdapterError, match="it is a whole model: use a suite with `kind: two_model`") as refused:
        load_config(tmp_path)
    assert f"options: {{finetuned: {tmp_path}}}" in (refused.value.remedy or "")


def test_the_remedy_knows_a_whole_model_and_a_folder_of_adapters(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(AdapterError, match="looks like a whole model"):
        load_config(tmp_path)
    (tmp_path / "checkpoint-10").mkdir()
    _write(tmp_path / "checkpoint-10", "{}")
    with pytest.raises(AdapterError, match="checkpoint-10"):
        load_config(tmp_path)
