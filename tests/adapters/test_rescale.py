"""An adapter at another scale: what it computes, what comes along, what is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.models import adapter_of, base_of, lora, open_backend, save_adapter

from dlm_sway.adapters.rescale import RECORD, rescale
from dlm_sway.adapters.tensors import read_metadata
from dlm_sway.core.errors import AdapterError, BadInputError, CannotRunError

TEXTS = ("The tidal bell rang twice.", "def f(x): return x", "鐘 🔔")


def _logprobs(adapter: Path, lam: float | None = None, arch: str = "llama") -> np.ndarray:
    backend = open_backend(base_of(arch), adapter)
    try:
        with backend.as_finetuned() if lam is None else backend.as_scaled_adapter(lam) as view:
            return np.concatenate([view.rolling_logprob(text).logprobs for text in TEXTS])
    finally:
        backend.close()


@pytest.mark.parametrize("lam", [0.5, 0.3, 1.25])
@pytest.mark.parametrize("kind", ["qv", "rslora", "ranks", "embedding", "lm_head", "lora-bias", "alora"])
def test_the_new_adapter_computes_what_the_old_one_does_at_that_scale(kind: str, lam: float, tmp_path: Path) -> None:
    source = adapter_of("llama", kind)
    done = rescale(source, lam, tmp_path / "new")
    np.testing.assert_allclose(_logprobs(done.out), _logprobs(source, lam), atol=1e-4)
    assert np.abs(_logprobs(done.out) - _logprobs(source)).max() > 1e-3


def test_peft_loads_it_without_a_word(tmp_path: Path) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    rescale(adapter_of("llama", "qv"), 0.5, tmp_path / "new")
    base = AutoModelForCausalLM.from_pretrained(base_of("llama"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, at any adapter
        model = peft.PeftModel.from_pretrained(base, tmp_path / "new")
    assert {layer.scaling["default"] for layer in model.modules() if hasattr(layer, "lora_A")} == {1.0}  # was 2


def test_no_weight_is_changed_and_the_scale_is_on_record(tmp_path: Path) -> None:
    source = adapter_of("llama", "ranks")
    first = rescale(source, 0.5, tmp_path / "half")
    second = rescale(first.out, 0.5, tmp_path / "quarter")
    assert (second.lam, second.recorded) == (0.5, 0.25)
    assert read_metadata(second.out / "adapter_model.safetensors")[RECORD] == "0.25"
    old, new = (load_file(d / "adapter_model.safetensors") for d in (source, second.out))
    assert old.keys() == new.keys()
    assert all(np.array_equal(old[name], new[name]) for name in old)
    config = json.loads((second.out / "adapter_config.json").read_text())
    assert (config["lora_alpha"], list(config["alpha_pattern"].values())) == (2, [0.75])
    before = json.loads((source / "adapter_config.json").read_text())
    assert {k for k in before if config[k] != before[k]} == {"lora_alpha", "alpha_pattern"}
    assert config.keys() == before.keys()


def test_small_files_come_along_and_a_trainers_state_does_not(kit: Any, tmp_path: Path) -> None:
    source = kit.adapter()
    for name in ("tokenizer.json", "README.md", "chat_template.jinja", "trainer_state.json", "optimizer.pt"):
        (source / name).write_text("x")
    (source / "checkpoint-10").mkdir()
    done = rescale(source, 0.5, tmp_path / "new")
    assert done.copied == ("README.md", "chat_template.jinja", "tokenizer.json")
    names = {p.name for p in done.out.iterdir()}
    assert names == {*done.copied, "adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("dora", "DoRA's magnitudes are scaled against the norms of the base"),
        ("saved-head", "lm_head.weight: stored as the new value"),
        ("saved-norm", r"norm.weight and \d+ more: stored as the new value"),
        ("bias-all", r"bias.* and \d+ more: stored as the new value"),
        ("ia3", "of type IA3, and only LoRA has a scale"),
        ("prompt", "of type PROMPT_TUNING"),
        ("pissa", "init_lora_weights is 'pissa'"),
    ],
)
def test_what_alpha_alone_does_not_scale_is_refused(kind: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=reason):
        rescale(adapter_of("qwen2" if kind == "bias-all" else "llama", kind), 0.5, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_token_rows_trained_whole_are_refused(tmp_path: Path) -> None:
    source = save_adapter(base_of("llama"), tmp_path / "rows", lora(trainable_token_indices=[3, 5]))
    with pytest.raises(AdapterError, match="trainable_tokens_delta: stored as the new value"):
        rescale(source, 0.5, tmp_path / "new")


@pytest.mark.parametrize(
    ("lam", "reason"),
    [(0.0, "at 0 nothing of it is left"), (-0.5, "positive"), (float("nan"), "positive"), (float("inf"), "positive")],
)
def test_a_scale_that_is_none_is_refused(kit: Any, tmp_path: Path, lam: float, reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        rescale(kit.adapter(), lam, tmp_path / "new")


def test_another_adapter_is_replaced_only_by_force(kit: Any) -> None:
    source, other = kit.adapter(), kit.adapter(name="other", r=99)
    with pytest.raises(BadInputError, match="holds an adapter already; give --force"):
        rescale(source, 0.5, other)
    assert json.loads((other / "adapter_config.json").read_text())["r"] == 99
    rescale(source, 0.5, other, force=True)
    assert json.loads((other / "adapter_config.json").read_text())["lora_alpha"] == 4


def test_an_empty_directory_is_filled(kit: Any, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    assert rescale(kit.adapter(), 0.5, tmp_path / "new").out == tmp_path / "new"


def test_nothing_but_an_adapter_is_ever_replaced(kit: Any, tmp_path: Path) -> None:
    source = kit.adapter()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("x")
    (tmp_path / "file").write_text("x")
    refused = {
        source: "would replace the adapter itself",
        tmp_path: "would replace the adapter itself",
        tmp_path / "thesis": "holds something else than an adapter",
        tmp_path / "file": "is a file, not a directory",
        tmp_path / "a" / "b": "is no directory that exists",
    }
    for out, reason in refused.items():
        with pytest.raises(BadInputError, match=reason):
            rescale(source, 0.5, out, force=True)
    assert (tmp_path / "thesis" / "chapter").read_text() == "x"


def test_a_pickle_and_damaged_weights_are_refused(kit: Any, tmp_path: Path) -> None:
    damaged = kit.adapter(b"\x08\x00\x00\x00\x00\x00\x00\x00{}xxxxxx", name="damaged")
    with pytest.raises(AdapterError):
        rescale(damaged, 0.5, tmp_path / "new")
    pickled = kit.adapter(name="pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(AdapterError, match="is a pickle"):
        rescale(pickled, 0.5, tmp_path / "new")


def test_a_disk_that_is_full_leaves_nothing(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = kit.adapter()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlm_sway.adapters.rescale.write_with_metadata", full)
    with pytest.raises(CannotRunError, match="No space left"):
        rescale(source, 0.5, tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == [source.name]


def test_a_record_that_is_no_number_counts_as_none(kit: Any, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    source = kit.adapter()
    save_file(kit.tensors(), source / "adapter_model.safetensors", metadata={RECORD: "\x1b[31mhalf", "format": "pt"})
    done = rescale(source, 0.5, tmp_path / "new")
    assert done.recorded == 0.5
    assert read_metadata(done.out / "adapter_model.safetensors")["format"] == "pt"
