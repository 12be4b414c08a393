"""A scripted fake with every capability of a backend, in numpy: for tests that need no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from dlm_sway.backends.array_dist import log_softmax
from dlm_sway.backends.base import Messages, RankedModule, Reply
from dlm_sway.backends.differential import Nulled, Scaled
from dlm_sway.backends.dummy_lm import F32, F64, MODULE, Adapter, Ids, make_base, noise, trained
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.backends.dummy_script import recite
from dlm_sway.backends.dummy_text import PREFIX_ID, DummyCodec
from dlm_sway.backends.dummy_view import DummyView
from dlm_sway.backends.options import read_options
from dlm_sway.backends.registry import register
from dlm_sway.core.errors import BadInputError, CannotRunError, NullRuleError, ViewError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import BASE, View


@register("dummy")
class DummyBackend(Scaled[DummyView], Nulled[DummyView]):
    """A tiny language model with an adapter: views, scales, nulls, bulk logits, and faults on demand.

    Satisfies every protocol of `dlm_sway.core.scoring` and `dlm_sway.backends.base` under the rules of the Hugging
    Face backend: one view at a time, none after its block, nulls reproducible by seed and draw. Its adapter has the
    form of a LoRA and its nulls are made by the same functions, so what is shown on it about the statistics holds for
    real adapters. Needs no torch, but the engine that drives it in bulk does.
    """

    kind: ClassVar[str]
    device: Any = "cpu"
    dtype: Any = "float32"

    def __init__(self, options: DummyOptions | None = None, *, name: str = "dummy") -> None:
        """Make the model that `options` describe."""
        self.options = options or DummyOptions()
        self.id = name
        self.codec = DummyCodec(
            vocab_size=self.options.vocab_size,
            max_length=self.options.max_length,
            chat_template=self.options.chat_template,
            shows_tools=self.options.shows_tools,
        )
        self.forwards_done = 0
        self._base = make_base(self.options.vocab_size, seed=self.options.seed)
        self._adapter = self._made()
        self._changes: dict[View, F64] = {}
        self._bulk = False

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> DummyBackend:
        """Make the dummy that `spec.options` describe.

        Raises:
            BadInputError: an option is unknown or wrong, or an adapter directory is named.
        """
        if spec.adapter is not None:
            raise BadInputError("a dummy loads no adapter", where=spec.adapter, remedy="describe it in `options`")
        return cls(read_options(DummyOptions, spec.options, where="options of a dummy"), name=spec.base)

    def null_refusal(self) -> str | None:
        """Return why rotation nulls cannot be drawn, or None when they can."""
        return self.options.refusal

    def scale_refusal(self) -> str | None:
        """Return why the adapter's effect cannot be scaled, or None when it can."""
        return self.options.scale_refusal

    def cut_refusal(self) -> str | None:
        """Return why the adapter cannot be cut to its largest directions, or None when it can."""
        return self.options.cut_refusal

    def spectra(self) -> dict[str, RankedModule]:
        """Return the spectrum of the one adapted module."""
        return {MODULE: self._adapter.ranked()}

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the model for bulk work; no view may be open meanwhile."""
        with super().exclusive():
            self._bulk = True
            try:
                yield
            finally:
                self._bulk = False

    def logits(self, ids: Ids, keep: Ids, view: View) -> F32:
        """Return the logits of one view at chosen positions, float32[P, K].

        Args:
            ids: int64[N, L], right-padded rows.
            keep: int64[P, 2], (row, position).
            view: whose logits.

        Raises:
            ViewError: the model is not held by `exclusive`.
            NullRuleError: a null was asked for and nulls are refused.
            CannotRunError: as planned in the options.
        """
        if not self._bulk:
            raise ViewError("the model is not held for bulk work", where=self.id, remedy="enter `exclusive()` first")
        self._require_rule(view)
        return self._forward(view, ids, keep)

    def gradient_refusal(self) -> str | None:
        """Return None: the dummy's gradient is a formula."""
        return None

    def trained_factors(self) -> dict[str, F32]:
        """Return the adapter's B, float32[K, r], under the name of its one module."""
        return {MODULE: self._adapter.b}

    def without_gradient(self) -> tuple[str, ...]:
        """Return nothing: the one module is all that is trained."""
        return ()

    def factor_gradients(self, ids: Ids, first: int, targets: Ids) -> dict[str, F32]:
        """Return the gradient of sum log p(targets) of the base with respect to B at B = 0, float32[K, r].

        Raises:
            ViewError: the model is not held by `exclusive`.
        """
        keep = np.stack([np.zeros_like(targets), np.arange(first, ids.size)], axis=1)
        error = -np.exp(log_softmax(self.logits(ids[None], keep, BASE)))  # [P, K]
        error[np.arange(targets.size), targets] += 1
        read = self._base.features[ids[first:]] @ self._adapter.a.T  # [P, r]
        return {MODULE: (error.T @ read).astype(np.float32)}

    def write(
        self, prompts: Sequence[str | Messages], view: View, *, max_new_tokens: int, **_: Any
    ) -> Sequence[Reply] | None:
        """Return what the options' script says that this view writes, or None when it says nothing of the view."""
        lines = self.options.script.get("base" if view.lam == 0.0 else view.kind)
        return None if lines is None else recite(lines, prompts, self.codec, max_new_tokens=max_new_tokens)

    def _forward(self, view: View, ids: Ids, keep: Ids) -> F32:
        if self.options.forwards is not None and self.forwards_done >= self.options.forwards:
            raise CannotRunError(f"the machine gave up after {self.forwards_done} forward passes", where=self.id)
        self.forwards_done += 1
        row, position = keep.T
        last = ids[row, position]
        before = np.where(position > 0, ids[row, position - 1], PREFIX_ID)
        logits = self._base.logits(before, last)
        if view.lam != 0.0:
            logits = logits + view.lam * self._change(view)[last]
        if ("base" if view.lam == 0.0 else view.kind) in self.options.nan_in:
            logits = np.full_like(logits, np.nan)
        return logits.astype(np.float32)

    def _change(self, view: View) -> F64:
        key = replace(view, lam=1.0)
        if key not in self._changes:
            self._changes[key] = self._adapter.under(key).change(self._base)
        return self._changes[key]

    def _made(self) -> Adapter:
        o = self.options
        if o.adapter == "trained":
            towards, away = ([self.codec.encode(text) for text in texts] for texts in (o.towards, o.away))
            return trained(self._base, towards, away, rank=o.rank, strength=o.strength)
        strength = o.strength if o.adapter == "noise" else 0.0
        return noise(o.vocab_size, rank=o.rank, strength=strength, seed=o.adapter_seed)

    def _require_rule(self, view: View) -> None:
        if self.options.refusal is not None and view.kind not in ("adapter", "top_rank") and view.lam != 0.0:
            raise NullRuleError(self.options.refusal, where=self.id)

    def _handle(self, label: str, view: View) -> DummyView:
        return DummyView(f"{self.id} [{label}]", self.codec, partial(self._forward, view), self._is_open)

    @contextmanager
    def _shown(self, view: View) -> Iterator[None]:
        self._require_rule(view)
        yield
