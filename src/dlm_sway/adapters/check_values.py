"""Faults in the tensors' values."""

from __future__ import annotations

from collections.abc import Iterator

from dlm_sway.adapters.dtypes import is_readable
from dlm_sway.adapters.factors import FactorPair
from dlm_sway.adapters.facts import Facts
from dlm_sway.adapters.inspection import Fault
from dlm_sway.adapters.wording import counted, listed


def check_formats(facts: Facts) -> Iterator[Fault]:
    """Name tensors in a number format that cannot be read."""
    found = [info for info in facts.file.infos.values() if not is_readable(info.dtype)]
    if found:
        names = tuple(info.name for info in found)
        yield Fault(
            code="unreadable_format",
            severity="fail",
            message=f"{counted(len(names), 'tensor')} of unreadable format {found[0].dtype}: {listed(names)}",
            remedy="save the adapter again in float32, bfloat16 or float16",
            tensors=names,
        )


def check_empty_tensors(facts: Facts) -> Iterator[Fault]:
    """Name tensors without values, which is what sharded training leaves when it saves without gathering."""
    names = tuple(info.name for info in facts.file.infos.values() if info.n_elements == 0)
    if names:
        yield Fault(
            code="empty_tensor",
            severity="fail",
            message=f"{counted(len(names), 'tensor')} of shape [0]: {listed(names)}",
            remedy="gather the sharded weights before saving (ZeRO-3: stage3_gather_16bit_weights_on_model_save; "
            "FSDP: a full state dict)",
            tensors=names,
        )


def check_finite(facts: Facts) -> Iterator[Fault]:
    """Name tensors that hold NaN or infinities."""
    found = {name: stats for name, stats in facts.stats.items() if not stats.is_finite}
    if found:
        n_nan = sum(stats.n_nan for stats in found.values())
        n_inf = sum(stats.n_inf for stats in found.values())
        yield Fault(
            code="not_finite",
            severity="fail",
            message=f"{n_nan} NaN and {n_inf} infinite values in {counted(len(found), 'tensor')}: {listed([*found])}",
            remedy="training diverged: go back to an earlier checkpoint and lower the learning rate",
            tensors=tuple(found),
        )


def check_zero(facts: Facts) -> Iterator[Fault]:
    """Name modules that the adapter leaves as they were because a factor is zero throughout.

    LoRA starts with B = 0 (a few initialisations with A = 0) and the first step changes that, so an adapter that is
    zero everywhere was never trained, or was saved before its weights were gathered. A few zero modules may be frozen
    layers or experts that saw no token, hence a warning.
    """
    whole = [pair for pair in facts.pairs.values() if pair.a is not None and pair.b is not None]
    zero = {pair.module: tensor for pair in whole if (tensor := _zero_factor(facts, pair)) is not None}
    if not whole:
        yield from _all_zero(facts)
    elif len(zero) == len(whole):
        yield Fault(
            code="untrained",
            severity="fail",
            message=f"all {counted(len(whole), 'module')} have a zero factor: no training happened",
            remedy="check that the trained weights were saved, and that gradients reached the adapter",
            tensors=tuple(zero.values()),
        )
    elif zero:
        yield Fault(
            code="zero_modules",
            severity="warn",
            message=f"{len(zero)} of {counted(len(whole), 'module')} have a zero factor and change nothing: "
            f"{listed(list(zero))}",
            remedy="check that these modules were meant to stay untrained",
            tensors=tuple(zero.values()),
        )


def _zero_factor(facts: Facts, pair: FactorPair) -> str | None:
    # B first: it is the factor that starts at zero. A tensor without values is another fault.
    infos = [info for info in (pair.b, pair.a) if info is not None and info.n_elements > 0 and info.name in facts.stats]
    return next((info.name for info in infos if facts.stats[info.name].is_zero), None)


def _all_zero(facts: Facts) -> Iterator[Fault]:
    filled = [name for name in facts.stats if facts.file.infos[name].n_elements > 0]
    if filled and all(facts.stats[name].is_zero for name in filled):
        yield Fault(
            code="untrained",
            severity="fail",
            message="every tensor is zero: no training happened",
            remedy="check that the trained weights were saved",
            tensors=tuple(filled),
        )
