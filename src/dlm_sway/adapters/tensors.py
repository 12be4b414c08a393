"""safetensors files read one tensor, or one block of a tensor, at a time.

The format: eight bytes with the header's length, a JSON header with each tensor's type, shape and byte range, then
the data. The header is parsed here rather than by the safetensors library, because that one refuses bfloat16 under
numpy, maps the whole file, and words its errors for programmers.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from dlm_sway.adapters.dtypes import BITS, Float32Array, decode, is_readable, storage_dtype
from dlm_sway.core.errors import AdapterError

BLOCK_ELEMENTS: Final = 1 << 20
_MAX_HEADER_BYTES: Final = 100_000_000  # the safetensors library's own limit
_LENGTH_BYTES: Final = 8
_AGAIN: Final = "save or download the file again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file.

    Attributes:
        name: as in the file.
        dtype: the safetensors name of the format, such as `BF16`.
        shape: sizes; empty for a scalar.
        start: offset of the first byte in the file.
        n_bytes: length of its data.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int

    @property
    def n_elements(self) -> int:
        """Number of elements; 0 when a size is 0."""
        return math.prod(self.shape)


class TensorFile:
    """A safetensors file: its tensors' names, types and shapes at once, their values one at a time.

    Args:
        path: the file.

    Raises:
        AdapterError: the file cannot be read, is truncated, or its header is damaged.
    """

    def __init__(self, path: Path) -> None:
        """Read and check the header; no data is read."""
        self.path = path
        try:
            with path.open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(0)
                length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
                _check_header_length(length, size=size, path=path)
                header = stream.read(length)
        except OSError as error:
            raise _unreadable(path, error) from None
        self.infos: Mapping[str, TensorInfo] = _parse_header(header, data_start=_LENGTH_BYTES + length, path=path)
        _check_layout(self.infos, data_start=_LENGTH_BYTES + length, size=size, path=path)

    def read(self, name: str) -> Float32Array:
        """Return one tensor as float32 in its own shape; nothing else of the file is read.

        Raises:
            AdapterError: the format cannot be decoded, or the file got shorter since it was opened.
            KeyError: there is no such tensor.
        """
        info = self.infos[name]
        return self._read_range(info, 0, info.n_elements).reshape(info.shape)

    def blocks(self, name: str, *, max_elements: int = BLOCK_ELEMENTS) -> Iterator[Float32Array]:
        """Yield one tensor in storage order as flat float32 pieces of at most `max_elements`; raises as `read`."""
        info = self.infos[name]
        for first in range(0, info.n_elements, max_elements):
            yield self._read_range(info, first, min(max_elements, info.n_elements - first))

    def spread(self, name: str, *, n_blocks: int, block_elements: int) -> Iterator[Float32Array]:
        """Yield `n_blocks` evenly spaced flat pieces of one tensor: a fixed sample; raises as `read`."""
        info = self.infos[name]
        for first in np.linspace(0, info.n_elements - block_elements, n_blocks).astype(int):
            yield self._read_range(info, int(first), block_elements)

    def _read_range(self, info: TensorInfo, first: int, count: int) -> Float32Array:
        if not is_readable(info.dtype):
            raise AdapterError(f"tensor {info.name} has format {info.dtype}, which sway cannot read", where=self.path)
        raw_dtype = storage_dtype(info.dtype)
        try:
            raw = np.fromfile(self.path, raw_dtype, count, offset=info.start + first * raw_dtype.itemsize)
        except OSError as error:
            raise _unreadable(self.path, error) from None
        if raw.size != count:
            raise AdapterError("the file got shorter while it was read", where=self.path, remedy=_AGAIN)
        return decode(raw, info.dtype)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the free-form metadata of a safetensors file, from strings to strings; empty when it has none."""
    found = _raw_header(path)[0].get("__metadata__")
    return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


def write_with_metadata(source: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """Copy a safetensors file, its tensors byte for byte, with entries of `metadata` added to its header.

    Raises:
        AdapterError: the source is damaged.
        OSError: the target cannot be written.
    """
    header, data_start = _raw_header(source)
    header["__metadata__"] = read_metadata(source) | dict(metadata)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # the format wants its data aligned
    with source.open("rb") as old, target.open("xb") as new:
        new.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        old.seek(data_start)
        shutil.copyfileobj(old, new, 1 << 20)


def _raw_header(path: Path) -> tuple[dict[str, Any], int]:
    TensorFile(path)  # whose checks hold for what is read here
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header: dict[str, Any] = json.loads(stream.read(length))
    return header, _LENGTH_BYTES + length


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal, read as a stream.

    Raises:
        AdapterError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> AdapterError:
    return AdapterError(f"cannot be read ({error.strerror or type(error).__name__})", where=path, remedy=_AGAIN)


def _check_header_length(length: int, *, size: int, path: Path) -> None:
    if size < _LENGTH_BYTES:
        raise AdapterError(f"only {size} bytes, no safetensors header", where=path, remedy=_AGAIN)
    if length > _MAX_HEADER_BYTES:
        raise AdapterError("no safetensors file: its header would be over 100 MB", where=path, remedy=_AGAIN)
    if _LENGTH_BYTES + length > size:
        raise AdapterError(
            f"truncated: the header needs {_LENGTH_BYTES + length} bytes, the file has {size}",
            where=path,
            remedy=_AGAIN,
        )


def _parse_header(header: bytes, *, data_start: int, path: Path) -> dict[str, TensorInfo]:
    try:
        entries = json.loads(header.decode("utf-8"))
    except (ValueError, RecursionError):
        raise AdapterError("no safetensors file: its header is not JSON", where=path, remedy=_AGAIN) from None
    if not isinstance(entries, dict):
        raise AdapterError("no safetensors file: its header is no JSON object", where=path, remedy=_AGAIN)
    entries.pop("__metadata__", None)
    return {name: _parse_entry(name, entry, data_start=data_start, path=path) for name, entry in entries.items()}


def _parse_entry(name: str, entry: Any, *, data_start: int, path: Path) -> TensorInfo:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if (
            all(isinstance(n, int) and n >= 0 for n in shape) and 0 <= begin <= end
        ):
            info = TensorInfo(name, dtype, tuple(shape), data_start + begin, end - begin)
        case _:
            raise AdapterError(f"damaged header: the entry of tensor {name}", where=path, remedy=_AGAIN)
    if dtype in BITS and info.n_elements * BITS[dtype] != info.n_bytes * 8:
        raise AdapterError(
            f"damaged header: {info.n_bytes} bytes for tensor {name} of shape {list(shape)} and format {dtype}",
            where=path,
            remedy=_AGAIN,
        )
    return info


def _check_layout(infos: Mapping[str, TensorInfo], *, data_start: int, size: int, path: Path) -> None:
    end = data_start
    for info in sorted(infos.values(), key=lambda info: (info.start, info.n_bytes)):
        if info.start + info.n_bytes > size:
            raise AdapterError(
                f"truncated: tensor {info.name} ends at byte {info.start + info.n_bytes}, the file has {size}",
                where=path,
                remedy=_AGAIN,
            )
        if info.start != end:
            raise AdapterError(f"damaged header: a gap or overlap before {info.name}", where=path, remedy=_AGAIN)
        end = info.start + info.n_bytes
    if end != size:
        raise AdapterError(f"{size - end} bytes too long for its header", where=path, remedy=_AGAIN)
