"""A row a module: rank, scale, norms and spectrum of the change, with one tensor in memory at a time."""

from __future__ import annotations

import math

from dlm_sway.adapters.base_copies import paired_blocks
from dlm_sway.adapters.base_files import BaseFiles
from dlm_sway.adapters.dtypes import is_readable
from dlm_sway.adapters.factors import FactorPair
from dlm_sway.adapters.facts import Facts
from dlm_sway.adapters.inspection import ModuleRow
from dlm_sway.adapters.naming import TensorKey
from dlm_sway.adapters.spectra import Spectrum, input_factor, output_factor, spectrum
from dlm_sway.adapters.tensor_stats import norm_of
from dlm_sway.adapters.tensors import TensorFile, TensorInfo


def rows_of(facts: Facts) -> tuple[ModuleRow, ...]:
    """Return one row a module: those with factors first, then the parameters trained whole."""
    low_rank = (_pair_row(facts, pair) for pair in facts.pairs.values())
    whole = (_whole_row(facts.file, key, base=facts.base) for key in facts.saved_parameters)
    return (*low_rank, *whole)


def _pair_row(facts: Facts, pair: FactorPair) -> ModuleRow:
    scale = facts.config.scale_of(pair.module)
    found = _spectrum(facts, pair, scale=scale)
    weight = None if facts.base is None else facts.base.norm(pair.module)
    return ModuleRow(
        module=pair.module,
        kind=pair.kind,
        rank=pair.rank,
        scale=scale,
        norm_a=_norm(facts, pair.a),
        norm_b=_norm(facts, pair.b),
        norm_delta=None if found is None else found.frobenius,
        norm_weight=weight,
        ratio=None if found is None else _ratio(found.frobenius, weight),
        spectral=None if found is None else found.spectral,
        effective_rank=None if found is None else found.effective_rank,
    )


def _spectrum(facts: Facts, pair: FactorPair, *, scale: float) -> Spectrum | None:
    if pair.a is None or pair.b is None or not pair.is_multipliable:
        return None
    if not all(name in facts.stats and facts.stats[name].is_finite for name in pair.tensors):
        return None
    inputs = input_factor(facts.file.read(pair.a.name))
    return spectrum(output_factor(facts.file.read(pair.b.name)), inputs, scale=scale)


def _whole_row(file: TensorFile, key: TensorKey, *, base: BaseFiles | None) -> ModuleRow:
    module, info = key.parameter.removesuffix(".weight"), file.infos[key.name]
    if base is None or not base.holds(key.parameter, shape=info.shape) or not is_readable(info.dtype):
        return ModuleRow(module=module, kind="whole")
    delta = norm_of(new - old for new, old in paired_blocks(file, key, base=base))
    weight = norm_of(base.blocks(key.parameter))
    if not math.isfinite(delta) or not math.isfinite(weight):
        return ModuleRow(module=module, kind="whole")
    return ModuleRow(module=module, kind="whole", norm_delta=delta, norm_weight=weight, ratio=_ratio(delta, weight))


def _norm(facts: Facts, info: TensorInfo | None) -> float | None:
    found = facts.stats.get(info.name) if info is not None else None
    return found.norm if found is not None and found.is_finite else None


def _ratio(delta: float, weight: float | None) -> float | None:
    return delta / weight if weight and math.isfinite(weight) else None
