from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.adapters.config import AdapterConfig, load_config
from dlm_sway.adapters.targets import is_saved_module, is_target

Q0, Q1 = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("settings", "module", "expected"),
    [
        ({"target_modules": ("q_proj",)}, Q0, True),
        ({"target_modules": ("proj",)}, Q0, False),
        ({"target_modules": (Q0,)}, Q0, True),
        ({"target_modules": (Q0,)}, Q1, False),
        ({"target_modules": r".*\.0\..*q_proj"}, Q0, True),
        ({"target_modules": r".*\.0\..*q_proj"}, Q1, False),
        ({"target_modules": "q_proj"}, Q0, False),
        ({"target_modules": "All-Linear"}, Q0, True),
        ({"target_modules": "all-linear"}, "lm_head", False),
        ({"target_modules": "all-linear"}, "model.embed_tokens", False),
        ({"target_modules": None}, Q0, False),
        ({"target_modules": ("q_proj",), "exclude_modules": (Q0,)}, Q0, False),
        ({"target_modules": ("q_proj",), "exclude_modules": r".*\.1\..*"}, Q1, False),
        ({"target_modules": ("q_proj",), "layers_to_transform": (1,)}, Q0, False),
        ({"target_modules": ("q_proj",), "layers_to_transform": (1,)}, Q1, True),
        ({"target_modules": ("q_proj",), "layers_to_transform": (1,), "layers_pattern": ("h",)}, Q1, False),
        ({"target_modules": ("q_proj",), "layers_to_transform": (1,), "layers_pattern": ("layers",)}, Q1, True),
        ({"target_modules": ("lm_head", "q_proj"), "modules_to_save": ("lm_head",)}, "lm_head", False),
    ],
)
def test_targets_match_as_peft_matches_them(settings: dict[str, Any], module: str, expected: bool) -> None:
    assert is_target(AdapterConfig(peft_type="LORA", **settings), module) is expected


@pytest.mark.parametrize("pattern", [None, "", [], "layers", "h"])
def test_layers_are_chosen_as_peft_itself_chooses_them(tmp_path: Path, pattern: Any) -> None:
    peft = pytest.importorskip("peft")
    utils = pytest.importorskip("peft.tuners.tuners_utils")
    fields = {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": pattern}
    theirs = peft.LoraConfig(**fields)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **fields}), encoding="utf-8")
    mine = load_config(tmp_path)
    for module in (Q0, Q1):
        assert is_target(mine, module) is bool(utils.check_target_module_exists(theirs, module))


def test_modules_inside_a_saved_module_are_saved_with_it() -> None:
    config = AdapterConfig(modules_to_save=("score", "lm_head"))
    assert is_saved_module(config, "lm_head")
    assert is_saved_module(config, "score.dense")
    assert is_saved_module(config, "model.score")
    assert not is_saved_module(config, "model.scores")


def test_a_saved_module_is_any_whose_name_ends_so_and_a_target_only_gives_way_at_a_dot() -> None:
    config = AdapterConfig(peft_type="LORA", modules_to_save=("norm",), target_modules=("input_layernorm", "norm"))
    assert is_saved_module(config, "model.layers.0.input_layernorm")
    assert is_saved_module(config, "model.layernorm.dense")
    assert not is_saved_module(config, "model.norms")
    assert is_target(config, "model.layers.0.input_layernorm")
    assert not is_target(config, "model.norm")
