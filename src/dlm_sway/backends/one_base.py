"""One loaded base for several adapters: what comes after the first loads its adapter alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from dlm_sway.backends.registry import Backend, open_backend
from dlm_sway.core.model import ModelSpec


@runtime_checkable
class ExchangesAdapters(Protocol):
    """A backend that can put another adapter on the base it has loaded."""

    def exchange_adapter(self, adapter: Path) -> bool:
        """Put it on; when that cannot be done, return False, and the backend is closed."""
        ...


class OneBase:
    """Opens backends one after another; those whose specs differ in the adapter alone share one loaded base.

    The numbers are those of a base loaded anew: its own values are put back bit for bit, and a backend that cannot
    promise that is loaded again.
    """

    def __init__(self) -> None:
        self._kept: tuple[ModelSpec, Backend] | None = None
        self.loads = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the backend that is still open."""
        self.close()

    @contextmanager
    def lent(self, spec: ModelSpec, *, allow_custom: bool = False) -> Iterator[Backend]:
        """Open what `spec` names for the block; after an error in it nothing is kept.

        Raises:
            BadInputError: as `open_backend` does.
            MissingExtraError: likewise.
        """
        backend = self._exchanged(spec) or self._opened(spec, allow_custom=allow_custom)
        try:
            yield backend
        except BaseException:
            backend.close()
            raise
        self._kept = spec, backend

    def close(self) -> None:
        """Close what is kept; calling it twice is harmless."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept[1].close()

    def _opened(self, spec: ModelSpec, *, allow_custom: bool) -> Backend:
        self.close()
        self.loads += 1
        return open_backend(spec, allow_custom=allow_custom)

    def _exchanged(self, spec: ModelSpec) -> Backend | None:
        if self._kept is None or spec.adapter is None:
            return None
        before, backend = self._kept
        if not isinstance(backend, ExchangesAdapters) or before.model_copy(update={"adapter": spec.adapter}) != spec:
            return None
        self._kept = None
        return backend if backend.exchange_adapter(Path(spec.adapter)) else None
