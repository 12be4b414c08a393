"""Faults in the size of the change: the scale that the config gives, and delta W against W."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from dlm_sway.adapters.base_files import BaseFiles
from dlm_sway.adapters.config import holds_base
from dlm_sway.adapters.facts import Facts
from dlm_sway.adapters.inspection import Fault, ModuleRow, Severity
from dlm_sway.adapters.wording import counted, listed

SCALE_RANGE: Final = (1 / 64, 64.0)
USUAL_RATIO: Final = (1e-4, 0.25)
MOST_READ: Final = 8
"""Modules whose weight is read whole."""


def check_scale(facts: Facts) -> Iterator[Fault]:
    """Name modules whose scale alpha / r (or alpha / sqrt(r)) is absurd.

    Recipes lie between 1/4 and 32 (alpha = r, alpha = 2 r, rsLoRA with alpha = r up to r = 1024), so beyond
    [1/64, 64] alpha or r was most likely changed after training. It may still be the trained value: the factors then
    grew to match, and ||delta W|| / ||W|| over all modules lies where trained adapters lie, [1e-4, 0.25]. So an odd
    scale with a usual ratio is a warning; with another ratio, or one that cannot be measured, it fails. A scale of
    zero or below switches the adapter off or turns it round, and always fails.
    """
    dead = [row for row in facts.rows if row.scale is not None and row.scale <= 0]
    if dead:
        yield _scale_fault(dead, severity="fail", effect="which switches the adapter off or turns it round")
    low, high = SCALE_RANGE
    odd = [row for row in facts.rows if row.scale is not None and row.scale > 0 and not low <= row.scale <= high]
    if odd:
        ratio = pooled_ratio(odd)
        is_usual = ratio is not None and USUAL_RATIO[0] <= ratio <= USUAL_RATIO[1]
        effect = "and the base's weights are not there to compare with"
        if ratio is not None:
            effect = f"and the change is {ratio:.2g} of the weights, {'a' if is_usual else 'not a'} usual size"
        yield _scale_fault(odd, severity="warn" if is_usual else "fail", effect=effect)


def check_change(facts: Facts) -> Iterator[Fault]:
    """Name modules whose change is larger than the weight that it is added to.

    Trained adapters change a weight by a few percent of its Frobenius norm, over-trained ones by tens of percent. Above
    1 the base's weight is the smaller part of the sum. One module may be small by nature, so single modules are a
    warning; all adapted modules taken together fail.
    """
    large = [row for row in facts.rows if row.ratio is not None and row.ratio > 1]
    if not large:
        return
    pooled = pooled_ratio(facts.rows)
    worst = max(large, key=lambda row: row.ratio or 0.0)
    yield Fault(
        code="change_too_large",
        severity="fail" if pooled is not None and pooled > 1 else "warn",
        message=f"the change is larger than the weight in {len(large)} of {counted(len(facts.rows), 'module')}, "
        f"most in {worst.module} ({worst.ratio:.3g} times)",
        remedy="check lora_alpha, r and use_rslora against the training run; if they are right, training diverged",
        tensors=tuple(row.module for row in large),
    )


def check_directions(facts: Facts) -> Iterator[Fault]:
    """Warn of modules whose change is stronger, in one direction, than the base's weight is in any.

    That is ||delta W||_2 > ||W||_2. A low-rank change lies in few directions and the weight in all, so this is reached
    long before `check_change`'s ratio of whole norms is 1. Adapters here that were trained well stay under 0.15, the
    reciting under 0.7; sixteen times the alpha of training gives 2 (docs/statistics/truth.md). A rate at which training
    blew up gives the same, and no file tells the two apart, so it never fails.
    """
    if facts.base is None or holds_base(facts.config.init_lora_weights):
        return
    suspects = sorted(_suspects(facts.rows, facts.base), key=_share, reverse=True)[:MOST_READ]
    times = {row.module: (row.spectral or 0.0) / strongest for row in suspects if (strongest := _strongest(row, facts))}
    over = {module: ratio for module, ratio in times.items() if ratio > 1}
    if not over:
        return
    worst = max(suspects, key=lambda row: over.get(row.module, 0.0))
    yield Fault(
        code="change_overrides",
        severity="warn",
        message=f"in {counted(len(over), 'module')} of {len(suspects)} looked at, the change is stronger than the "
        f"weight in any direction, most in {worst.module} ({over[worst.module]:.3g} times, at a scale of "
        f"{worst.scale:.4g})",
        remedy="check lora_alpha, r and use_rslora against the training run; if they are right, train at a lower rate, "
        "or weaken it with `sway rescale`",
        tensors=tuple(over),
    )


def pooled_ratio(rows: Sequence[ModuleRow]) -> float | None:
    """Return ||delta W|| / ||W|| over all rows that have both, each norm taken over the modules together."""
    norms = [
        (row.norm_delta, row.norm_weight) for row in rows if row.norm_delta is not None and row.norm_weight is not None
    ]
    weight = math.hypot(*(weight for _, weight in norms))
    return math.hypot(*(delta for delta, _ in norms)) / weight if weight > 0 else None


def _scale_fault(rows: Sequence[ModuleRow], *, severity: Severity, effect: str) -> Fault:
    modules = tuple(row.module for row in rows)
    return Fault(
        code="scale_absurd",
        severity=severity,
        message=f"a scale of {rows[0].scale:.4g} in {counted(len(rows), 'module')} "
        f"({listed(modules, limit=1)}), {effect}",
        remedy="check lora_alpha, r, alpha_pattern and use_rslora in adapter_config.json against the training run",
        tensors=modules,
    )


def _suspects(rows: Sequence[ModuleRow], base: BaseFiles) -> Iterator[ModuleRow]:
    """Yield the rows whose change may be the stronger one: ||W||_2 is at least ||W|| over the root of its rank."""
    for row in rows:
        shape = base.shape(f"{row.module}.weight")
        if row.kind != "linear" or shape is None or len(shape) != 2 or row.ratio is None or row.ratio > 1:  # noqa: PLR2004 (a matrix)
            continue
        if _share(row) ** 2 * min(shape) > 1:
            yield row


def _share(row: ModuleRow) -> float:
    return row.spectral / row.norm_weight if row.spectral is not None and row.norm_weight else 0.0


def _strongest(row: ModuleRow, facts: Facts) -> float | None:
    return None if facts.base is None else facts.base.spectral(row.module)
