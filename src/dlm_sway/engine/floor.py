"""N0: how far the base is from itself when only the shape of the batch changes, or the precision of arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dlm_sway.backends.base import BulkBackend
from dlm_sway.backends.hf_widen import is_narrow, widened
from dlm_sway.engine.memory import out_of_memory
from dlm_sway.engine.reduce import reduce_block
from dlm_sway.engine.rows import Row
from dlm_sway.engine.run import Engine
from dlm_sway.engine.sources import ScalarSource, Source

_PROMPTS = (
    "The river rises in the hills and runs west for sixty miles.",
    "def area(radius):",
    "She closed the door, turned the key, and listened.",
    "In 1911 the committee met twice, without result.",
    "To make the dough, mix the flour with warm water and",
    "Q: What does a thermostat do?\nA:",
    "The results, shown in Table 2, differ by less than",
    "Once the engine is cold, remove the cap slowly because",
)


@dataclass(frozen=True, slots=True)
class Floor:
    """The numeric noise floor of this model on this machine.

    Attributes:
        median_kl: median over positions of KL(base || base in another batch), nats.
        max_kl: largest of them.
        max_logprob: largest absolute difference of a target's log-prob, nats.
        dtype: what the base's weights are kept and multiplied in; empty where the backend does not say.
        rounding: the base against the same weights in fp32 arithmetic; None in fp32, and where it cannot be told.
    """

    median_kl: float
    max_kl: float
    max_logprob: float
    dtype: str = ""
    rounding: Rounding | None = None

    @property
    def kl(self) -> float:
        """What the mean KL of an effect is compared with, nats."""
        return self.max_kl if self.rounding is None else max(self.max_kl, self.rounding.mean_kl)


@dataclass(frozen=True, slots=True)
class Rounding:
    """What arithmetic in 16 bits does to the base.

    Attributes:
        mean_kl: mean over positions of KL(base in fp32 || base as it runs), nats; how an effect is averaged too.
        max_kl: largest of them.
        max_logprob: largest absolute difference of a target's log-prob, nats.
    """

    mean_kl: float
    max_kl: float
    max_logprob: float


def measure_floor(engine: Engine) -> Floor:
    """Score eight fixed prompts in one padded batch, one by one, and in 16 bits once more with fp32 arithmetic."""
    rows = [engine.backend.codec.encode_prompt(p) for p in _PROMPTS]
    lengths = [len(r) for r in rows]
    padded = np.zeros((len(rows), max(lengths)), dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    target = torch.from_numpy(np.concatenate([np.append(r[1:], r[-1]) for r in rows]))
    with engine.opened() as source, torch.inference_mode():
        if isinstance(source, ScalarSource):
            return _asked_twice(rows, source)
        alone = torch.cat([_base_logits(source, row[None], [len(row)]) for row in rows])  # [P, K]
        together = _base_logits(source, padded, lengths)  # [P, K]
        kl, off = _apart(alone, together, target)
        fine = _fine_logits(engine.backend, source, padded, lengths)
        rounding = None if fine is None else _rounding(*_apart(fine, together, target))
    return Floor(float(kl.median()), float(kl.max()), float(off.max()), _dtype_of(engine.backend), rounding)


def _asked_twice(rows: list[npt.NDArray[np.int64]], source: ScalarSource) -> Floor:
    """Return the floor of a backend that answers with scalars: the base against itself, asked twice."""
    wanted = [Row(row[:-1], 0, row[1:]) for row in rows if len(row) > 1]
    found = source.backend.repeat(wanted)
    kl, off = np.abs(found["kl"]), np.abs(found["gain"])
    known = off[np.isfinite(off)]
    return Floor(float(np.median(kl)), float(kl.max()), float(known.max(initial=0.0)), _dtype_of(source.backend))


def _apart(p: torch.Tensor, q: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return KL(p || q) and the absolute difference of the targets' log-probs, each position by itself."""
    out = reduce_block(p, q[None].clone(), target.to(p.device), ("kl", "gain"))  # it works in place
    return out["kl"].abs(), out["gain"].abs()


def _rounding(kl: torch.Tensor, off: torch.Tensor) -> Rounding:
    return Rounding(float(kl.mean()), float(kl.max()), float(off.max()))


def _fine_logits(
    backend: BulkBackend, source: Source, ids: npt.NDArray[np.int64], lengths: list[int]
) -> torch.Tensor | None:
    """Return the base's logits with fp32 arithmetic, or None where it has that anyway or cannot."""
    model = getattr(backend, "model", None)
    if model is None or not is_narrow(getattr(backend, "dtype", None)) or getattr(model, "quantization_method", None):
        return None
    try:
        with widened(model):
            return _base_logits(source, ids, lengths)
    except RuntimeError as error:
        # A model that casts by itself meets a weight of another width; a small device holds no wide module.
        if out_of_memory(error) or "dtype" in str(error):
            return None
        raise


def _dtype_of(backend: BulkBackend) -> str:
    return str(getattr(backend, "dtype", "")).removeprefix("torch.")


def _base_logits(source: Source, ids: npt.NDArray[np.int64], lengths: list[int]) -> torch.Tensor:
    """Return the base's logits at every token of right-padded rows, [P, K]."""
    keep = torch.tensor([(i, p) for i, n in enumerate(lengths) for p in range(n)], device=source.device)
    return torch.cat([z[0] for _, z in source.blocks(torch.from_numpy(ids).to(source.device), keep, ())])
