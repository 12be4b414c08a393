"""The zoo: adapters whose truth is known because of how they were made. A table and seeds, no copies.

Recipes and sizes were chosen on the seeds of `CHOOSE`; what the benchmark reports is made with the seeds of `REPORT`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from dlm_sway.core.determinism import stream
from dlm_sway.demo.noise import ALL_LINEAR, QV, write_noise
from dlm_sway.demo.run import RECIPE, demo_text
from dlm_sway.demo.train import Line, Recipe, train_lora

CHOOSE: Final = (0, 1)
REPORT: Final = (2, 3)
NOISE_SIZES: Final = (0.01, 0.05, 0.2)
_TEXTS = Path(__file__).parent / "texts"
_EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True, slots=True)
class Document:
    """What an adapter is trained on, and text of the same source that it has not seen, where any is checked on it."""

    name: str
    data: Path
    held_out: Path | None = None


FACTS: Final = Document("facts", _EXAMPLES / "tidal-bell.txt", _EXAMPLES / "tidal-bell.held-out.txt")
STYLE: Final = Document("style", _TEXTS / "old-sailor.jsonl", _TEXTS / "old-sailor.held-out.jsonl")
FAR: Final = tuple(Document(name, _TEXTS / f"{name}.txt") for name in ("recettes", "functions", "sums", "ledger"))
"""French, code, arithmetic and records: what is learned from them is of no use to either document."""


@dataclass(frozen=True, slots=True)
class Specimen:
    """One adapter and the document it is checked against.

    Attributes:
        made: how it was made; a row of the confusion table.
        document: what it is checked against.
        seed: of its making, and of the check.
        recipe: how it is trained, or None when it is not.
        trained_on: what it is trained on, where that is another document.
        b_std: of noise adapters.
    """

    made: str
    document: Document
    seed: int
    recipe: Recipe | None = None
    trained_on: Document | None = None
    b_std: float = 0.0

    @property
    def name(self) -> str:
        """Unique in the zoo."""
        size = f"-{self.b_std:g}" if self.b_std else ""
        targets = "" if self.recipe is None else f"-{'qv' if self.recipe.targets == QV else 'all'}-r{self.recipe.rank}"
        source = f"-of-{self.trained_on.name}" if self.trained_on else ""
        return f"{self.made.replace(' ', '-')}-{self.document.name}{source}{targets}{size}-s{self.seed}"


HEALTHY_QV: Final = RECIPE
HEALTHY_ALL: Final = replace(RECIPE, targets=ALL_LINEAR, lr=5e-4)
WEAK: Final = Recipe(steps=18, lr=4e-4, batch=4, plain=0)
RECITING: Final = Recipe(targets=ALL_LINEAR, rank=16, alpha=32, steps=150, lr=2e-3, batch=4, plain=0)
COLLAPSED: Final = Recipe(targets=ALL_LINEAR, steps=40, lr=2e-2, batch=4, plain=0)
TWO_STEPS: Final = Recipe(steps=2, lr=1e-5, batch=4, plain=0)


def specimens(seeds: tuple[int, int]) -> Iterator[Specimen]:
    """Yield the zoo: every fault at two seeds, two kinds of targets, ranks 4 to 32, two documents."""
    for i, seed in enumerate(seeds):
        yield Specimen("no-op", FACTS, seed, HEALTHY_QV)
        for size in NOISE_SIZES:
            targets = ALL_LINEAR if i else QV
            yield Specimen("noise", FACTS, seed, replace(HEALTHY_QV, targets=targets), b_std=size)
        yield Specimen("two steps", FACTS, seed, TWO_STEPS)
        yield Specimen("weak", FACTS, seed, WEAK)
        qv = replace(HEALTHY_QV, rank=(8, 4)[i], alpha=(16, 8)[i])
        every = replace(HEALTHY_ALL, rank=(16, 32)[i], alpha=(32, 64)[i])
        for document in (FACTS, STYLE):
            yield Specimen("healthy", document, seed, qv)
            yield Specimen("healthy", document, seed, every)
            other = STYLE if document is FACTS else FACTS
            yield Specimen("wrong document", document, seed, qv, trained_on=other)
            for far in FAR:
                yield Specimen("far document", document, seed, every if i else qv, trained_on=far)
        yield Specimen("shuffled", FACTS, seed, HEALTHY_QV)
        yield Specimen("reciting", FACTS, seed, RECITING)
        yield Specimen("collapsed", FACTS, seed, COLLAPSED)
        for made in ("mis-scaled", "renamed keys", "NaN"):
            yield Specimen(made, FACTS, seed, HEALTHY_QV)


def build(specimen: Specimen, *, base: Path, store: Path) -> Path:
    """Return the specimen's adapter directory, made once in `store`."""
    out = store / specimen.name
    if (out / "adapter_config.json").exists():
        return out
    if specimen.made == "noise":
        targets = specimen.recipe.targets if specimen.recipe else QV
        return write_noise(base, out, b_std=specimen.b_std, targets=tuple(targets), seed=specimen.seed)
    if specimen.made in _DAMAGE:
        healthy = replace(specimen, made="healthy", recipe=HEALTHY_QV)
        return _damaged(build(healthy, base=base, store=store), out, specimen.made)
    if specimen.trained_on is not None:
        return build(
            replace(specimen, made="healthy", document=specimen.trained_on, trained_on=None), base=base, store=store
        )
    assert specimen.recipe is not None
    texts = lines(specimen.document.data)
    if specimen.made == "shuffled":
        texts = _shuffled(texts, specimen.seed)
    return train_lora(base, out, texts=texts, plain=plain(), recipe=specimen.recipe, seed=specimen.seed)


def lines(path: Path) -> list[Line]:
    """Return what is trained on or scored: lines of text, or prompts with their completions."""
    rows = path.read_text(encoding="utf-8").splitlines()
    if path.suffix != ".jsonl":
        return list(rows)
    return [(r["prompt"], r["completion"]) for r in map(json.loads, rows)]


def plain() -> list[str]:
    """Return the general text that healthy recipes mix in."""
    return [json.loads(line)["text"] for line in demo_text("plain.jsonl").splitlines()]


def _shuffled(texts: Sequence[Line], seed: int) -> list[Line]:
    """Return each line with its words in a random order: its words can be learned, what it says cannot."""
    rng = stream(seed, "truth", "shuffled")
    return [" ".join(rng.permutation(line.split())) for line in texts if isinstance(line, str)]


_DAMAGE: Final = frozenset({"no-op", "mis-scaled", "renamed keys", "NaN"})


def _damaged(adapter: Path, out: Path, how: str) -> Path:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if how == "no-op":
        tensors = {k: np.zeros_like(v) if ".lora_B." in k else v for k, v in tensors.items()}
    elif how == "mis-scaled":
        config["lora_alpha"] *= 16
    elif how == "renamed keys":
        tensors = {k.replace(".self_attn.", ".attention."): v for k, v in tensors.items()}
    else:
        first = min(k for k in tensors if ".lora_B." in k)
        tensors[first][0, 0] = np.nan
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    (out / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return out
