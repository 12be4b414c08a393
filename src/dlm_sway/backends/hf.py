"""The Hugging Face backend: base, fine-tune, scales and nulls on one copy of the weights."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from dlm_sway.backends.encoding import TextEncoder, context_window
from dlm_sway.backends.fingerprint import fingerprint
from dlm_sway.backends.hf_find import find_sites
from dlm_sway.backends.hf_gradients import Gradients
from dlm_sway.backends.hf_load import Loaded, exchange, load
from dlm_sway.backends.registry import register
from dlm_sway.backends.torch_backend import TorchBackend
from dlm_sway.core.errors import BadInputError, ViewError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.store import ResultStore
from dlm_sway.core.views import BASE


@register("hf")
class HuggingFaceDifferentialBackend(TorchBackend):
    """A base model and its PEFT adapter on one loaded copy of the weights.

    Satisfies every protocol of `dlm_sway.core.scoring`. One view is open at a time; opening another inside it
    raises `ViewError`, and so does using a view after its block. The real adapter returns bit for bit on any exit.
    """

    kind: ClassVar[str]
    _loaded: Loaded | None

    def __init__(self, *, base_spec: ModelSpec, adapter_path: Path | str) -> None:
        """Load both.

        Raises:
            BadInputError: the base or the adapter cannot be read, or they do not fit.
        """
        self.spec = base_spec
        self.adapter_path = Path(adapter_path).expanduser().absolute()
        self._loaded_ns = self._adapter_ns = time.time_ns()
        loaded = load(base_spec, self.adapter_path)
        self.device, self.dtype = loaded.device, loaded.dtype
        self._use(loaded)

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> HuggingFaceDifferentialBackend:
        """Load the base and the adapter that `spec` names.

        Raises:
            BadInputError: no adapter is named, one of the two cannot be read, or they do not fit.
        """
        if spec.adapter is None:
            raise BadInputError("no adapter is named", where=spec.base, remedy="set `adapter` to its directory")
        return cls(base_spec=spec, adapter_path=spec.adapter)

    def exchange_adapter(self, adapter: Path) -> bool:
        """Put another adapter on the loaded base; when that cannot be done, return False, and the backend is closed.

        Raises:
            AdapterError: the adapter cannot be read or does not fit the base; the backend is closed.
            ViewError: a view is open, or the backend is closed.
        """
        with self.exclusive():
            loaded, self._loaded = self._loaded, None
        began = time.time_ns()
        try:
            other = None if loaded is None else exchange(loaded, self.spec, adapter.expanduser().absolute())
        except BaseException:
            self.close()
            raise
        if other is None:
            self.close()
            return False
        self.adapter_path, self._adapter_ns = adapter.expanduser().absolute(), began
        self.spec = self.spec.model_copy(update={"adapter": self.adapter_path})
        self._use(other)
        return True

    def close(self) -> None:
        """Release the model; an open view answers no more, and calling it twice is harmless."""
        super().close()
        self._loaded = None

    def _use(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.id = f"{self.spec.base} + {self.adapter_path.name}"
        self.model = loaded.model
        self.codec = TextEncoder(loaded.tokenizer, max_length=context_window(loaded.model.config, loaded.tokenizer))
        self.sites = find_sites(loaded.model, base_values=loaded.base_values)

    def fingerprint(self, memo: ResultStore | None = None) -> str | None:
        """Return a hash of all that the numbers follow from, or None where the files behind them cannot be known.

        Args:
            memo: keeps the hashes of the base's files between runs.
        """
        computing = (str(self.dtype), self.device.type, torch.get_float32_matmul_precision())
        return fingerprint(
            self.spec,
            adapter=self.adapter_path,
            computing=computing,
            loaded_ns=self._loaded_ns,
            adapter_ns=self._adapter_ns,
            memo=memo,
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
        with self._shown(BASE):
            return self._gradients.of(ids[: first + len(targets)], targets)

    @property
    def _gradients(self) -> Gradients:
        return Gradients(self.model, self.sites, self.device)
