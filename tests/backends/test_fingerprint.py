"""A real tiny model: its fingerprint follows every file, tensor and option, and nothing stale is ever served."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models import save_base
from transformers import LlamaForCausalLM

from dlm_sway.backends import fingerprint as module
from dlm_sway.backends.fingerprint import Fingerprinted, file_digest
from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.store import MemoryStore
from dlm_sway.core.views import FINETUNED, View, rotations, scaled
from dlm_sway.demo.noise import write_noise
from dlm_sway.engine.ask import Ask, Scores, TextItem
from dlm_sway.engine.disk_store import DiskStore
from dlm_sway.engine.run import Engine

ITEMS = tuple(TextItem("", text, text, text) for text in ("abc def", "a river runs west", "xyz"))
HOUR_NS = 3600 * 10**9


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base` and `adapter`."""
    root = tmp_path_factory.mktemp("tiny")
    save_base(root / "base")
    _train(root / "base", root / "adapter", seed=0)
    return root


@pytest.fixture
def tiny(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change, with files as old as after a download."""
    root = tmp_path / "tiny"
    shutil.copytree(made, root)
    return root


def _train(base: Path, adapter: Path, *, seed: int) -> None:
    """Write an adapter of random weights in the place of the one before."""
    write_noise(base, adapter, b_std=0.5, rank=4, seed=seed)


@contextmanager
def _opened(root: Path, **spec: Any) -> Iterator[HuggingFaceDifferentialBackend]:
    options = {"base": str(root / "base"), "dtype": "fp32", "device": "cpu", **spec}
    backend = HuggingFaceDifferentialBackend(base_spec=ModelSpec(**options), adapter_path=root / "adapter")
    try:
        yield backend
    finally:
        backend.close()


def _scored(root: Path, cache: Path | None, views: tuple[View, ...]) -> tuple[Scores, float]:
    """Return the answer and the view-tokens that it took."""
    ask = Ask(ITEMS, views, frozenset({"kl", "gain"}), format="raw")
    with _opened(root) as backend, DiskStore(cache or root / "cache") as store:
        engine = Engine(backend, store=store if cache else None)
        return engine.answer([ask])[0], engine.work()["view_tokens"]


def _print(root: Path, **spec: Any) -> str | None:
    with _opened(root, **spec) as backend:
        assert isinstance(backend, Fingerprinted)
        return backend.fingerprint()


def test_an_adapter_retrained_in_place_is_never_served_stale(tiny: Path, tmp_path: Path) -> None:
    views = (FINETUNED, *rotations(seed=0, n_draws=2))
    before, tokens = _scored(tiny, tmp_path / "c", views)
    assert tokens > 0
    again, tokens = _scored(tiny, tmp_path / "c", views)
    assert tokens == 0
    np.testing.assert_array_equal(again.values["kl"], before.values["kl"])
    file = tiny / "adapter" / "adapter_model.safetensors"
    old = file.stat()
    _train(tiny / "base", tiny / "adapter", seed=1)
    assert file.stat().st_size == old.st_size
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))  # as like the old one as a file can be
    after, tokens = _scored(tiny, tmp_path / "c", views)
    assert tokens > 0
    np.testing.assert_array_equal(after.values["kl"], _scored(tiny, None, views)[0].values["kl"])
    assert not np.allclose(after.values["kl"], before.values["kl"])


def test_an_adapter_retrained_while_it_is_loaded_does_not_spoil_the_cache(tiny: Path, tmp_path: Path) -> None:
    ask = Ask(ITEMS, (FINETUNED,), frozenset({"kl"}), format="raw")
    with _opened(tiny) as backend, DiskStore(tmp_path / "c") as store:
        _train(tiny / "base", tiny / "adapter", seed=1)
        Engine(backend, store=store).answer([ask])
    found, tokens = _scored(tiny, tmp_path / "c", (FINETUNED,))
    assert tokens > 0
    np.testing.assert_array_equal(found.values["kl"], _scored(tiny, None, (FINETUNED,))[0].values["kl"])


def test_a_scale_and_the_std_of_a_gaussian_null_never_collide(tiny: Path, tmp_path: Path) -> None:
    views = tuple(
        View("gaussian", lam, rank_scale=rank, init_scale=std)
        for lam, rank, std in ((0.5, 1.0, 1.0), (1.0, 0.5, 1.0), (1.0, 1.0, 0.5), (1.0, 1.0, 1.0))
    )
    views = (scaled(0.5), scaled(1.0), *views)
    for view in views:  # each alone, so that one served in the place of another would show
        _scored(tiny, tmp_path / "c", (view,))
    kept, tokens = _scored(tiny, tmp_path / "c", views)
    fresh, _ = _scored(tiny, None, views)
    assert tokens == 0
    np.testing.assert_allclose(kept.values["kl"], fresh.values["kl"], rtol=1e-3, atol=1e-6)
    assert len({kl.tobytes() for kl in kept.values["kl"]}) == len(views)


def test_the_same_model_loaded_again_or_moved_has_the_same_fingerprint(tiny: Path, tmp_path: Path) -> None:
    first = _print(tiny)
    assert first is not None
    shutil.copytree(tiny, tmp_path / "moved")
    assert _print(tiny) == first == _print(tmp_path / "moved")


@pytest.mark.parametrize(
    "change",
    ["weights", "tokenizer", "config", "adapter weights", "adapter template", "alpha", "dtype"],
)
def test_whatever_numbers_follow_from_changes_the_fingerprint(tiny: Path, change: str) -> None:
    before = _print(tiny)
    spec = {"dtype": "bf16"} if change == "dtype" else {}
    if change == "weights":
        model = LlamaForCausalLM.from_pretrained(str(tiny / "base"))
        with torch.no_grad():
            model.model.norm.weight[0] += 1e-6
        model.save_pretrained(str(tiny / "base"))
    if change in ("tokenizer", "config"):
        path = tiny / "base" / {"tokenizer": "tokenizer_config.json", "config": "config.json"}[change]
        path.write_text(path.read_text() + " ")
    if change == "adapter weights":
        _train(tiny / "base", tiny / "adapter", seed=1)
    if change == "adapter template":
        (tiny / "adapter" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    if change == "alpha":
        path = tiny / "adapter" / "adapter_config.json"
        path.write_text(path.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    assert before is not None
    assert _print(tiny, **spec) not in (None, before)


def test_versions_of_what_computes_are_part_of_it(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _print(tiny)
    monkeypatch.setattr(module, "version", lambda name: f"another {name}")
    assert _print(tiny) not in (None, before)


@pytest.mark.parametrize("file", ["base/config.json", "base/model.safetensors", "adapter/adapter_model.safetensors"])
def test_a_model_whose_files_change_after_loading_is_not_cached(tiny: Path, file: str) -> None:
    with _opened(tiny) as backend:
        assert backend.fingerprint() is not None
        (tiny / file).touch()
        assert backend.fingerprint() is None


def test_an_adapter_written_after_the_base_was_loaded_is_cached_once_it_is_on(tiny: Path) -> None:
    later = tiny / "later"
    with _opened(tiny) as backend:
        _train(tiny / "base", later, seed=1)
        assert backend.exchange_adapter(later)
        found = backend.fingerprint()
        (later / "adapter_model.safetensors").touch()
        assert backend.fingerprint() is None
    shutil.copytree(later, tiny / "adapter", dirs_exist_ok=True)
    assert found == _print(tiny) is not None


def test_a_base_that_changes_before_an_exchange_is_not_cached(tiny: Path) -> None:
    with _opened(tiny) as backend:
        (tiny / "base" / "model.safetensors").touch()
        assert backend.exchange_adapter(tiny / "adapter")
        assert backend.fingerprint() is None


def test_a_base_that_is_not_to_be_found_is_not_cached(tiny: Path) -> None:
    with _opened(tiny) as backend:
        (tiny / "base").rename(tiny / "elsewhere")
        assert backend.fingerprint() is None


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    digest, read = module.hashlib.file_digest, []

    def counted(handle: Any, name: str) -> Any:
        read.append(Path(handle.name).name)
        return digest(handle, name)

    monkeypatch.setattr(module.hashlib, "file_digest", counted)
    return read


def test_a_file_is_hashed_once_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, memo, read = tmp_path / "f.safetensors", MemoryStore(max_bytes=2**16), _counted(monkeypatch)
    path.write_bytes(b"one")
    real = module.time.time_ns
    monkeypatch.setattr(module.time, "time_ns", lambda: real() + HOUR_NS)
    first = file_digest(path, memo)
    assert file_digest(path, memo) == first
    assert len(read) == 1
    old = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert file_digest(path, memo) != first
    assert len(read) == 2


def test_a_file_written_just_now_is_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, memo, read = tmp_path / "f", MemoryStore(max_bytes=2**16), _counted(monkeypatch)
    path.write_bytes(b"one")
    file_digest(path, memo)
    file_digest(path, memo)
    assert len(read) == 2


def test_adapter_files_are_hashed_every_time_and_the_base_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo, read = MemoryStore(max_bytes=2**16), _counted(monkeypatch)
    with _opened(tiny) as backend:
        real = module.time.time_ns
        monkeypatch.setattr(module.time, "time_ns", lambda: real() + HOUR_NS)
        assert backend.fingerprint(memo) == backend.fingerprint(memo)
    assert read.count("model.safetensors") == 1
    assert read.count("adapter_model.safetensors") == 2
