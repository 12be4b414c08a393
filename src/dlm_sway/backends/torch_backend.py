"""A backend on one loaded PyTorch model: the views that its trained tensors make, for one prompt and for the engine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from dlm_sway.backends.base import RankedModule
from dlm_sway.backends.differential import Nulled, Scaled
from dlm_sway.backends.encoding import TextEncoder
from dlm_sway.backends.hf_overlay import shown
from dlm_sway.backends.hf_sites import Sites
from dlm_sway.backends.hf_view import HFView
from dlm_sway.core.views import View


class TorchBackend(Scaled[HFView], Nulled[HFView]):
    """Base, fine-tune, scales and nulls by exchanging tensors of one model.

    Attributes:
        model: a PeftModel, or what answers as one.
        sites: where it differs from its base.
        codec: its tokenizer.
        device: where it computes.
        dtype: of its weights.
    """

    model: Any
    sites: Sites
    codec: TextEncoder
    device: Any
    dtype: Any

    def null_refusal(self) -> str | None:
        """Return why rotation nulls cannot be drawn for this fine-tune, or None when they can."""
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

    def close(self) -> None:
        """Release the model; an open view answers no more, and calling it twice is harmless."""
        super().close()
        self.model, self.sites = None, Sites((), (), ())

    def _handle(self, label: str, view: View) -> HFView:  # noqa: ARG002 (the model itself shows the view)
        return HFView(f"{self.id} [{label}]", self.model, self.codec, self._is_open)

    def _shown(self, view: View) -> AbstractContextManager[None]:
        return shown(self.model, self.sites, view)
