"""How far log-probs may be from what was tested: what the format of the weights does to any model, and N0."""

from __future__ import annotations

import re
from typing import Final

FLOOR_TIMES: Final = 10.0
"""What counts is larger than so many times the numeric floor."""

_MARGINS: Final = ((32.0, 0.005), (8.0, 0.02), (5.0, 0.05), (4.0, 0.15))
"""From so many bits a weight on, nat a token. Measured on SmolLM2-135M, see docs/chain.md."""
_COARSE: Final = 0.3
_UNKNOWN: Final = 0.02
_BITS: Final = {"float32": 32.0, "float64": 64.0, "bfloat16": 16.0, "float16": 16.0, "f32": 32.0, "f64": 64.0}
_QUANTISED: Final = re.compile(r"(?:i?q|tq|mxfp|nvfp)(\d)")
_ROOM: Final = 0.1


def bits_of(dtype: object) -> float | None:
    """Return the bits a weight has in a dtype of torch or a type of GGUF; None where it is not known."""
    name = str(dtype).removeprefix("torch.").lower()
    if name in _BITS:
        return _BITS[name]
    if name in ("bf16", "f16"):
        return 16.0
    found = _QUANTISED.match(name)
    return float(found[1]) if found else None


def bits_served(said: float | None) -> float | None:
    """Return the bits a weight has on a server that says this; servers compute in 16 unless told otherwise."""
    return None if said is None else min(said, 16.0)


def margin_of(bits: float | None, *, floor: float, effect: float = 0.0) -> float:
    """Return the margin of equivalence in nat a token.

    It is what storing weights in so many bits does to any model, or ten times the numeric floor where that is more;
    and a tenth of what the adapter does on average, since that much of it may be lost by the rule of survival too.

    Args:
        bits: of a stored weight; None where it is not known.
        floor: largest difference of a log-prob that numerics alone make, nats.
        effect: mean change of a log-prob by the adapter, nats.
    """
    by_format = _UNKNOWN if bits is None else next((m for least, m in _MARGINS if bits >= least), _COARSE)
    return max(by_format, FLOOR_TIMES * floor) + _ROOM * abs(effect)
