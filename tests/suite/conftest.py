"""An adapter and a base on disk that inspect well, data files, and a dummy in the place of the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.model import ModelSpec
from dlm_sway.suite import check as check_module
from dlm_sway.suite.check import check
from dlm_sway.suite.result import CheckResult

WIDTH, RANK = 16, 4
MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj")


def _write_base(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"{module}.weight" for module in MODULES] + ["model.embed_tokens.weight", "lm_head.weight"]
    save_file({name: rng.normal(size=(WIDTH, WIDTH)).astype("f4") for name in names}, folder / "model.safetensors")
    config = {"model_type": "llama", "num_hidden_layers": 1, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _write_adapter(folder: Path, base: Path | None, *, fill: float | None = None) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(1)
    tensors = {}
    for module in MODULES:
        for name, shape in (("A", (RANK, WIDTH)), ("B", (WIDTH, RANK))):
            values = rng.normal(size=shape) * 0.1 if fill is None else np.full(shape, fill)
            tensors[f"base_model.model.{module}.lora_{name}.weight"] = values.astype("f4")
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": None if base is None else str(base),
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@dataclass
class Bench:
    """Checks adapters whose model is a dummy, and remembers what was opened and closed."""

    root: Path
    base: Path
    adapter: Path
    specs: list[ModelSpec] = field(default_factory=list)
    opened: list[DummyBackend] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def open(self, spec: ModelSpec) -> DummyBackend:
        self.specs.append(spec)
        self.opened.append(DummyBackend(DummyOptions(**self.options)))
        return self.opened[-1]

    def write(self, name: str, texts: Sequence[str]) -> Path:
        path = self.root / name
        path.write_text("\n".join(texts) + "\n")
        return path

    def broken(self, *, fill: float) -> Path:
        return _write_adapter(self.root / "broken", self.base, fill=fill)

    def baseless(self) -> Path:
        return _write_adapter(self.root / "baseless", None)

    def check(self, options: dict[str, Any] | None = None, **settings: Any) -> CheckResult:
        self.options = options or {}
        adapter = settings.pop("adapter", self.adapter)
        return check(adapter, **{"n_draws": 19, "batch_tokens": 1 << 20, **settings})


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    base = _write_base(tmp_path / "base")
    made = Bench(tmp_path, base, _write_adapter(tmp_path / "adapter", base))
    monkeypatch.setattr(check_module, "open_backend", made.open)
    return made


@pytest.fixture
def healthy(language: Callable[..., tuple[str, ...]]) -> dict[str, Any]:
    """Return the options of a dummy that has learned the language and does no harm."""
    return {"adapter": "trained", "towards": language(12), "strength": 2.0}
