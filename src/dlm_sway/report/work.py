"""What a check took, in one line: the last of every report."""

from __future__ import annotations

import math
from typing import Any, Final

from dlm_sway.core.result import SuiteResult
from dlm_sway.report.text import clean
from dlm_sway.suite.result import CheckResult

_TENTHS_BELOW: Final = 10.0
_SHORT: Final = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def work_line(result: CheckResult | SuiteResult) -> str:
    """Return tokens, time, path, probes, dtype and N0, such as `scored 37,120 view-tokens in 41 s (905/s), fp32`.

    Empty where no model was asked.
    """
    seconds = result.timing.get("scoring_s")
    if seconds is None or not result.probes:
        return ""
    n_probes = len(result.probes)
    parts = (
        _scored(result.timing.get("view_tokens", 0.0), seconds),
        "--quick: beginnings of texts alone" if result.provenance.get("quick") is True else "",
        _cached(result.timing.get("cached_positions", 0.0)),
        clean(result.provenance.get("engine") or ""),
        f"{n_probes} probe{'s' if n_probes > 1 else ''}",
        _SHORT.get(result.provenance.get("dtype") or "", ""),
        _floor(result.provenance.get("numeric_floor")),
    )
    return ", ".join(part for part in parts if part)


def _scored(tokens: float, seconds: float) -> str:
    took = f"{seconds:.1f}" if seconds < _TENTHS_BELOW else f"{seconds:,.0f}"
    rate = f" ({tokens / seconds:,.0f}/s)" if tokens and seconds else ""
    return f"scored {tokens:,.0f} view-tokens in {took} s{rate}"


def _cached(positions: float) -> str:
    return f"{positions:,.0f} positions from the cache" if positions else ""


def _floor(floor: Any) -> str:
    if not isinstance(floor, dict):
        return ""
    against = floor.get("against_fp32")
    fp32 = _figure(against.get("mean_kl") if isinstance(against, dict) else None)
    n0 = _figure(floor.get("max_kl"))
    return n0 and f"N0 {n0}" + (f" ({fp32} against fp32)" if fp32 else "")


def _figure(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, int | float) and math.isfinite(value) else ""
