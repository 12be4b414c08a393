"""What a base says is what mlx_lm is told, under its own names; what it would pass over is refused."""

from __future__ import annotations

from typing import Any

import pytest

from dlm_sway.backends.mlx_config import complete, longest_alike, require_read
from dlm_sway.core.errors import CannotRunError

ASKED = frozenset({"rope_theta", "rope_scaling", "rope_local_base_freq", "sliding_window_pattern", "n_ctx", "head_dim"})


@pytest.mark.parametrize(
    ("resolved", "found"),
    [
        ({"rope_parameters": {"rope_theta": 1e5, "rope_type": "default"}}, {"rope_theta": 1e5}),
        (
            {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0}},
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        ),
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
                },
                "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
            },
            {
                "rope_theta": 1e6,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                "rope_local_base_freq": 1e4,
                "sliding_window_pattern": 6,
            },
        ),
        ({"n_positions": 128, "head_dim": None, "vocab_size": 7}, {"n_ctx": 128}),
        ({"layer_types": ["full_attention"] * 2}, {}),
    ],
)
def test_settings_are_found_under_other_names(resolved: dict[str, Any], found: dict[str, Any]) -> None:
    assert complete({}, resolved, ASKED) == found


def test_what_the_file_says_stays() -> None:
    resolved = {"rope_parameters": {"rope_theta": 1e5}, "head_dim": 64}
    assert complete({"rope_theta": 3.0, "head_dim": None}, resolved, ASKED) == {"head_dim": 64}


@pytest.mark.parametrize(
    ("resolved", "asked", "tied", "message"),
    [
        ({"final_logit_softcapping": 30.0}, [], False, "does not read final_logit_softcapping = 30.0"),
        ({"attention_bias": True, "mlp_bias": True}, [], False, "attention_bias = True, mlp_bias = True"),
        ({"tie_word_embeddings": False}, [], True, "has a head of its own"),
    ],
)
def test_a_setting_that_would_be_lost_is_refused(
    resolved: dict[str, Any], asked: list[str], tied: bool, message: str
) -> None:
    with pytest.raises(CannotRunError, match=message):
        require_read(resolved, asked, tied=tied, where="base")


def test_what_is_read_or_changes_nothing_is_no_obstacle() -> None:
    require_read({"final_logit_softcapping": 30.0}, ["final_logit_softcapping"], tied=False, where="base")
    require_read({"final_logit_softcapping": None, "attention_bias": False}, [], tied=True, where="base")
    require_read({"tie_word_embeddings": False}, [], tied=False, where="base")


ALTERNATING = ["sliding_attention", "full_attention"]


@pytest.mark.parametrize(
    ("resolved", "asked", "longest"),
    [
        ({"sliding_window": 4096}, ["sliding_window", "layer_types"], 4096),  # mistral: every layer, and no list
        ({"sliding_window": 4096, "layer_types": ALTERNATING}, [], 4096),  # gemma2
        ({"sliding_window": 512, "layer_types": ALTERNATING}, ["sliding_window", "sliding_window_pattern"], None),
        ({"sliding_window": 512, "layer_types": ALTERNATING}, ["sliding_window", "layer_types"], None),
        ({"sliding_window": 512, "layer_types": ALTERNATING}, ["text_config"], None),
        ({"sliding_window": 512, "layer_types": ["full_attention"]}, [], None),
        ({"sliding_window": None}, [], None),
        ({}, [], None),
    ],
)
def test_a_text_is_never_longer_than_windows_that_mlx_lm_has_not(
    resolved: dict[str, Any], asked: list[str], longest: int | None
) -> None:
    assert longest_alike(resolved, asked) == longest
