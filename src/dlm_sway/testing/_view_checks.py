"""Rules on views: who may be open when, what comes back, and what scales and nulls are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final
from unittest import SkipTest

import numpy as np

from dlm_sway.core.errors import ViewError
from dlm_sway.core.scoring import DifferentialBackend, PreflightCheckable, ScoringModel
from dlm_sway.core.views import View
from dlm_sway.testing._common import (
    has_rotations,
    needs_gaussian,
    needs_scales,
    null_refusal,
    openers,
    pairs,
    refuses,
    require,
    same,
    seen,
)


class _Stop(Exception):  # noqa: N818 (a signal, no error)
    """What a user's code may raise inside a view."""


def it_is_a_differential_backend(subject: Any) -> None:
    """A backend has as_base, as_finetuned and close, and opens views that are scoring models."""
    backend = subject.backend
    require(isinstance(backend, DifferentialBackend), "it lacks as_base or as_finetuned")
    require(callable(getattr(backend, "close", None)), "it has no close")
    for name in ("as_base", "as_finetuned"):
        with getattr(backend, name)() as view:
            require(isinstance(view, ScoringModel), f"what {name} opens lacks a method of ScoringModel")
            require(isinstance(view.id, str) and view.id, f"what {name} opens has no id")


def views_exclude_each_other(subject: Any) -> None:
    """No view opens while another one is open, and the refusal leaves nothing behind."""
    for outer, first, inner, second in pairs(openers(subject)):
        with first():
            refuses(partial(_enter, second), ViewError, f"{inner} inside {outer}")
    require(seen(subject, subject.backend.as_finetuned).size, "nothing can be opened afterwards")


def a_view_ends_with_its_block(subject: Any) -> None:
    """A view answers nothing after its block, not even while another is open."""
    backend, text = subject.backend, subject.texts[0]
    with backend.as_base() as stale:
        pass
    calls: tuple[Callable[[], object], ...] = (
        lambda: stale.rolling_logprob(text),
        lambda: stale.logprob_of(text, text),
        lambda: stale.next_token_dist(text),
        lambda: stale.generate(text, max_new_tokens=1),
    )
    for call in calls:
        refuses(call, ViewError, "a view that is closed")
        with backend.as_finetuned():
            refuses(call, ViewError, "a view that is closed, while another is open,")


def the_fine_tune_comes_back(subject: Any) -> None:
    """Whatever view was open, and however it ended, base and fine-tune are what they were."""
    backend = subject.backend
    before = {name: seen(subject, opener) for name, opener in (("base", backend.as_base), ("ft", backend.as_finetuned))}
    for name, opener in openers(subject).items():
        with suppress(_Stop), opener() as view:
            if view is not None:
                view.rolling_logprob(subject.texts[0])
            raise _Stop
        same(subject, before["base"], seen(subject, backend.as_base), f"the base after {name}")
        same(subject, before["ft"], seen(subject, backend.as_finetuned), f"the fine-tune after {name}")


def closing_is_final(subject: Any) -> None:
    """A closed backend opens nothing, and closing it twice is harmless."""
    backend = subject.open()
    with backend.as_base() as view:
        backend.close()
        refuses(lambda: view.rolling_logprob(subject.texts[0]), ViewError, "a view of a backend that was closed")
    backend.close()
    refuses(lambda: _enter(backend.as_base), ViewError, "opening a closed backend")


def scale_zero_is_the_base_and_one_the_fine_tune(subject: Any) -> None:
    """The scaled adapter is the base at 0 and the fine-tune at 1, and scales must be finite."""
    backend = needs_scales(subject)
    same(subject, seen(subject, backend.as_base), seen(subject, lambda: backend.as_scaled_adapter(0.0)), "scale 0")
    same(subject, seen(subject, backend.as_finetuned), seen(subject, lambda: backend.as_scaled_adapter(1.0)), "scale 1")
    for lam in (float("nan"), float("inf")):
        refuses(partial(_enter, partial(backend.as_scaled_adapter, lam)), ValueError, f"a scale of {lam}")


def scales_move_without_a_jump(subject: Any) -> None:
    """Near scale 0 the model is near the base, and half the scale is neither end."""
    backend = needs_scales(subject)
    base, ft = seen(subject, backend.as_base), seen(subject, backend.as_finetuned)
    if np.allclose(base, ft, atol=subject.atol):
        raise SkipTest("the fine-tune does nothing to these texts, so scales cannot be told apart")
    little, half = (seen(subject, partial(backend.as_scaled_adapter, lam)) for lam in (1e-3, 0.5))
    whole = float(np.abs(ft - base).max())
    require(np.abs(little - base).max() <= 0.1 * whole + subject.atol, "scale 0.001 is far from the base")
    require(not np.array_equal(half, base) and not np.array_equal(half, ft), "scale 0.5 is one of the ends")


def gaussian_nulls_repeat_by_seed(subject: Any) -> None:
    """A Gaussian null is the same for the same seed and another for another, and its sizes must make sense."""
    backend = needs_gaussian(subject)
    first, again, other = (seen(subject, partial(backend.as_null_adapter, seed)) for seed in (1, 1, 2))
    same(subject, first, again, "seed 1, twice")
    require(not np.array_equal(first, other), "seeds 1 and 2 give the same null")
    for bad in ({"rank_scale": 0.0}, {"rank_scale": float("nan")}, {"init_scale": -1.0}):
        call = partial(backend.as_null_adapter, 1, **bad)
        refuses(partial(_enter, call), ValueError, f"a null with {bad}")


def rotation_nulls_repeat_by_seed_and_draw(subject: Any) -> None:
    """A rotation null is the same for the same seed and draw, and another for another draw."""
    backend = subject.backend
    if not has_rotations(backend):
        raise SkipTest(f"it draws no rotation nulls: {null_refusal(backend) or 'it has no view() or null_refusal()'}")
    views = [View("rotation", seed=s, draw=d) for s, d in ((1, 0), (1, 0), (1, 1), (2, 0))]
    first, again, draw, seed = (seen(subject, partial(backend.view, view)) for view in views)
    same(subject, first, again, "the same draw, twice")
    require(not np.array_equal(first, draw), "draws 0 and 1 are the same null")
    require(not np.array_equal(first, seed), "seeds 1 and 2 give the same null")


def preflight_says_whether_numbers_are_finite(subject: Any) -> None:
    """The preflight check returns (True, "") for a model whose numbers are finite."""
    if not isinstance(subject.backend, PreflightCheckable):
        raise SkipTest("it has no preflight_finite_check")
    ok, reason = subject.backend.preflight_finite_check()
    require(ok and not reason, f"it says ({ok}, {reason!r})")


def _enter(opener: Callable[[], Any]) -> None:
    with opener():
        pass


RULES: Final = (
    it_is_a_differential_backend,
    views_exclude_each_other,
    a_view_ends_with_its_block,
    the_fine_tune_comes_back,
    closing_is_final,
    scale_zero_is_the_base_and_one_the_fine_tune,
    scales_move_without_a_jump,
    gaussian_nulls_repeat_by_seed,
    rotation_nulls_repeat_by_seed_and_draw,
    preflight_says_whether_numbers_are_finite,
)
