from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from dlm_sway.adapters.dtypes import decode
from dlm_sway.adapters.tensors import TensorFile, sha256_of
from dlm_sway.core.errors import AdapterError


def _file(path: Path, content: bytes) -> TensorFile:
    path.write_bytes(content)
    return TensorFile(path)


def test_infos_and_values_are_those_that_the_safetensors_library_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "a": rng.normal(size=(3, 5)).astype(np.float32),
        "b": rng.normal(size=(7,)).astype(np.float16),
        "c": rng.normal(size=(2, 2, 2)),
        "d": np.array([[1, -2]], np.int32),
        "scalar": np.array(1.5, np.float32),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    file = TensorFile(tmp_path / "x.safetensors")
    assert set(file.infos) == set(tensors)
    for name, value in tensors.items():
        assert file.infos[name].shape == value.shape
        found = file.read(name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, value.astype(np.float32))


@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bfloat16_decodes_to_the_float32_with_the_same_upper_half(values: Any, kit: Any, tmp_path: Path) -> None:
    array = np.array(values, np.float32)
    file = _file(tmp_path / "x.safetensors", kit.raw({"a": ("BF16", array.shape, kit.bfloat16(array))}))
    expected = (array.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    np.testing.assert_array_equal(file.read("a"), expected)


def test_float8_decodes_by_its_definition() -> None:
    e4m3 = decode(np.array([0x00, 0x01, 0x38, 0x7E, 0xFF, 0xB8], np.uint8), "F8_E4M3")
    np.testing.assert_array_equal(e4m3, np.array([0.0, 2.0**-9, 1.0, 448.0, np.nan, -1.0], np.float32))
    e5m2 = decode(np.array([0x00, 0x3C, 0x7B, 0x7C, 0xBC], np.uint8), "F8_E5M2")
    np.testing.assert_array_equal(e5m2, np.array([0.0, 1.0, 57344.0, np.inf, -1.0], np.float32))


def test_blocks_join_to_the_tensor_and_a_spread_covers_both_ends(tmp_path: Path) -> None:
    values = np.arange(1000, dtype=np.float32).reshape(10, 100)
    save_file({"a": values}, tmp_path / "x.safetensors")
    file = TensorFile(tmp_path / "x.safetensors")
    blocks = list(file.blocks("a", max_elements=333))
    assert [block.size for block in blocks] == [333, 333, 333, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), values.ravel())
    pieces = list(file.spread("a", n_blocks=3, block_elements=10))
    assert [piece[0] for piece in pieces] == [0.0, 495.0, 990.0]


def test_reading_one_tensor_never_holds_the_others(tmp_path: Path) -> None:
    megabyte = np.ones(1 << 18, np.float32)
    save_file({f"t{number}": megabyte + number for number in range(16)}, tmp_path / "x.safetensors")
    tracemalloc.start()
    file = TensorFile(tmp_path / "x.safetensors")
    for name in file.infos:
        assert file.read(name).size == 1 << 18
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * megabyte.nbytes


def test_a_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def _header(entries: object, data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def _entry(dtype: object, shape: object, offsets: object) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "only 0 bytes"),
        (b"abc", "only 3 bytes"),
        ((1 << 60).to_bytes(8, "little") + b"x" * 50, "over 100 MB"),
        ((500).to_bytes(8, "little") + b"{}", "truncated"),
        (b"PK\x03\x04\x00\x00\x00\x00" + b"x" * 100, "over 100 MB|truncated"),
        (_header("text"), "no JSON object"),
        ((4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc", "not JSON"),
        (_header({"a": 3}), "entry of tensor a"),
        (_header(_entry("F32", [2], [0])), "entry of tensor a"),
        (_header(_entry("F32", [-2], [0, 8]), b"x" * 8), "entry of tensor a"),
        (_header(_entry("F32", [2], [8, 0]), b"x" * 8), "entry of tensor a"),
        (_header(_entry("F32", [3], [0, 8]), b"x" * 8), r"8 bytes for tensor a of shape \[3\]"),
        (_header(_entry("F32", [2], [0, 8]), b"x" * 5), "truncated: tensor a"),
        (_header(_entry("F32", [2], [4, 12]), b"x" * 12), "gap or overlap"),
        (_header(_entry("F32", [2], [0, 8]), b"x" * 9), "1 bytes too long"),
    ],
)
def test_a_damaged_file_is_named_on_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(AdapterError, match=words) as caught:
        TensorFile(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy
    assert "\n" not in caught.value.one_line()


def test_a_header_nested_without_end_is_refused(tmp_path: Path) -> None:
    text = b"[" * 100_000
    with pytest.raises(AdapterError, match="not JSON"):
        _file(tmp_path / "x.safetensors", len(text).to_bytes(8, "little") + text)


def test_an_unknown_format_is_listed_but_not_read(tmp_path: Path) -> None:
    file = _file(tmp_path / "x.safetensors", _header(_entry("F4", [4], [0, 2]), b"xx"))
    assert file.infos["a"].dtype == "F4"
    with pytest.raises(AdapterError, match="format F4"):
        file.read("a")


def test_a_file_that_shrinks_while_open_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones(100, np.float32)}, path)
    file = TensorFile(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(AdapterError, match="got shorter"):
        file.read("a")


def test_a_missing_file_is_an_adapter_error(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="cannot be read"):
        TensorFile(tmp_path / "nothing.safetensors")
    with pytest.raises(AdapterError, match="cannot be read"):
        sha256_of(tmp_path / "nothing")
