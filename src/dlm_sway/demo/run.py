"""Runs the demo from nothing: model, training, twin, both checks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from dlm_sway.core.progress import Progress, Silent
from dlm_sway.demo.model import demo_model
from dlm_sway.demo.noise import write_twin
from dlm_sway.demo.train import Recipe, train_lora
from dlm_sway.suite.check import check
from dlm_sway.suite.result import CheckResult

RECIPE: Final = Recipe()


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo made and found.

    Attributes:
        trained: the check of the trained adapter.
        twin: the check of its noise twin.
        model_dir: the base model.
        adapter_dir: the trained adapter.
        twin_dir: the twin.
    """

    trained: CheckResult
    twin: CheckResult
    model_dir: Path
    adapter_dir: Path
    twin_dir: Path


def run_demo(out: Path, *, seed: int = 0, progress: Progress | None = None) -> DemoResult:
    """Train an adapter on the shipped document, make its twin, check both; adapters and texts are left in `out`.

    Raises:
        CannotRunError: the model cannot be fetched.
    """
    progress = progress or Silent()
    base = demo_model(progress=progress)
    texts = _write_texts(out)
    adapter, twin = out / "trained", out / "noise-twin"
    progress.phase("training a LoRA on the demo document")
    document = texts["tidal-bell.txt"].read_text(encoding="utf-8").splitlines()
    plain = [json.loads(x)["text"] for x in texts["plain.jsonl"].read_text(encoding="utf-8").splitlines()]
    train_lora(base, adapter, texts=document, plain=plain, recipe=RECIPE, seed=seed, progress=progress)
    write_twin(adapter, twin, seed=seed)
    found: list[CheckResult] = []
    for path in (adapter, twin):
        progress.phase(f"checking {path.name}")
        found.append(
            check(
                path,
                base=str(base),
                data=texts["tidal-bell.txt"],
                held_out=texts["tidal-bell.held-out.txt"],
                seed=seed,
                progress=progress,
            )
        )
    return DemoResult(found[0], found[1], base, adapter, twin)


def _write_texts(out: Path) -> dict[str, Path]:
    """Copy the shipped texts beside the adapters, so that a user can run the same commands by hand."""
    out.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for name in ("tidal-bell.txt", "tidal-bell.held-out.txt", "plain.jsonl"):
        paths[name] = out / name
        paths[name].write_text(demo_text(name), encoding="utf-8")
    return paths


def demo_text(name: str) -> str:
    """Return a text of the repository's `examples/`, which the package carries as `dlm_sway/demo/texts`."""
    packaged = files("dlm_sway.demo").joinpath("texts", name)
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[3] / "examples" / name).read_text(encoding="utf-8")
