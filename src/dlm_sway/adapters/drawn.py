"""The factors that stand in an adapter's place in a view; one rule, so that a null is the same bytes everywhere."""

from __future__ import annotations

from dlm_sway.adapters import nulls
from dlm_sway.adapters.cuts import top_directions
from dlm_sway.adapters.nulls import F32
from dlm_sway.core.views import View


def drawn(view: View, a: F32, b: F32, *, module: str) -> tuple[F32, F32]:
    """Return A and B of a view, the scale not included; A itself where the view keeps it.

    Args:
        view: whose; the adapter's own are returned as they are.
        a: float32[r, d_in], or as a convolution has it.
        b: float32[d_out, r], likewise.
        module: its name in the base, the key of its draws.

    Raises:
        BadInputError: a factor is not finite, or the view's rank is more than the module has room for.
    """
    seed, draw = view.seed, view.draw
    if view.kind == "adapter":
        return a, b
    if view.kind == "rotation":
        return nulls.rotate_rank(a, b, multiplier=view.rank_scale, seed=seed, draw=draw, module=module)
    if view.kind == "sign_flip":
        return a, nulls.sign_flip(a, b, seed=seed, draw=draw, module=module)
    if view.kind == "top_rank":
        return a, top_directions(a, b, share=view.rank_scale, module=module)
    std = view.init_scale * view.rank_scale**0.5
    first, second = (
        nulls.gaussian_like(x.shape, std=std, seed=seed, draw=draw, module=module, part=part)
        for x, part in ((a, "A"), (b, "B"))
    )
    return first, second


def magnitude_delta(view: View, delta: F32, *, module: str) -> F32:
    """Return what a view adds to DoRA's magnitudes at scale 1, float32[d_out]: permuted under a null.

    A Gaussian null has the magnitudes of an untrained adapter, which are the base's.
    """
    if view.kind in ("rotation", "sign_flip"):
        return nulls.permute_magnitude(delta, seed=view.seed, draw=view.draw, module=module)
    return delta * 0 if view.kind == "gaussian" else delta
