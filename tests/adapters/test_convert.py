"""An adapter in another format: the same change of every weight, there and back, and what cannot be said is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.models import adapter_of, base_of, lora, open_backend, save_adapter, save_base

from dlm_sway.adapters.convert import convert
from dlm_sway.adapters.gguf_lora import read_gguf_lora
from dlm_sway.adapters.gguf_names import names_of
from dlm_sway.adapters.lora import Lora, read_peft_lora
from dlm_sway.core.errors import AdapterError, BadInputError

KINDS = ("qv", "all-linear", "rslora", "ranks", "lm_head")


def assert_same_change(left: Lora, right: Lora) -> None:
    assert list(left) == list(right) or sorted(left) == sorted(right)
    for module, factors in left.items():
        np.testing.assert_allclose(factors.delta(), right[module].delta(), rtol=1e-5, atol=1e-6, err_msg=module)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2", "gemma3"])
@pytest.mark.parametrize("kind", ["all-linear", "rslora", "ranks"])
def test_there_and_back_every_weight_changes_by_the_same(arch: str, kind: str, tmp_path: Path) -> None:
    base, adapter = base_of(arch), adapter_of(arch, kind)
    written = convert(adapter, to="gguf", out=tmp_path / "a.gguf", base=str(base))
    convert(tmp_path / "a.gguf", to="peft", out=tmp_path / "back", base=str(base))
    back, config = read_peft_lora(tmp_path / "back")
    assert_same_change(written, back)
    assert config.base_model_name_or_path == str(base)


def test_a_plain_adapter_comes_back_bit_for_bit(tmp_path: Path) -> None:
    base, adapter = base_of("llama"), adapter_of("llama", "qv")
    convert(adapter, to="gguf", out=tmp_path / "a.gguf", base=str(base))
    convert(tmp_path / "a.gguf", to="peft", out=tmp_path / "back", base=str(base))
    before, after = (load_file(d / "adapter_model.safetensors") for d in (adapter, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_peft_loads_what_comes_back(tmp_path: Path) -> None:
    base, adapter = base_of("llama"), adapter_of("llama", "ranks")
    convert(adapter, to="gguf", out=tmp_path / "a.gguf", base=str(base))
    convert(tmp_path / "a.gguf", to="peft", out=tmp_path / "back", base=str(base))
    scores = []
    for path in (adapter, tmp_path / "back"):
        with open_backend(base, path).as_finetuned() as view:
            scores.append(view.rolling_logprob("the bell is struck").logprobs)
    np.testing.assert_allclose(*scores, atol=1e-4)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["qv", "all-linear", "rslora", "ranks"])
def test_through_mlx_and_back_every_weight_changes_by_the_same(arch: str, kind: str, tmp_path: Path) -> None:
    base, adapter = base_of(arch), adapter_of(arch, kind)
    written = convert(adapter, to="mlx", out=tmp_path / "mlx", base=str(base))
    convert(tmp_path / "mlx", to="peft", out=tmp_path / "back")
    back, config = read_peft_lora(tmp_path / "back")
    assert_same_change(written, back)
    assert config.base_model_name_or_path == str(base)
    assert {m: f.rank for m, f in back.items()} == {m: f.rank for m, f in written.items()}


def test_a_plain_adapter_comes_back_from_mlx_bit_for_bit(tmp_path: Path) -> None:
    adapter = adapter_of("llama", "qv")
    convert(adapter, to="mlx", out=tmp_path / "mlx", base=str(base_of("llama")))
    convert(tmp_path / "mlx", to="peft", out=tmp_path / "back")
    before, after = (load_file(d / "adapter_model.safetensors") for d in (adapter, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_from_mlx_to_llama_cpp_is_one_step(tmp_path: Path) -> None:
    base, adapter = base_of("llama"), adapter_of("llama", "ranks")
    written = convert(adapter, to="mlx", out=tmp_path / "mlx", base=str(base))
    convert(tmp_path / "mlx", to="gguf", out=tmp_path / "a.gguf")
    assert_same_change(written, read_gguf_lora(tmp_path / "a.gguf", names_of(base))[0])


def test_an_mlx_adapter_is_what_mlx_lm_asks_for(tmp_path: Path) -> None:
    convert(adapter_of("llama", "ranks"), to="mlx", out=tmp_path / "mlx", base=str(base_of("llama")))
    config = json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())
    assert (config["fine_tune_type"], config["num_layers"]) == ("lora", 2)
    settings = config["lora_parameters"]
    assert (settings["rank"], settings["scale"], settings["dropout"]) == (7, 2.0, 0.0)
    tensors = load_file(tmp_path / "mlx" / "adapters.safetensors")
    assert tensors["model.layers.0.mlp.up_proj.lora_a"].shape == (32, 7)
    assert tensors["model.layers.0.mlp.up_proj.lora_b"].shape == (7, 48)
    assert {name.rpartition(".")[0] for name in tensors} == set(settings["keys"])


def mlx_adapter(folder: Path, tensors: dict[str, Any], **config: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"lora_parameters": {"scale": 2.0}, **config}))
    save_file(
        {name: np.ones(shape, dtype=np.float32) for name, shape in tensors.items()}, folder / "adapters.safetensors"
    )
    return folder


PAIR = {"model.layers.0.mlp.up_proj.lora_a": (32, 4), "model.layers.0.mlp.up_proj.lora_b": (4, 48)}


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (PAIR, {"fine_tune_type": "full"}, "is of fine_tune_type full"),
        (PAIR, {"fine_tune_type": "dora"}, "is of fine_tune_type dora"),
        (PAIR | {"model.norm.weight": (32,)}, {}, "holds model.norm.weight, which is no factor"),
        (dict(list(PAIR.items())[:1]), {}, "up_proj has no pair of factors"),
        ({k.replace("layers.0.mlp.up_proj", "embed_tokens"): v for k, v in PAIR.items()}, {}, "adapts the embedding"),
        (PAIR, {"lora_parameters": 3}, "lora_parameters is 3, not an object"),
        (PAIR, {"lora_parameters": {"scale": "x"}}, "scale is 'x', not a finite number"),
        (PAIR, {}, "records no base; name it with --base"),
    ],
)
def test_an_mlx_adapter_that_is_no_plain_lora_is_refused_by_name(
    tensors: dict[str, Any], config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match=message):
        convert(mlx_adapter(tmp_path / "mlx", tensors, **config), to="peft", out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_the_file_is_what_llama_cpp_asks_for(tmp_path: Path) -> None:
    convert(adapter_of("llama", "qv"), to="gguf", out=tmp_path / "a.gguf", base=str(base_of("llama")))
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    found = {k: reader.fields[k].contents() for k in ("general.architecture", "general.type", "adapter.type")}
    assert found == {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    assert reader.fields["adapter.lora.alpha"].contents() == 8.0
    shapes = {t.name: tuple(t.shape) for t in reader.tensors}
    assert shapes["blk.1.attn_v.weight.lora_a"] == (32, 4)  # ggml counts the other way round
    assert shapes["blk.1.attn_v.weight.lora_b"] == (4, 16)
    assert len(shapes) == 8


def test_rows_of_q_and_k_are_turned_for_llama_and_for_nobody_else() -> None:
    """Llama.cpp pairs the neighbours 2i and 2i + 1 in its rotary embedding, transformers i and i + d / 2."""
    rows = np.arange(32, dtype=np.float32)[:, None]  # four heads of eight
    names = names_of(base_of("llama"))
    turned = names.to_gguf("model.layers.0.self_attn.q_proj", rows)
    assert turned[:8, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    np.testing.assert_array_equal(names.from_gguf("model.layers.0.self_attn.q_proj", turned), rows)
    np.testing.assert_array_equal(names.to_gguf("model.layers.0.self_attn.v_proj", rows), rows)
    assert names_of(base_of("qwen2")).heads == {}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("dora", "DoRA rescales whole rows"),
        ("embedding", "holds tensors that are no factors of a linear module: .*lora_embedding_A"),
        ("saved-norm", "no factors of a linear module: .*norm"),
        ("bias-all", "no factors of a linear module: .*bias"),
        ("lora-bias", "no factors of a linear module: .*lora_B.bias"),
        ("ia3", "a IA3 adapter has no low-rank factors"),
        ("pissa", "it began as pissa"),
        ("alora", "with alora_invocation_tokens a module computes something else"),
    ],
)
def test_what_a_gguf_cannot_say_is_refused_by_name(kind: str, message: str, tmp_path: Path) -> None:
    arch = "qwen2" if kind == "bias-all" else "llama"
    with pytest.raises(AdapterError, match=message):
        convert(adapter_of(arch, kind), to="gguf", out=tmp_path / "a.gguf", base=str(base_of(arch)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["gguf", "mlx"])
def test_factors_of_layers_that_the_base_lacks_are_refused(to: str, tmp_path: Path) -> None:
    """With `layer_replication` a factor's layer is one of PEFT's stack, whatever the base has under that number."""
    adapter = Path(shutil.copytree(adapter_of("llama", "qv"), tmp_path / "adapter"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"layer_replication": [[0, 1], [0, 1]]}))
    with pytest.raises(AdapterError, match="layer_replication builds layers that the base lacks; write it as a whole"):
        convert(adapter, to=to, out=tmp_path / "out", base=str(base_of("llama")))
    assert not (tmp_path / "out").exists()


def test_a_head_that_is_the_embedding_is_refused_with_the_reason(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", tie_word_embeddings=True)
    adapter = save_adapter(base, tmp_path / "adapter", lora(target_modules=["q_proj", "lm_head"]))
    with pytest.raises(AdapterError, match="lm_head has no counterpart in a llama GGUF; its head is the embedding"):
        convert(adapter, to="gguf", out=tmp_path / "a.gguf", base=str(base))
    assert not (tmp_path / "a.gguf").exists()
    with pytest.raises(AdapterError, match="lm_head is the embedding of this base"):
        convert(adapter, to="mlx", out=tmp_path / "mlx", base=str(base))


def wrong(tmp_path: Path, case: str) -> dict[str, Any]:
    base, adapter, file = base_of("llama"), adapter_of("llama", "qv"), tmp_path / "a.gguf"
    convert(adapter, to="gguf", out=file, base=str(base))
    (tmp_path / "junk.gguf").write_bytes(b"no gguf at all")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    (other / "model.safetensors").touch()
    return {
        "exists": {"adapter": adapter, "to": "gguf", "out": file},
        "same": {"adapter": file, "to": "gguf", "out": tmp_path / "b.gguf"},
        "same dir": {"adapter": adapter, "to": "peft", "out": tmp_path / "b"},
        "same mlx": {"adapter": mlx_adapter(tmp_path / "mlx", PAIR), "to": "mlx", "out": tmp_path / "b"},
        "no base": {"adapter": file, "to": "peft", "out": tmp_path / "b"},
        "other base": {"adapter": file, "to": "peft", "out": tmp_path / "b", "base": str(base_of("qwen2"))},
        "unknown": {"adapter": adapter, "to": "gguf", "out": tmp_path / "b", "base": str(other)},
        "junk": {"adapter": tmp_path / "junk.gguf", "to": "peft", "out": tmp_path / "b", "base": str(base)},
        "no folder": {"adapter": adapter, "to": "gguf", "out": tmp_path / "x" / "b"},
    }[case]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("exists", "is there already"),
        ("same", "is a GGUF file already; give --to mlx or peft"),
        ("same dir", "is a PEFT directory already; give --to gguf or mlx"),
        ("same mlx", "is an MLX directory already; give --to gguf or peft"),
        ("no base", "does not record its base; name it with --base"),
        ("other base", "is an adapter for llama models, and the base is one of qwen2"),
        ("unknown", "'mamba' models are not converted"),
        ("junk", "no readable GGUF file|no weights|config"),
        ("no folder", "is no directory that exists"),
    ],
)
def test_bad_input_is_said_and_nothing_is_written(case: str, message: str, tmp_path: Path) -> None:
    arguments = wrong(tmp_path, case)
    with pytest.raises(BadInputError, match=message):
        convert(**arguments)
    assert not (tmp_path / "b").exists()


def test_a_gguf_of_a_whole_model_is_no_adapter(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(AdapterError, match="is a GGUF of type model, no LoRA adapter"):
        read_gguf_lora(tmp_path / "m.gguf", names_of(base_of("llama")))
