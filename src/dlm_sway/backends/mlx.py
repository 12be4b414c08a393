"""The MLX backend: base, fine-tune, scales and nulls on one copy of the weights, on a Mac's GPU or any CPU.

    kind: mlx
    base: org/base
    adapter: runs/adapter

The base is loaded by mlx_lm, the adapter (PEFT's or mlx_lm's own) becomes low-rank terms beside it, and a view is what
stands in them. Nothing of it needs torch but the engine, which reduces the logits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.base import RankedModule
from dlm_sway.backends.differential import Nulled, Scaled
from dlm_sway.backends.fingerprint import fingerprint
from dlm_sway.backends.options import NoOptions, read_options
from dlm_sway.backends.registry import register
from dlm_sway.core.errors import BadInputError, MissingExtraError, ViewError
from dlm_sway.core.extras import install_command
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.store import ResultStore
from dlm_sway.core.views import BASE, View

if TYPE_CHECKING:
    from dlm_sway.backends.encoding import TextEncoder
    from dlm_sway.backends.mlx_load import Loaded
    from dlm_sway.backends.mlx_view import MlxView

F32 = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_BLOCK_BYTES: Final = 48 * 2**20  # one block of logits
_ROWS: Final = 32  # of a product with the vocabulary at least
_PACKAGES: Final = ("mlx", "mlx-lm", "numpy", "tokenizers", "torch", "transformers")


@register("mlx")
class MlxBackend(Scaled["MlxView"], Nulled["MlxView"]):
    """A base model and its LoRA adapter on one copy of the weights, computed by MLX.

    Satisfies every protocol of `dlm_sway.core.scoring` under the rules of the Hugging Face backend, with the same null
    bytes. The base weights are never written to.

    Attributes:
        device: `cpu` or `gpu`.
        dtype: of the weights, as mlx names it.
        codec: the tokenizer that the adapter was trained with.
    """

    kind: ClassVar[str]
    device: Any
    dtype: Any
    codec: TextEncoder

    def __init__(self, *, base_spec: ModelSpec, adapter_path: Path | str) -> None:
        """Load both.

        Raises:
            BadInputError: the base or the adapter cannot be read, do not fit, or hold what mlx has no form for.
            CannotRunError: mlx_lm would compute another model than the base's settings say.
            MissingExtraError: mlx or mlx_lm is not installed.
        """
        load = _loader()
        self.spec, self.adapter_path = base_spec, Path(adapter_path).expanduser().absolute()
        self._loaded_ns = time.time_ns()
        loaded = load(base_spec, self.adapter_path)
        self.id = f"{base_spec.base} + {self.adapter_path.name}"
        self._net: Any = loaded.net
        self.sites, self.codec = loaded.sites, loaded.codec
        self.device, self.dtype = loaded.device_name, loaded.dtype

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> MlxBackend:
        """Load the base and the adapter that `spec` names.

        Raises:
            BadInputError: as the constructor does, or the spec asks for what this kind does not do.
        """
        if spec.adapter is None:
            raise BadInputError("no adapter is named", where=spec.base, remedy="set `adapter` to its directory")
        read_options(NoOptions, spec.options, where="options of mlx", remedy="it has none: leave them out")
        if spec.quantization != "none":
            remedy = "drop the option; for a quantised base name one that mlx_lm.convert -q wrote"
            raise BadInputError("bitsandbytes does not quantise for mlx", remedy=remedy)
        return cls(base_spec=spec, adapter_path=spec.adapter)

    def null_refusal(self) -> str | None:
        """Return why rotation nulls cannot be drawn, or None when they can."""
        return None if self.sites.all else "the adapter has no trained tensor"

    def scale_refusal(self) -> str | None:
        """Return None: every adapter that loads has a scale."""
        return None

    def cut_refusal(self) -> str | None:
        """Return why the adapter cannot be cut to its largest directions, or None when it can."""
        return self.sites.cut_refusal()

    def spectra(self) -> dict[str, RankedModule]:
        """Return the spectrum of delta W by module.

        Raises:
            CannotRunError: a factor is not finite.
        """
        return {site.name: site.ranked() for site in self.sites.all}

    def fingerprint(self, memo: ResultStore | None = None) -> str | None:
        """Return a hash of all that the numbers follow from, or None where the files behind them cannot be known."""
        return fingerprint(
            self.spec,
            adapter=self.adapter_path,
            computing=("mlx", str(self.dtype), str(self.device)),
            loaded_ns=self._loaded_ns,
            memo=memo,
            packages=_PACKAGES,
        )

    def views_per_pass(self) -> int:
        """Return how many views besides the base one pass should have at most."""
        return self.sites.views_per_pass()

    def logit_blocks(self, ids: Ids, keep: Ids, views: Sequence[View]) -> Iterator[tuple[slice, F32]]:
        """Yield `(block of keep, logits float32[1 + V, p, K])` of right-padded rows; index 0 is the base.

        Raises:
            ViewError: the model is not held by `exclusive`.
            CannotRunError: an adapter that cannot be cut was to be.
        """
        from dlm_sway.backends.mlx_layers import stacked_blocks

        self._require_held()
        every = (BASE, *views)
        with self.sites.showing(every):
            yield from stacked_blocks(self._net, ids, keep, n_views=len(every), least=_ROWS, max_bytes=_BLOCK_BYTES)

    def gradient_refusal(self) -> str | None:
        """Return why the base cannot be differentiated along this adapter's factors, or None when it can."""
        return None if self.sites.plain() else "no trained module is a plain LoRA, whose change is linear in B"

    def trained_factors(self) -> dict[str, F32]:
        """Return the trained B of each module that has a gradient, float32[d_out, r]."""
        return {site.name: site.factors.b for site in self.sites.plain()}

    def without_gradient(self) -> tuple[str, ...]:
        """Return names of trained modules that have no part in gradients: DoRA's, which are not linear in B."""
        plain = {site.name for site in self.sites.plain()}
        return tuple(site.name for site in self.sites.all if site.name not in plain)

    def factor_gradients(self, ids: Ids, first: int, targets: Ids) -> dict[str, F32]:
        """Return the gradient of sum log p(targets) of the base with respect to each B at B = 0, float32[d_out, r].

        Raises:
            ViewError: the model is not held by `exclusive`.
        """
        from dlm_sway.backends.mlx_gradients import factor_gradients

        self._require_held()
        return factor_gradients(self._net, self.sites, ids[: first + len(targets)], targets)

    def close(self) -> None:
        """Release the model; an open view answers no more, and calling it twice is harmless."""
        super().close()
        if self._net is not None:
            from dlm_sway.backends.mlx_load import release

            self._net, self.sites = None, type(self.sites)()
            release()

    def _require_held(self) -> None:
        if self._open is None:
            raise ViewError("the model is not held for bulk work", where=self.id, remedy="enter `exclusive()` first")

    def _handle(self, label: str, view: View) -> MlxView:  # noqa: ARG002 (the model itself shows the view)
        from dlm_sway.backends.mlx_view import MlxView

        return MlxView(f"{self.id} [{label}]", self._net, self.codec, self._is_open)

    def _shown(self, view: View) -> AbstractContextManager[None]:
        return self.sites.showing((view,))


def _loader() -> Callable[[ModelSpec, Path], Loaded]:
    try:
        from dlm_sway.backends.mlx_load import load
    except ModuleNotFoundError:
        raise  # the registry says which package it is
    except ImportError as e:  # mlx without the library that computes, as `pip install mlx` leaves it on Linux
        what = f"mlx is installed and cannot compute here: {str(e)[:200]}"
        raise MissingExtraError(what, remedy=install_command("mlx")) from e
    return load
