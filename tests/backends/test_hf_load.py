"""Loading: what is wrong with a base, an adapter or a device is said by name, before anything is scored."""

from __future__ import annotations

import json
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tests.models import (
    adapter_config,
    adapter_of,
    base_of,
    byte_tokenizer,
    lora,
    open_backend,
    save_adapter,
    save_base,
)
from transformers import AutoModelForCausalLM

from dlm_sway.backends import hf_load
from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.backends.hf_load import pick_device, pick_dtype
from dlm_sway.backends.quiet import quiet_peft
from dlm_sway.core.errors import AdapterError, BadInputError, CannotRunError, MissingExtraError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import BASE, FINETUNED, View


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A copy of a base, to be damaged."""
    return Path(shutil.copytree(base_of("llama"), tmp_path / "base"))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A copy of an adapter, to be damaged."""
    return Path(shutil.copytree(adapter_of("llama", "qv"), tmp_path / "adapter"))


def refused(base: Path, adapter: Path, error: type[Exception], match: str, **spec: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        open_backend(base, adapter, **spec)
    assert "\n" not in str(caught.value)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


@pytest.mark.parametrize("name", ["quantum", "cpu:x", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(BadInputError, match="unknown device"):
        pick_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:99", "mps", "xpu"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        with pytest.raises(BadInputError, match=f"device '{name}' is not available here; use --device auto or cpu"):
            pick_device(name)
    else:
        assert pick_device(name).type == name.partition(":")[0]


def test_a_device_that_computes_nothing_is_refused() -> None:
    with pytest.raises(BadInputError, match="computes nothing"):
        pick_device("meta")


def test_auto_is_fp32_on_a_cpu() -> None:
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("bf16", torch.device("cpu")) == torch.bfloat16
    assert pick_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize(("dtype", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_base_is_in_the_dtype_asked_for(dtype: str, expected: torch.dtype) -> None:
    backend = open_backend(base_of("llama"), adapter_of("llama", "qv"), dtype=dtype)
    assert backend.dtype == expected
    assert backend.model.get_base_model().lm_head.weight.dtype == expected


def test_quantising_without_cuda_is_refused(base: Path, adapter: Path) -> None:
    for how in ("4bit", "8bit"):
        refused(base, adapter, CannotRunError, "bitsandbytes needs a CUDA device; drop", quantization=how)


def test_quantising_without_bitsandbytes_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_load, "find_spec", lambda _: None)
    spec = ModelSpec(base="b", quantization="4bit")
    with pytest.raises(MissingExtraError, match="pip install bitsandbytes"):
        hf_load._quantization(spec, torch.device("cuda"))


def test_a_base_that_is_not_there_is_refused(adapter: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", adapter, BadInputError, r"nowhere: .*as --base, in a suite as models\.base\.base$")


def test_a_directory_without_a_model_is_refused(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", adapter, BadInputError, "empty: .*as --base")


def test_a_base_without_a_tokenizer_is_refused(base: Path, adapter: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).unlink()
    refused(base, adapter, BadInputError, "no usable tokenizer")


def test_a_tokenizer_that_is_no_json_is_refused(base: Path, adapter: Path) -> None:
    cut(base / "tokenizer.json")
    refused(base, adapter, BadInputError, "no usable tokenizer")


def test_truncated_weights_of_the_base_are_refused(base: Path, adapter: Path) -> None:
    cut(base / "model.safetensors")
    refused(base, adapter, BadInputError, r"base: the base's weights are damaged.*; download them again")


def test_a_base_that_lacks_a_weight_is_refused(base: Path, adapter: Path) -> None:
    """Transformers would fill in random numbers and mention it in a log."""
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    refused(base, adapter, BadInputError, r"lack 1 of its weights, such as model\.layers\.1\.mlp\.up_proj\.weight")


def test_a_base_of_pickles_is_refused(base: Path, adapter: Path) -> None:
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    refused(base, adapter, BadInputError, "the base cannot be loaded")


def test_an_architecture_that_transformers_does_not_know_is_refused(base: Path, adapter: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"model_type": "perpetuum"}))
    refused(base, adapter, BadInputError, "perpetuum|usable tokenizer")


@pytest.mark.parametrize(
    ("asks", "package"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}, "optimum"),
    ],
)
def test_a_base_that_asks_for_a_package_says_which(
    asks: dict[str, Any], package: str, base: Path, adapter: Path
) -> None:
    if find_spec(package):
        pytest.skip(f"{package} is here")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | asks))
    remedy = "install the package that is named, or name the unquantised base as --base"
    refused(base, adapter, MissingExtraError, rf"base: the base cannot be loaded: .*{package}.*; {remedy}$")


def test_an_adapter_that_is_not_there_is_refused_before_the_base_is_read(tmp_path: Path) -> None:
    refused(tmp_path / "no base", tmp_path / "no adapter", AdapterError, "no adapter: no such directory")


