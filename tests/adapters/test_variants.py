from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dlm_sway.adapters.lora import LoraFactors, read_peft_lora
from dlm_sway.adapters.nulls import rotate_output
from dlm_sway.adapters.variants import variant, write_plain
from dlm_sway.core.views import FINETUNED, View, scaled

RNG = np.random.default_rng(0)


def factors(r: int, scale: float) -> LoraFactors:
    a, b = RNG.standard_normal((r, 6)), RNG.standard_normal((5, r))
    return LoraFactors(a.astype(np.float32), b.astype(np.float32), scale)


LORA = {"m.q_proj": factors(3, 2.0), "m.v_proj": factors(1, 0.5)}


@pytest.mark.parametrize("lam", [-0.5, 0.25, 1.0, 1.25])
def test_a_scale_scales_the_change(lam: float) -> None:
    found = variant(LORA, scaled(lam))
    for module, one in LORA.items():
        np.testing.assert_allclose(found[module].delta(), lam * one.delta(), rtol=1e-6)


def test_a_rotation_is_that_of_the_module_and_keeps_its_size() -> None:
    found = variant(LORA, View("rotation", 0.5, seed=3, draw=2))
    for module, one in LORA.items():
        np.testing.assert_array_equal(found[module].b, rotate_output(one.b, seed=3, draw=2, module=module))
        assert np.linalg.norm(found[module].delta()) == pytest.approx(0.5 * np.linalg.norm(one.delta()), rel=1e-5)
        assert not np.allclose(found[module].delta(), 0.5 * one.delta(), atol=0.1)


@pytest.mark.parametrize("view", [View("sign_flip", seed=4), View("gaussian"), View("top_rank", rank_scale=0.4),
                                  View("rotation", rank_scale=0.5)], ids=str)  # fmt: skip
def test_every_kind_is_another_change_and_the_same_again(view: View) -> None:
    one, two = variant(LORA, view), variant(LORA, view)
    np.testing.assert_array_equal(one["m.q_proj"].delta(), two["m.q_proj"].delta())
    assert not np.allclose(one["m.q_proj"].delta(), LORA["m.q_proj"].delta(), atol=1e-3)


def test_a_folder_has_one_rank_and_scale_one_and_the_same_changes(tmp_path: Path) -> None:
    assert write_plain(variant(LORA, FINETUNED), tmp_path / "out", base="some/base") == 3
    found, config = read_peft_lora(tmp_path / "out")
    assert (config.r, config.lora_alpha, config.rank_pattern, config.alpha_pattern) == (3, 3, {}, {})
    for module, one in LORA.items():
        assert found[module].scale == 1.0
        np.testing.assert_allclose(found[module].delta(), one.delta(), rtol=1e-5, atol=1e-6)
