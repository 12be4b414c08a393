"""Faults in the factors' shapes: against each other, the config's rank, and the base's weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from dlm_sway.adapters.factors import MATRIX_AXES, FactorPair
from dlm_sway.adapters.facts import Facts
from dlm_sway.adapters.inspection import Fault
from dlm_sway.adapters.naming import Part
from dlm_sway.adapters.tensors import TensorInfo
from dlm_sway.adapters.wording import counted, listed

Problem: TypeAlias = tuple[str, str]  # tensor, what is wrong with it


def check_swapped(facts: Facts) -> Iterator[Fault]:
    """Name modules whose A stands where B belongs and the other way round."""
    swapped = [pair for pair in facts.pairs.values() if is_swapped(facts, pair)]
    if swapped:
        yield Fault(
            code="swapped_factors",
            severity="fail",
            message=f"A and B are swapped in {counted(len(swapped), 'module')}: {listed([p.module for p in swapped])}",
            remedy="rename the tensors: A is stored [rank, in], B is stored [out, rank]",
            tensors=tuple(name for pair in swapped for name in pair.tensors),
        )


def check_rank(facts: Facts) -> Iterator[Fault]:
    """Name modules whose factors have another rank than the config gives them: PEFT cannot load those."""
    problems = list(_rank_problems(facts))
    if problems:
        yield Fault(
            code="rank_mismatch",
            severity="fail",
            message=f"{counted(len(problems), 'module')} of another rank than the config says: "
            f"{listed([f'{name} ({what})' for name, what in problems])}",
            remedy="restore the adapter_config.json that was saved with these tensors (r, rank_pattern)",
            tensors=tuple(name for name, _ in problems),
        )


def check_shapes(facts: Facts) -> Iterator[Fault]:
    """Name tensors whose shape fits neither their partner nor the base's weight."""
    problems = [
        *(problem for pair in _plain_pairs(facts) for problem in _pair_problems(facts, pair)),
        *_magnitude_problems(facts),
        *_own_problems(facts),
    ]
    if problems:
        yield Fault(
            code="wrong_shape",
            severity="fail",
            message=f"{counted(len(problems), 'tensor')} of the wrong shape: "
            f"{listed([f'{name} ({what})' for name, what in problems])}",
            remedy="check that this is the base the adapter was trained on",
            tensors=tuple(name for name, _ in problems),
        )


def is_swapped(facts: Facts, pair: FactorPair) -> bool:
    """Return whether a module's A and B hold each other's tensors.

    Either as they are ([out, r] under A), which the rank shows, or transposed to look right ([r, out] under A), which
    only the base's weight shows, and for a square weight nothing does.
    """
    if pair.a is None or pair.b is None or pair.kind not in {"linear", "embedding"}:
        return False
    a, b = pair.a.shape, pair.b.shape
    if len(a) != MATRIX_AXES or len(b) != MATRIX_AXES or 0 in (*a, *b):
        return False
    rank = facts.config.rank_of(pair.module)
    if a[0] != rank and a[1] == rank == b[0]:
        return True
    if a[0] != b[1]:
        return a[1] == b[0] < min(a[0], b[1])
    fans = facts.fans(pair.module)
    return fans is not None and fans[0] != fans[1][0] and (a[1], b[0]) == (fans[0], fans[1][0])


def _plain_pairs(facts: Facts) -> Iterator[FactorPair]:
    return (pair for pair in facts.pairs.values() if pair.kind != "parameter" and not is_swapped(facts, pair))


def _rank_problems(facts: Facts) -> Iterator[Problem]:
    for pair in _plain_pairs(facts):
        expected = facts.config.rank_of(pair.module)
        if pair.rank not in {None, 0, expected}:
            yield pair.module, f"{pair.rank}, not {expected}"


def _pair_problems(facts: Facts, pair: FactorPair) -> Iterator[Problem]:
    filled = [info for info in (pair.a, pair.b) if info is not None and info.n_elements > 0]
    for info in filled:
        if len(info.shape) < MATRIX_AXES:
            yield info.name, f"{list(info.shape)} is no matrix"
    a, b = pair.a, pair.b
    if a is None or b is None or len(filled) < 2 or min(len(a.shape), len(b.shape)) < MATRIX_AXES:  # noqa: PLR2004
        return
    # A grouped convolution splits the rank among its groups.
    if a.shape[0] != b.shape[1] and not (pair.kind == "conv" and a.shape[0] % b.shape[1] == 0):
        yield b.name, f"rank {b.shape[1]}, but A has rank {a.shape[0]}"
    yield from _fit_problems(facts, pair, a=a, b=b)


def _fit_problems(facts: Facts, pair: FactorPair, *, a: TensorInfo, b: TensorInfo) -> Iterator[Problem]:
    fans = facts.fans(pair.module)
    if fans is None:
        return
    fan_out, inputs = fans
    if not _fits_inputs(a.shape[1:], inputs, is_conv=pair.kind == "conv"):
        yield a.name, f"{list(a.shape)}, but the weight reads {_sizes(inputs)}"
    if b.shape[0] != fan_out:
        yield b.name, f"{list(b.shape)}, but the weight writes {fan_out}"


def _fits_inputs(found: tuple[int, ...], expected: tuple[int, ...], *, is_conv: bool) -> bool:
    if not is_conv:
        return found == expected
    # A grouped convolution's weight is stored with in / groups channels, A with all of them.
    return len(found) == len(expected) and found[1:] == expected[1:] and found[0] % max(expected[0], 1) == 0


def _magnitude_problems(facts: Facts) -> Iterator[Problem]:
    for key in facts.keys:
        fans = facts.fans(key.module) if key.part is Part.MAGNITUDE else None
        if fans is None:
            continue
        info, is_embedding = facts.file.infos[key.name], facts.pairs[key.module].kind == "embedding"
        # Releases of PEFT differ on the side of an embedding that its magnitude belongs to.
        allowed = {fans[0], fans[1][0]} if is_embedding else {fans[0]}
        if info.n_elements not in allowed:
            yield key.name, f"{list(info.shape)}, but the weight writes {fans[0]}"


def _own_problems(facts: Facts) -> Iterator[Problem]:
    for key in (*facts.saved_parameters, *facts.stray_parameters):
        found = facts.file.infos[key.name].shape
        expected = None if facts.base is None else facts.base.shape(key.parameter)
        if expected is not None and found != expected and not facts.is_resized(key):
            yield key.name, f"{list(found)}, but the base has {list(expected)}"


def _sizes(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
