"""What the checks of a backend share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeAlias
from unittest import SkipTest

import numpy as np
import numpy.typing as npt

from dlm_sway.core.scoring import NullCalibratedBackend, ScalableDifferentialBackend
from dlm_sway.core.views import View

Opener: TypeAlias = Callable[[], AbstractContextManager[Any]]


def require(truth: object, message: str) -> None:
    """Raise AssertionError with `message` unless `truth`; `assert` would vanish under python -O."""
    if not truth:
        raise AssertionError(message)


def refuses(call: Callable[[], object], error: type[Exception] | tuple[type[Exception], ...], what: str) -> None:
    """Raise AssertionError unless `call` raises `error`."""
    try:
        call()
    except error:
        return
    raise AssertionError(f"{what} is not refused")


def openers(subject: Any) -> dict[str, Opener]:
    """Return every way to open a view that the backend offers, by name."""
    backend = subject.backend
    found: dict[str, Opener] = {"base": backend.as_base, "fine-tuned": backend.as_finetuned}
    if isinstance(backend, ScalableDifferentialBackend):
        found["scaled"] = lambda: backend.as_scaled_adapter(0.5)
    if isinstance(backend, NullCalibratedBackend) and null_refusal(backend) is None:
        found["gaussian"] = lambda: backend.as_null_adapter(3)
    if has_rotations(backend):
        found["rotation"] = lambda: backend.view(View("rotation", seed=3, draw=1))
    if hasattr(backend, "exclusive"):
        found["bulk"] = backend.exclusive
    return found


def null_refusal(backend: Any) -> str | None:
    """Return why the backend draws no nulls, or None when it does or says nothing of it."""
    ask = getattr(backend, "null_refusal", None)
    return None if ask is None else ask()


def has_rotations(backend: Any) -> bool:
    """Return whether rotation nulls can be opened."""
    return hasattr(backend, "view") and hasattr(backend, "null_refusal") and null_refusal(backend) is None


def needs_scales(subject: Any) -> Any:
    """Return the backend if it scales its adapter, else skip."""
    if not isinstance(subject.backend, ScalableDifferentialBackend):
        raise SkipTest("it has no as_scaled_adapter: scaled views are out of its reach")
    return subject.backend


def needs_gaussian(subject: Any) -> Any:
    """Return the backend if it draws Gaussian nulls, else skip."""
    if not isinstance(subject.backend, NullCalibratedBackend):
        raise SkipTest("it has no as_null_adapter: it takes no other weights")
    if reason := null_refusal(subject.backend):
        raise SkipTest(f"it refuses nulls: {reason}")
    return subject.backend


def seen(subject: Any, opener: Opener) -> npt.NDArray[np.float32]:
    """Return the log-probs of all texts under a view."""
    with opener() as view:
        return np.concatenate([view.rolling_logprob(text).logprobs for text in subject.texts])


def same(subject: Any, left: npt.NDArray[Any], right: npt.NDArray[Any], what: str) -> None:
    """Require the same bytes, or of a backend that is not exact the same numbers up to its tolerance."""
    if subject.exact:
        require(np.array_equal(left, right), f"{what}: off by up to {apart(left, right):.3g}")
    else:
        near(subject, left, right, what)


def near(subject: Any, left: npt.NDArray[Any], right: npt.NDArray[Any], what: str) -> None:
    """Require the same numbers up to the tolerance."""
    off = apart(left, right)
    require(off <= subject.atol, f"{what}: off by up to {off:.3g}, where {subject.atol:g} is allowed")


def apart(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    """Return the largest difference; infinite where shapes or places that are no numbers differ."""
    if left.shape != right.shape or not np.array_equal(np.isfinite(left), np.isfinite(right)):
        return float("inf")
    both = np.isfinite(left)
    return float(np.abs(left[both] - right[both]).max(initial=0.0))


def pairs(found: dict[str, Opener]) -> Iterator[tuple[str, Opener, str, Opener]]:
    """Yield every ordered pair of openers with their names."""
    for outer, first in found.items():
        for inner, second in found.items():
            yield outer, first, inner, second
