"""Where the time of a run goes: a JSON line a pass over the model, written as it ends.

A line is written whole and at once, so that a run which is killed leaves the lines of the passes it made. No torch.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Self, TextIO, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from dlm_sway.core.errors import BadInputError

CACHED: Final = "cache"
_log: Final = logging.getLogger(__name__)
_Count: TypeAlias = Annotated[int, Field(ge=0)]
_Time: TypeAlias = Annotated[FiniteFloat, Field(ge=0)]


class TraceLine(BaseModel):
    """One pass over the model, or one look into the cache.

    Attributes:
        t: seconds from the start of the run to the end of the pass.
        ms: milliseconds that it took.
        views: views in it, the base among them.
        rows: token sequences in it.
        tokens: view-tokens read, padding included.
        scored: positions scored, each counted once a view.
        reducers: the scalars computed at each.
        path: how the views were computed, such as `stacked`; `cache` for a look into the cache.
        hit: positions that the cache knew, each counted once a view.
        probes: who asked, where it is known.
    """

    model_config = ConfigDict(frozen=True)

    t: _Time
    ms: _Time
    views: _Count = 0
    rows: _Count = 0
    tokens: _Count = 0
    scored: _Count = 0
    reducers: tuple[str, ...] = ()
    path: str = ""
    hit: _Count = 0
    probes: tuple[str, ...] = ()


class TraceWriter:
    """Writes the lines of one run to a file, which is begun anew.

    A file that cannot be written to any more, as when the disk is full, ends the trace and not the run.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """Begin the file.

        Raises:
            BadInputError: it cannot be created.
        """
        self._path = path
        self._clock = clock
        self._began = clock()
        try:
            self._file: TextIO | None = path.open("w", encoding="utf-8", buffering=1)
        except OSError as fault:
            what = f"cannot write the trace here: {fault.strerror}"
            raise BadInputError(what, where=path, remedy="name another file with --trace") from fault

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None) -> None:
        """End the file."""
        self.close()

    def add(self, *, seconds: float, **parts: object) -> None:
        """Write the line of a pass that ends now and took `seconds`; `parts` are the other fields of `TraceLine`."""
        if self._file is None:
            return
        moment = {"t": round(self._clock() - self._began, 6), "ms": round(1000 * seconds, 3)}
        try:
            self._file.write(json.dumps({**moment, **parts}) + "\n")
        except OSError as fault:
            self.close()
            _log.warning("the trace ends here: %s: %s", self._path, fault.strerror)

    def close(self) -> None:
        """End the file; calling it twice is harmless."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as fault:
                _log.warning("the trace is not whole: %s: %s", self._path, fault.strerror)
