"""`assert_equivalent`: a merge, another adapter and a server are held against the adapter that was tested."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.chain.made import make
from tests.gguf_models import save_gguf, serving
from tests.models import CHAT, adapter_of, base_of, open_backend

from dlm_sway.core.errors import BadInputError
from dlm_sway.demo.noise import write_twin
from dlm_sway.integrations.equivalent import assert_equivalent

TEXTS = [f"the bell number {i} is struck when the water falls below line {7 * i}" for i in range(12)]


def _merged(out: Path, scale: float) -> Path:
    backend = open_backend(base_of("llama"), adapter_of("llama", "qv"))
    for layer in backend.sites.layers:
        layer.scaling["default"] *= scale
    backend.model.to(torch.float32).merge_and_unload().save_pretrained(out)
    backend.close()
    return out


def _asked(b: Path | str, **more: float) -> float | None:
    return assert_equivalent(base_of("llama"), adapter_of("llama", "qv"), b, TEXTS, device="cpu", **more).effect_left  # type: ignore[arg-type]


def test_a_merge_in_fp32_is_equivalent(tmp_path: Path) -> None:
    assert _asked(_merged(tmp_path / "m", 1.0)) == pytest.approx(1.0, abs=1e-3)


def test_an_adapter_is_equivalent_to_itself() -> None:
    assert _asked(adapter_of("llama", "qv")) == pytest.approx(1.0, abs=1e-6)


def test_a_gguf_file_and_a_server_of_it_are_equivalent(tmp_path: Path) -> None:
    made = make(tmp_path)
    gguf = save_gguf(made.merged(), tmp_path / "merged.gguf", template=CHAT)
    with serving(gguf) as url:
        for b in (gguf, url):
            found = assert_equivalent(made.base, made.adapter, b, TEXTS, device="cpu")
            assert found.effect_left == pytest.approx(1.0, abs=0.01)


def test_a_server_of_the_base_alone_is_not(tmp_path: Path) -> None:
    made = make(tmp_path)
    unlike = pytest.raises(AssertionError, match=r"is not shown to be .*\(fail\).*; adapter not applied")
    with serving(save_gguf(made.base, tmp_path / "base.gguf", template=CHAT)) as url, unlike:
        assert_equivalent(made.base, made.adapter, url, TEXTS, device="cpu")


def test_a_merge_without_alpha_is_not_and_its_cause_is_named(tmp_path: Path) -> None:
    half = _merged(tmp_path / "m", 0.5)
    with pytest.raises(AssertionError, match=r"m is not shown to be .*\(fail\): .* as at scale 0\.50.*; alpha ignored"):
        _asked(half)


def test_another_adapter_of_the_same_size_is_not(tmp_path: Path) -> None:
    twin = write_twin(adapter_of("llama", "qv"), tmp_path / "twin")
    with pytest.raises(AssertionError, match=r"twin is not shown to be .*\(fail\)"):
        _asked(twin)


def test_no_margin_is_so_small_that_a_shift_is_within_it(tmp_path: Path) -> None:
    merged = _merged(tmp_path / "m", 1.0)
    assert _asked(merged, margin=0.5) is not None
    with pytest.raises(AssertionError, match="m is not shown to be"):
        _asked(merged, margin=1e-12)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_texts_are_refused_before_anything_is_loaded(tmp_path: Path, n: int) -> None:
    with pytest.raises(BadInputError, match=f"{n} texts cannot show .*give at least 2"):
        assert_equivalent(tmp_path / "no-base", tmp_path / "no-adapter", tmp_path, TEXTS[:n])


def test_what_is_no_model_is_an_error_and_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(BadInputError):
        _asked(tmp_path / "none")
