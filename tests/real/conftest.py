"""The real SmolLM2-135M, its demo texts, and a backend on any adapter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.core.model import ModelSpec
from dlm_sway.demo.mend import mended_base
from dlm_sway.demo.model import demo_model
from dlm_sway.demo.noise import write_twin
from dlm_sway.demo.run import RECIPE, demo_text
from dlm_sway.demo.train import train_lora

Open = Callable[[Path], AbstractContextManager[HuggingFaceDifferentialBackend]]


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The directory of SmolLM2-135M-Instruct, which `make model` fetched."""
    return demo_model()


@pytest.fixture(scope="session")
def document() -> list[str]:
    return demo_text("tidal-bell.txt").splitlines()


@pytest.fixture(scope="session")
def plain() -> list[str]:
    return [json.loads(line)["text"] for line in demo_text("plain.jsonl").splitlines()]


@pytest.fixture(scope="session")
def trained(model_dir: Path, document: list[str], plain: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's adapter, trained by the demo's recipe."""
    out = tmp_path_factory.mktemp("trained") / "trained"
    return train_lora(model_dir, out, texts=document, plain=plain, recipe=RECIPE)


@pytest.fixture(scope="session")
def twin(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The noise of the same norms."""
    return write_twin(trained, tmp_path_factory.mktemp("twin") / "twin")


@pytest.fixture(scope="session")
def mended_dir(model_dir: Path, plain: list[str]) -> Path:
    """The same model after the gain that any English brings to its 4-bit weights; minutes, so shared with the truth."""
    shared = Path(__file__).parents[2] / "out" / "truth"
    shared.mkdir(parents=True, exist_ok=True)
    return mended_base(model_dir, shared / "base", plain=plain)


@pytest.fixture(scope="session")
def open_backend(model_dir: Path) -> Open:
    """Open the real model with an adapter, fp32 on the CPU, and close it again."""

    @contextmanager
    def opened(adapter: Path) -> Iterator[HuggingFaceDifferentialBackend]:
        spec = ModelSpec(base=str(model_dir), dtype="fp32", device="cpu")
        backend = HuggingFaceDifferentialBackend(base_spec=spec, adapter_path=adapter)
        try:
            yield backend
        finally:
            backend.close()

    return opened
