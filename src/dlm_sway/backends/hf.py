"""The Hugging Face backend: base, fine-tune, scales and nulls on one copy of the weights."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from dlm_sway.backends.base import RankedModule
from dlm_sway.backends.encoding import TextEncoder, context_window
from dlm_sway.backends.fingerprint import fingerprint
from dlm_sway.backends.hf_find import find_sites
from dlm_sway.backends.hf_gradients import Gradients
from dlm_sway.backends.hf_load import Loaded, load
from dlm_sway.backends.hf_overlay import shown
from dlm_sway.backends.hf_sites import Sites
from dlm_sway.backends.hf_view import HFView
from dlm_sway.backends.registry import register
from dlm_sway.core.errors import BadInputError, ViewError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.store import ResultStore
from dlm_sway.core.views import BASE, FINETUNED, View, scaled

_PREFLIGHT = "The quick brown fox jumps over the lazy dog."


@register("hf")
class HuggingFaceDifferentialBackend:
    """A base model and its PEFT adapter on one loaded copy of the weights.

    Satisfies every protocol of `dlm_sway.core.scoring`. One view is open at a time; opening another inside it
    raises `ViewError`, and so does using a view after its block. The real adapter returns bit for bit on any exit.
    """

    kind: ClassVar[str]

    def __init__(self, *, base_spec: ModelSpec, adapter_path: Path | str) -> None:
        """Load both.

        Raises:
            BadInputError: the base or the adapter cannot be read, or they do not fit.
        """
        self.spec = base_spec
        self.adapter_path = Path(adapter_path).expanduser().absolute()
        self._loaded_ns = time.time_ns()
        loaded: Loaded = load(base_spec, self.adapter_path)
        self.model: Any = loaded.model
        self.device, self.dtype = loaded.device, loaded.dtype
        self.codec = TextEncoder(loaded.tokenizer, max_length=context_window(loaded.model.config, loaded.tokenizer))
        self.sites: Sites = find_sites(loaded.model, base_values=loaded.base_values)
        self._open: HFView | None = None

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> HuggingFaceDifferentialBackend:
        """Load the base and the adapter that `spec` names.

        Raises:
            BadInputError: no adapter is named, one of the two cannot be read, or they do not fit.
        """
        if spec.adapter is None:
            raise BadInputError("no adapter is named", where=spec.base, remedy="set `adapter` to its directory")
        return cls(base_spec=spec, adapter_path=spec.adapter)

    @property
    def id(self) -> str:
        """Base and adapter, as they were named."""
        return f"{self.spec.base} + {self.adapter_path.name}"

    @contextmanager
    def view(self, view: View) -> Iterator[HFView]:
        """Open any view.

        Raises:
            ViewError: another view is open.
            NullRuleError: a null was asked for and a trained tensor has no rule.
        """
        handle = HFView(f"{self.id} [{_label(view)}]", self.model, self.codec, lambda v: self._open is v)
        with self._exclusive(handle), shown(self.model, self.sites, view):
            yield handle

    def as_base(self) -> Any:
        """Open the base model."""
        return self.view(BASE)

    def as_finetuned(self) -> Any:
        """Open the fine-tune."""
        return self.view(FINETUNED)

    def as_scaled_adapter(self, lam: float) -> Any:
        """Open the model with the adapter's term multiplied by `lam` (finite).

        Raises:
            ValueError: `lam` is not finite.
        """
        if not math.isfinite(lam):
            raise ValueError(f"lam must be finite, got {lam}")
        return self.view(scaled(lam))

    def as_null_adapter(self, seed: int, *, init_scale: float = 0.02, rank_scale: float = 1.0) -> Any:
        """Open an adapter of the same structure with Gaussian factors of std `init_scale * sqrt(rank_scale)`.

        Raises:
            ValueError: `rank_scale` is not positive and finite, or `init_scale` is negative or not finite.
        """
        if not (math.isfinite(rank_scale) and rank_scale > 0):
            raise ValueError(f"rank_scale must be positive and finite, got {rank_scale}")
        if not (math.isfinite(init_scale) and init_scale >= 0):
            raise ValueError(f"init_scale must be finite and not negative, got {init_scale}")
        return self.view(View("gaussian", seed=seed, rank_scale=rank_scale, init_scale=init_scale))

    def preflight_finite_check(self) -> tuple[bool, str]:
        """Run one forward a view on a fixed prompt; return `(ok, reason)`."""
        for opened, what in ((self.as_base(), "base"), (self.as_finetuned(), "fine-tuned")):
            with opened as view:
                logprobs = view.rolling_logprob(_PREFLIGHT).logprobs
            if bad := int((~torch.isfinite(torch.from_numpy(logprobs))).sum()):
                return False, f"the {what} model gives {bad} non-finite log-probs on a fixed prompt of {logprobs.size}"
        return True, ""

    def null_refusal(self) -> str | None:
        """Return why rotation nulls cannot be drawn for this adapter, or None when they can."""
        return self.sites.refusal()

    def scale_refusal(self) -> str | None:
        """Return why the adapter's effect cannot be scaled, or None when it can."""
        return self.sites.scale_refusal()

    def cut_refusal(self) -> str | None:
        """Return why the adapter cannot be cut to its largest directions, or None when it can."""
        return self.sites.cut_refusal()

    def spectra(self) -> dict[str, RankedModule]:
        """Return the spectrum of delta W by module.

        Raises:
            CannotRunError: a factor is not finite.
        """
        return {site.name: site.ranked() for site in self.sites.low_rank}

    def fingerprint(self, memo: ResultStore | None = None) -> str | None:
        """Return a hash of all that the numbers follow from, or None where the files behind them cannot be known.

        Args:
            memo: keeps the hashes of the base's files between runs.
        """
        computing = (str(self.dtype), self.device.type, torch.get_float32_matmul_precision())
        return fingerprint(
            self.spec, adapter=self.adapter_path, computing=computing, loaded_ns=self._loaded_ns, memo=memo
        )

    def gradient_refusal(self) -> str | None:
        """Return why the base cannot be differentiated along this adapter's factors, or None when it can."""
        return self._gradients.refusal()

    def trained_factors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the trained B of each module that has a gradient, float32[d_out, r]."""
        return self._gradients.factors()

    def without_gradient(self) -> tuple[str, ...]:
        """Return names of trained tensors that have no part in gradients."""
        return self._gradients.left_out()

    def factor_gradients(
        self, ids: npt.NDArray[np.int64], first: int, targets: npt.NDArray[np.int64]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Return the gradient of sum log p(targets) of the base with respect to each B at B = 0, float32[d_out, r].

        Raises:
            ViewError: the model is not held by `exclusive`.
        """
        if self._open is None:
            raise ViewError("the model is not held for bulk work", where=self.id, remedy="enter `exclusive()` first")
        with shown(self.model, self.sites, BASE):
            return self._gradients.of(ids[: first + len(targets)], targets)

    @property
    def _gradients(self) -> Gradients:
        return Gradients(self.model, self.sites, self.device)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the model for bulk work; no view may be open meanwhile."""
        handle = HFView(f"{self.id} [bulk]", self.model, self.codec, lambda v: self._open is v)
        with self._exclusive(handle):
            yield

    def close(self) -> None:
        """Release the model; an open view answers no more, and calling it twice is harmless."""
        self.model = self._open = None
        self.sites = Sites((), (), ())

    @contextmanager
    def _exclusive(self, handle: HFView) -> Iterator[None]:
        if self.model is None:
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


def _label(view: View) -> str:
    if view.lam == 0.0:
        return "base"
    if view.kind == "adapter":
        return "fine-tuned" if view.lam == 1.0 else f"scaled {view.lam!r}"
    if view.kind == "top_rank":
        return f"top {view.rank_scale!r} of the rank"
    return f"{view.kind} {view.seed}/{view.draw}"
