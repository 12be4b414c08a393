"""What every backend shares: views opened by name, one at a time, none usable after its block."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Generic, TypeVar

import numpy as np

from dlm_sway.backends.text_view import TextView
from dlm_sway.core.errors import ViewError
from dlm_sway.core.views import BASE, FINETUNED, View, scaled

_PREFLIGHT = "The quick brown fox jumps over the lazy dog."

ViewT = TypeVar("ViewT", bound=TextView)


class Differential(ABC, Generic[ViewT]):
    """A base and its fine-tune, one view open at a time.

    A backend makes handles (`_handle`) and, where the model itself must change for a view, shows it (`_shown`).
    `Scaled` and `Nulled` add what not every backend can do, so that `isinstance` with the protocols tells the truth.

    Attributes:
        id: what was opened, as it was named.
    """

    id: str
    _open: TextView | None = None
    _closed: bool = False

    @abstractmethod
    def _handle(self, label: str, view: View) -> ViewT:
        """Return what answers for `view`; `self._is_open` tells it whether it may."""

    def _shown(self, view: View) -> AbstractContextManager[None]:  # noqa: ARG002 (others need it)
        """Let the model compute `view` inside the block, and what it was afterwards."""
        return nullcontext()

    @contextmanager
    def view(self, view: View) -> Iterator[ViewT]:
        """Open any view.

        Raises:
            ViewError: another view is open, or the backend is closed.
            NullRuleError: a null was asked for and a trained tensor has no rule.
        """
        handle = self._handle(_label(view), view)
        with self._held(handle), self._shown(view):
            yield handle

    def as_base(self) -> AbstractContextManager[ViewT]:
        """Open the base model."""
        return self.view(BASE)

    def as_finetuned(self) -> AbstractContextManager[ViewT]:
        """Open the fine-tune."""
        return self.view(FINETUNED)

    def preflight_finite_check(self) -> tuple[bool, str]:
        """Run one forward a view on a fixed prompt; return `(ok, reason)`."""
        for opened, what in ((self.as_base(), "base"), (self.as_finetuned(), "fine-tuned")):
            with opened as view:
                logprobs = view.rolling_logprob(_PREFLIGHT).logprobs
            if bad := int((~np.isfinite(logprobs)).sum()):
                return False, f"the {what} model gives {bad} non-finite log-probs on a fixed prompt of {logprobs.size}"
        return True, ""

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the model for bulk work; no view may be open meanwhile."""
        with self._held(self._handle("bulk", BASE)):
            yield

    def close(self) -> None:
        """Answer no more, not even through an open view; calling it twice is harmless."""
        self._open, self._closed = None, True

    def _is_open(self, handle: TextView) -> bool:
        return self._open is handle

    @contextmanager
    def _held(self, handle: TextView) -> Iterator[None]:
        if self._closed:
            raise ViewError("the backend is closed", where=self.id)
        if self._open is not None:
            raise ViewError(
                "another view is open on this model", where=self._open.id, remedy="leave its with-block first"
            )
        self._open = handle
        try:
            yield
        finally:
            self._open = None


class Scaled(Differential[ViewT]):
    """Can multiply what the fine-tune added."""

    def as_scaled_adapter(self, lam: float) -> AbstractContextManager[ViewT]:
        """Open the model with what was learned multiplied by `lam`: 0 is the base, 1 the fine-tune.

        Raises:
            ValueError: `lam` is not finite.
        """
        if not math.isfinite(lam):
            raise ValueError(f"lam must be finite, got {lam}")
        return self.view(scaled(lam))


class Nulled(Differential[ViewT]):
    """Can put random weights in the place of what was learned."""

    def as_null_adapter(
        self, seed: int, *, init_scale: float = 0.02, rank_scale: float = 1.0
    ) -> AbstractContextManager[ViewT]:
        """Open an adapter of the same structure with Gaussian factors of std `init_scale * sqrt(rank_scale)`.

        Raises:
            ValueError: `rank_scale` is not positive and finite, or `init_scale` is negative or not finite.
        """
        if not (math.isfinite(rank_scale) and rank_scale > 0):
            raise ValueError(f"rank_scale must be positive and finite, got {rank_scale}")
        if not (math.isfinite(init_scale) and init_scale >= 0):
            raise ValueError(f"init_scale must be finite and not negative, got {init_scale}")
        return self.view(View("gaussian", seed=seed, rank_scale=rank_scale, init_scale=init_scale))


def _label(view: View) -> str:
    if view.lam == 0.0:
        return "base"
    if view.kind == "adapter":
        return "fine-tuned" if view.lam == 1.0 else f"scaled {view.lam!r}"
    if view.kind == "top_rank":
        return f"top {view.rank_scale!r} of the rank"
    return f"{view.kind} {view.seed}/{view.draw}"
