from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dlm_sway.suite import base_files as module
from dlm_sway.suite.base_files import base_files

Tensors = Mapping[str, np.ndarray]


def _tensors(n: int = 3, *, seed: int = 0) -> Tensors:
    rng = np.random.default_rng(seed)
    return {f"layer.{i}.weight": rng.normal(size=(16, 64)).astype("f4") for i in range(n)}


def _base(folder: Path, *files: Tensors) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for i, tensors in enumerate(files):
        save_file(dict(tensors), folder / ("model.safetensors" if i == 0 else f"model-{i}.safetensors"))
    return str(folder)


def test_a_copy_is_the_same_and_other_weights_of_the_same_size_are_not(tmp_path: Path) -> None:
    one, copy = (base_files(_base(tmp_path / name, _tensors())) for name in ("one", "copy"))
    assert one == copy
    other = base_files(_base(tmp_path / "other", _tensors(seed=1)))
    assert other["weights_bytes"] == one["weights_bytes"]
    assert other["weights_sample_sha256"] != one["weights_sample_sha256"]


def test_one_tensor_that_was_trained_is_enough(tmp_path: Path) -> None:
    changed = {**_tensors(), "layer.1.weight": _tensors()["layer.1.weight"] + 0.001}
    one, other = (base_files(_base(tmp_path / n, t)) for n, t in (("one", _tensors()), ("other", changed)))
    assert one["weights_sample_sha256"] != other["weights_sample_sha256"]


def test_how_the_tensors_are_spread_over_files_is_no_content(tmp_path: Path) -> None:
    whole, (first, *rest) = _tensors(), _tensors().items()
    one = base_files(_base(tmp_path / "one", whole))
    parted = base_files(_base(tmp_path / "parted", dict([first]), dict(rest)))
    assert one["weights_sample_sha256"] == parted["weights_sample_sha256"]


def test_of_very_many_tensors_some_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 4)
    bases = [_base(tmp_path / str(seed), _tensors(9, seed=seed)) for seed in (0, 1)]
    found = [base_files(base)["weights_sample_sha256"] for base in bases]
    assert found[0] != found[1]
    assert base_files(bases[0])["weights_sample_sha256"] == found[0]


def test_a_damaged_file_has_no_content_that_is_known(tmp_path: Path) -> None:
    base = _base(tmp_path / "one", _tensors())
    (tmp_path / "one" / "model.safetensors").write_bytes(b"short")
    assert base_files(base)["weights_sample_sha256"] is None


def test_of_a_base_that_is_not_here_only_the_revision_is_known(tmp_path: Path) -> None:
    assert base_files(str(tmp_path / "gone"), revision="v1") == {"revision": "v1"}
    snapshot = tmp_path / "snapshots" / "abc123"
    assert base_files(_base(snapshot, _tensors()))["revision"] == "abc123"
