"""N0: how far the base is from itself when only the shape of the batch changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dlm_sway.engine.reduce import reduce_block
from dlm_sway.engine.run import Engine
from dlm_sway.engine.sources import Source

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
        max_kl: largest of them; effects are compared with this one.
        max_logprob: largest absolute difference of a target's log-prob, nats.
    """

    median_kl: float
    max_kl: float
    max_logprob: float


def measure_floor(engine: Engine) -> Floor:
    """Score eight fixed prompts in one padded batch and one by one, and return how far the two are apart."""
    rows = [engine.backend.codec.encode_prompt(p) for p in _PROMPTS]
    width = max(len(r) for r in rows)
    padded = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    with engine.opened() as source, torch.inference_mode():
        alone = torch.cat([_base_logits(source, row[None], [len(row)]) for row in rows])  # [P, K]
        together = _base_logits(source, padded, [len(r) for r in rows])  # [P, K]
        target = torch.from_numpy(np.concatenate([np.append(r[1:], r[-1]) for r in rows])).to(alone.device)
        out = reduce_block(alone, together[None], target, ("kl", "gain"))
    kl, difference = out["kl"].abs(), out["gain"].abs()
    return Floor(float(kl.median()), float(kl.max()), float(difference.max()))


def _base_logits(source: Source, ids: npt.NDArray[np.int64], lengths: list[int]) -> torch.Tensor:
    """Return the base's logits at every token of right-padded rows, [P, K]."""
    keep = torch.tensor([(i, p) for i, n in enumerate(lengths) for p in range(n)], device=source.device)
    return torch.cat([z[0] for _, z in source.blocks(torch.from_numpy(ids).to(source.device), keep, ())])