def test_an_adapter_of_pickles_is_refused(base: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    refused(base, adapter, AdapterError, r"pickle, adapter_model\.bin, which can run code; save it again with safe_ser")


def test_an_adapter_without_weights_is_refused(base: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    refused(base, adapter, AdapterError, r"no adapter_model\.safetensors; run: sway inspect")


def test_truncated_weights_of_the_adapter_are_refused(base: Path, adapter: Path) -> None:
    cut(adapter / "adapter_model.safetensors")
    refused(base, adapter, AdapterError, "adapter")


def test_an_adapter_of_another_width_does_not_fit(adapter: Path, tmp_path: Path) -> None:
    wider = save_base(tmp_path / "wider", hidden_size=64)
    refused(wider, adapter, AdapterError, r"the adapter does not fit the base: .*; run: sway inspect")


def test_memory_that_ran_out_is_no_fault_of_the_adapter(
    base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PeftModel, "from_pretrained", full)
    refused(base, adapter, CannotRunError, "base and adapter do not fit into the memory of cpu; use --dtype bf16")


def test_an_adapter_for_modules_that_the_base_lacks_does_not_fit(adapter: Path) -> None:
    refused(base_of("gpt2"), adapter, AdapterError, "the adapter does not fit the base: .*[Tt]arget modules")


def test_replicated_layers_which_peft_leaves_in_the_base_are_refused(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "stack", lora(layer_replication=[[0, 2], [1, 2]]))
    refused(base, adapter, AdapterError, "layer_replication builds layers that the base lacks; .*kind two_model")
    opened = open_backend(base, adapter_of("llama", "qv"))
    with pytest.raises(AdapterError, match="layer_replication"):
        opened.exchange_adapter(adapter)


def test_loading_is_silent(base: Path, adapter: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """PEFT calls a deprecated name of transformers, and transformers shows bars: none of it is for the user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_backend(base, adapter)
    assert [str(w.message) for w in caught if not issubclass(w.category, ResourceWarning | ImportWarning)] == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_that_the_adapter_file_brings_is_no_part_of_the_base(
    arch: str, tied: bool, tmp_path: Path
) -> None:
    """PEFT saves the embedding with an adapter, and loading puts it over the base's."""
    base = save_base(tmp_path / "base", arch, tie_word_embeddings=tied)
    adapter = save_adapter(base, tmp_path / "adapter", lora(arch))
    name, key = ("model.embed_tokens.weight", "base_model.model.model.embed_tokens.weight")
    if arch == "gpt2":
        name, key = "transformer.wte.weight", "base_model.model.transformer.wte.weight"
    rng = torch.Generator().manual_seed(3)
    stored = load_file(adapter / "adapter_model.safetensors")
    original = next(v for n, v in load_file(base / "model.safetensors").items() if n.endswith(name.split(".", 1)[1]))
    stored[key] = original + 0.2 * torch.randn(original.shape, generator=rng)
    plain = open_backend(base, adapter)
    save_file(stored, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    backend = open_backend(base, adapter)
    assert [s.axis for s in backend.sites.dense] == [1]

    def logprobs(of: HuggingFaceDifferentialBackend, opened: Any) -> np.ndarray:
        del of
        with opened as view:
            return view.rolling_logprob("the bell").logprobs

    expected = logprobs(plain, plain.as_base())
    np.testing.assert_allclose(logprobs(backend, backend.as_base()), expected, atol=1e-6)
    assert np.abs(logprobs(backend, backend.as_finetuned()) - logprobs(plain, plain.as_finetuned())).max() > 1e-2


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("saved", [("embed_tokens", "lm_head"), ("embed_tokens",)])
def test_the_copy_of_the_base_that_peft_saves_is_no_part_of_the_base(
    saved: tuple[str, ...], tied: bool, tmp_path: Path
) -> None:
    """PEFT's own save of `modules_to_save` embeddings holds what they were, say with other rows for new tokens."""
    base = save_base(tmp_path / "base", tie_word_embeddings=tied)

    def elsewhere(model: Any) -> None:
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith(".original_module.weight"):
                    p[250:] += 0.5

    options = {"modules_to_save": list(saved), "ensure_weight_tying": tied and len(saved) > 1}
    adapter = save_adapter(base, tmp_path / "adapter", lora(**options), change=elsewhere, save_embedding_layers=True)
    assert any(".original_module." in name for name in load_file(adapter / "adapter_model.safetensors"))
    ids = torch.tensor([[5, 260, 7, 299, 251]])

    def logits(model: Any) -> torch.Tensor:
        with torch.inference_mode():
            return model.eval()(input_ids=ids).logits

    def plain() -> Any:
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)

    def tuned(by: Path) -> Any:
        with quiet_peft():
            return PeftModel.from_pretrained(plain(), by)

    def close(backend: HuggingFaceDifferentialBackend, view: View, expected: Any) -> None:
        with backend.view(view):
            torch.testing.assert_close(logits(backend.model), logits(expected), atol=1e-5, rtol=1e-5)

    backend = open_backend(base, adapter)
    close(backend, BASE, plain())
    close(backend, FINETUNED, tuned(adapter))
    next_adapter = adapter_of("llama", "qv")
    assert backend.exchange_adapter(next_adapter)
    close(backend, BASE, plain())
    close(backend, FINETUNED, tuned(next_adapter))


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_what_an_adapter_takes_out_of_the_base_is_put_back(kind: str, tmp_path: Path) -> None:
    """Loading takes the start of PiSSA and OLoRA out of the base weights; without the adapter they must be whole."""
    base = base_of("llama")
    backend = open_backend(base, save_adapter(base, tmp_path / "a", adapter_config(kind, "llama"), std=0.05))
    assert kind in str(backend.null_refusal())
    weights = load_file(base / "model.safetensors")
    changed = {s.name: s.original for s in backend.sites.dense}
    assert set(changed) == {f"model.layers.{i}.self_attn.{m}_proj.weight" for i in (0, 1) for m in "qv"}
    for name, original in changed.items():
        torch.testing.assert_close(original, weights[name], atol=0, rtol=0)


def test_a_tokenizer_of_any_kind_is_taken_as_it_is(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", tokenizer=byte_tokenizer(bos=False, pad=False))
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", lora()))
    assert backend.codec.prefix_id == 1
    assert backend.codec.max_length == 128
