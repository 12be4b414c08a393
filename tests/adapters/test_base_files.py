from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dlm_sway.adapters.base_files import open_base
from dlm_sway.adapters.base_location import locate_base, same_base
from dlm_sway.adapters.tokenizer_files import tokenizer_length
from dlm_sway.core.errors import AdapterError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty Hub cache."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    return cache


def _cached(kit: Any, hub: Path, *, name: str = "someone--base", commit: str = "abc123") -> Any:
    snapshots = hub / f"models--{name}" / "snapshots"
    snapshots.mkdir(parents=True)
    (hub / f"models--{name}" / "refs").mkdir()
    (hub / f"models--{name}" / "refs" / "main").write_text(commit)
    return kit.base().rename(snapshots / commit)


def _sharded(folder: Path, weights: Any, *, n_shards: int = 2) -> Any:
    names = sorted(weights)
    shards = {name: f"model-{number % n_shards}.safetensors" for number, name in enumerate(names)}
    for shard in set(shards.values()):
        save_file({name: weights[name] for name in names if shards[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def test_a_single_file_gives_modules_shapes_and_facts(kit: Any) -> None:
    base = open_base(kit.base())
    assert base.shape("model.layers.1.mlp.up_proj.weight") == (32, 16)
    assert base.shape("model.layers.9.mlp.up_proj.weight") is None
    assert "model.norm" in base.modules
    assert "model.norm" not in base.adaptable
    assert "model.layers.0.self_attn.q_proj" in base.adaptable
    assert base.embedding_module == "model.embed_tokens"
    assert base.model_type == "llama"
    assert not base.tied
    assert base.has_container("model.layers.0.self_attn")
    assert not base.has_container("model.layers.7")


def test_a_sharded_index_gives_the_same_as_a_single_file(kit: Any) -> None:
    single = open_base(kit.base())
    folder = kit.base(name="sharded")
    (folder / "model.safetensors").unlink()
    _sharded(folder, kit.weights())
    sharded = open_base(folder)
    assert sharded.modules == single.modules
    assert sharded.norm("lm_head") == single.norm("lm_head")


def test_a_missing_shard_and_one_outside_the_directory_are_refused(kit: Any) -> None:
    folder = kit.base()
    (folder / "model.safetensors").unlink()
    _sharded(folder, kit.weights())
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"names model-1\.safetensors, which is not there"):
        open_base(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')
    with pytest.raises(AdapterError, match="which is not there"):
        open_base(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(AdapterError, match="no weight_map"):
        open_base(folder)


def test_a_tied_head_has_the_shape_of_the_embedding(kit: Any) -> None:
    base = open_base(kit.base(kit.weights(tied=True), tie_word_embeddings=True))
    assert base.tied
    assert "lm_head" in base.modules
    assert base.shape("lm_head.weight") == (64, 16)


def test_tying_follows_from_an_absent_head_where_the_config_is_silent(kit: Any) -> None:
    assert open_base(kit.base(kit.weights(tied=True), tie_word_embeddings=None)).tied
    assert not open_base(kit.base(name="other", tie_word_embeddings=None)).tied


def test_a_checkpoint_without_its_head_model_is_named_as_after_loading(kit: Any) -> None:
    headless = {name.removeprefix("model."): value for name, value in kit.weights().items()}
    base = open_base(kit.base(headless))
    assert base.modules == open_base(kit.base(name="whole")).modules


def test_a_tied_head_holds_the_values_of_the_embedding(kit: Any) -> None:
    base = open_base(kit.base(kit.weights(tied=True), tie_word_embeddings=True))
    assert base.holds("lm_head.weight", shape=(64, 16))
    assert base.dtype("lm_head.weight") == "F32"
    values = np.concatenate(list(base.blocks("lm_head.weight")))
    np.testing.assert_array_equal(values, kit.weights(tied=True)["model.embed_tokens.weight"].ravel())
    assert base.dtype("score.weight") == ""
    with pytest.raises(KeyError):
        base.blocks("score.weight")


@pytest.mark.parametrize(("kind", "head"), [("gpt_neox", "lm_head"), ("gpt_neox_japanese", "embed_out")])
def test_a_head_that_transformers_renames_is_named_as_after_loading(kit: Any, kind: str, head: str) -> None:
    weights = {f"{name}.weight": np.ones((64, 16), np.float32) for name in ("gpt_neox.embed_in", "embed_out")}
    base = open_base(kit.base(weights, model_type=kind))
    assert base.modules == {"gpt_neox.embed_in", head}
    assert base.norm(head) == pytest.approx(32)


def test_layers_that_the_model_does_not_build_cannot_be_targets(kit: Any) -> None:
    extra = {"model.layers.2.mlp.up_proj.weight": np.ones((32, 16), np.float32)}
    base = open_base(kit.base(kit.weights() | extra))
    assert "model.layers.2.mlp.up_proj" in base.modules
    assert "model.layers.2.mlp.up_proj" not in base.adaptable


@pytest.mark.parametrize("leaf", ["qweight", "weight_packed", "W_q"])
def test_a_module_is_known_however_its_weight_is_packed(kit: Any, leaf: str) -> None:
    packed = {
        name.removesuffix("weight") + leaf if "proj" in name else name: value for name, value in kit.weights().items()
    }
    base = open_base(kit.base(packed, quantization_config={"quant_method": "any"}))
    assert base.modules == open_base(kit.base(name="plain")).modules


def test_weights_of_8_bits_have_a_shape_and_no_norm_without_their_scale(kit: Any) -> None:
    name = "model.layers.0.mlp.up_proj"
    folder = kit.base(quantization_config={"quant_method": "fp8"})
    file = folder / "model.safetensors"
    kept = {key: value for key, value in kit.weights().items() if key != f"{name}.weight"}
    save_file({**kept, f"{name}.weight": np.full((32, 16), 0x7E, np.uint8)}, file)
    raw = file.read_bytes().replace(b'"U8"', b'"F8_E4M3"')
    length = int.from_bytes(raw[:8], "little") + len(b"F8_E4M3") - len(b"U8")
    file.write_bytes(length.to_bytes(8, "little") + raw[8:])
    base = open_base(folder)
    assert base.shape(f"{name}.weight") == (32, 16)
    assert base.norm(name) is None
    assert base.spectral(name) is None
    assert not base.holds(f"{name}.weight", shape=(32, 16))
    assert base.norm("model.layers.1.mlp.up_proj") is not None


def test_packed_weights_have_modules_but_neither_shape_nor_norm(kit: Any) -> None:
    packed = kit.weights() | {"model.layers.0.mlp.up_proj.weight": np.ones((256, 1), np.uint8)}
    packed["model.layers.1.mlp.up_proj.qweight"] = np.ones((4, 16), np.int32)
    del packed["model.layers.1.mlp.up_proj.weight"]
    base = open_base(kit.base(packed, quantization_config={"quant_method": "bitsandbytes"}))
    assert {"model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"} <= base.modules
    assert base.shape("model.layers.0.mlp.up_proj.weight") is None
    assert base.norm("model.layers.0.mlp.up_proj") is None
    assert base.norm("model.layers.1.mlp.up_proj") is None


def test_the_norm_is_exact_for_small_weights_and_close_for_sampled_ones(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    large = (rng.normal(size=(2048, 64)) * rng.uniform(0.5, 2, size=(2048, 1))).astype(np.float32)
    base = open_base(kit.base(kit.weights() | {"model.embed_tokens.weight": large}))
    exact = np.linalg.norm(large.astype(np.float64))
    assert base.norm("model.embed_tokens") == pytest.approx(exact, rel=1e-6)
    monkeypatch.setattr("dlm_sway.adapters.base_files._EXACT_ELEMENTS", 1000)
    monkeypatch.setattr("dlm_sway.adapters.base_files._SAMPLE_BLOCK_ELEMENTS", 512)
    assert base.norm("model.embed_tokens") == pytest.approx(exact, rel=0.05)


def test_a_hub_id_is_found_in_the_cache_by_branch_and_by_commit(kit: Any, hub: Path) -> None:
    snapshot = _cached(kit, hub)
    assert locate_base("someone/base").directory == snapshot
    assert locate_base("someone/base", revision="abc123").directory == snapshot
    assert locate_base("someone/base", revision="other").directory is None


@pytest.mark.parametrize("variable", ["HF_HOME", "XDG_CACHE_HOME"])
def test_the_cache_is_where_the_environment_says(
    kit: Any, hub: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    below = {"HF_HOME": "home", "XDG_CACHE_HOME": "home/huggingface"}[variable]
    root = kit.root / below
    root.mkdir(parents=True)
    hub.rename(root / "hub")
    snapshot = _cached(kit, root / "hub")
    monkeypatch.setenv(variable, str(kit.root / "home"))
    assert locate_base("someone/base").directory == snapshot


@pytest.mark.usefixtures("hub")
def test_an_id_that_is_not_cached_says_how_to_get_it() -> None:
    found = locate_base("someone/absent")
    assert found.directory is None
    assert "hf download someone/absent" in found.remedy


def test_a_base_of_pickles_cannot_be_checked(kit: Any) -> None:
    folder = kit.base()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    found = locate_base(str(folder))
    assert found.directory is None
    assert "no safetensors" in found.reason


def test_a_base_that_is_a_file_cannot_be_checked(kit: Any) -> None:
    path = kit.root / "model.gguf"
    path.write_bytes(b"GGUF")
    assert "is a file" in locate_base(str(path)).reason


def test_a_path_that_does_not_exist_is_bad_input_only_when_the_user_named_it(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no such base model"):
        locate_base(str(tmp_path / "nothing"))
    with pytest.raises(AdapterError, match="no such base model"):
        locate_base("../no/such/base")
    found = locate_base(str(tmp_path / "nothing"), must_exist=False)
    assert "not on this machine" in found.reason


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-this-name/base", "a\0b"])
def test_a_recorded_name_that_is_no_path_is_only_not_found(name: str) -> None:
    assert locate_base(name, must_exist=False).directory is None


def test_a_recorded_revision_cannot_lead_out_of_the_cache(kit: Any, hub: Path) -> None:
    _cached(kit, hub)
    outside = kit.base(name="outside")
    assert locate_base("someone/base", revision=str(outside)).directory is None
    assert locate_base("someone/base", revision="../../../outside").directory is None


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("org/name", "org/name/", True),
        ("Org/Name", "org/name", True),
        ("org/name", "other/name", False),
        ("org/name", "org/other", False),
        ("org/name", "/data/models/name", True),
        ("/srv/a/name", "/mnt/b/Name/", True),
        ("org/name", "/data/models/other", False),
        ("gpt2", "openai-community/gpt2", True),
        ("org/name", "/c/hub/models--org--name/snapshots/abc", True),
        ("other/name", "/c/hub/models--org--name/snapshots/abc", False),
    ],
)
def test_bases_are_the_same_by_id_or_by_the_last_part_of_a_path(left: str, right: str, same: bool) -> None:
    assert same_base(left, right) is same
    assert same_base(right, left) is same


def test_a_tokenizer_is_as_long_as_its_largest_id_demands(kit: Any, tmp_path: Path) -> None:
    assert tokenizer_length(tmp_path) is None
    kit.tokenizer(tmp_path, 70)
    assert tokenizer_length(tmp_path) == 70
    (tmp_path / "added_tokens.json").write_text('{"<new>": 99}')
    assert tokenizer_length(tmp_path) == 100


def test_a_unigram_tokenizer_is_counted_by_position(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [["a", 0.0], ["b", -1.0]]}}))
    assert tokenizer_length(tmp_path) == 2


def test_an_old_vocabulary_file_counts(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 4}')
    assert tokenizer_length(tmp_path) == 5
