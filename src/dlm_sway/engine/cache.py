"""Per-position results by content: what was scored once is not scored again, in this run or, with a store, in another.

A result's key is a hash of all that its value follows from: the code of the engine, the model with its adapter, the
path of the engine, the tokens and how many of them are read ahead, the view and the reducer. So an entry cannot be
stale, and nothing ever needs to be invalidated. What the running asks need is held until they are answered, whatever a
bound makes a store forget.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.backends.fingerprint import Fingerprinted
from dlm_sway.core.store import MemoryStore, ResultStore
from dlm_sway.core.views import BASE, View
from dlm_sway.engine.rows import Row

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

BASE_LOGPROB: Final = "base_logprob"
MEMORY_BYTES: Final = 256 * 2**20
_PARTS: Final = ("engine", "backends", "adapters", "core")

_log: Final = logging.getLogger(__name__)
Values: TypeAlias = npt.NDArray[np.float32]
Wanted: TypeAlias = tuple[Row, tuple[View, ...], frozenset[str]]
_Slot: TypeAlias = tuple[tuple[bytes, int, int, int], View, str]


class ResultCache:
    """Holds what the running asks need; behind it a bounded memory for later asks, and a store for later runs."""

    def __init__(
        self,
        backend: object,
        store: ResultStore | None = None,
        *,
        reuse: bool = True,
        max_bytes: int = MEMORY_BYTES,
    ) -> None:
        """Remember results of `backend`, at most about `max_bytes` of them between asks.

        Args:
            backend: kept in `store` only if it is `Fingerprinted`.
            store: where results outlive the run, or None.
            reuse: whether what earlier runs left in `store` is used; this run's own results always are.
            max_bytes: of memory for results that no running ask needs.
        """
        self.kept = store is not None
        self._backend = backend
        self._store = store
        self._reuse = reuse
        self._memory = MemoryStore(max_bytes=max_bytes)
        self._held: dict[_Slot, Values] = {}
        self._path: str | None = None
        self._identity = b""

    def __contains__(self, slot: tuple[Row, View, str]) -> bool:
        """Return whether a result is held."""
        row, view, name = slot
        return (row.key, view, name) in self._held

    def get(self, row: Row, view: View, name: str) -> Values:
        """Return a result that is held, float32[row.n_scored]."""
        return self._held[row.key, view, name]

    def recall(self, wanted: Iterable[Wanted], *, path: str) -> int:
        """Hold what is known of `wanted` and return how many positions that is, each counted once a view.

        Args:
            wanted: rows, the views needed of each besides the base, and the reducers.
            path: how the engine computes; results of another path are other results.
        """
        self._identify(path)
        if self._store is None and not len(self._memory):
            return 0
        slots: dict[bytes, tuple[_Slot, int]] = {}
        for row, views, names in wanted:
            key, digest = row.key, _row_digest(self._identity, row)
            for view, name in ((BASE, BASE_LOGPROB), *((v, n) for v in views for n in names)):
                if (key, view, name) not in self._held:
                    slots[_result_key(digest, view, name)] = ((key, view, name), row.n_scored)
        positions: dict[tuple[object, View], int] = {}
        for result_key, raw in self._found(slots).items():
            slot, n = slots[result_key]
            if len(raw) == 4 * n:
                self._held[slot] = np.frombuffer(raw, dtype="<f4")
                positions[slot[:2]] = n
        return sum(positions.values())

    def keep(self, rows: Iterable[Row], views: tuple[View, ...], values: Mapping[str, Values]) -> None:
        """Hold the results of one pass, and keep them for later.

        Args:
            rows: what was scored, in the order of the last axis.
            views: the first axis.
            values: float32[V, P] for each reducer, and float32[P] for `base_logprob`.
        """
        entries: dict[bytes, bytes] = {}
        doubtful: set[bytes] = set()
        begin = 0
        for row in rows:
            digest, part = _row_digest(self._identity, row), slice(begin, begin + row.n_scored)
            begin = part.stop
            for name, all_values in values.items():
                grid, of = (all_values[None], (BASE,)) if name == BASE_LOGPROB else (all_values, views)
                for view, line in zip(of, grid[:, part], strict=True):
                    self._held[row.key, view, name] = line
                    key = _result_key(digest, view, name)
                    entries[key] = line.astype("<f4", copy=False).tobytes()
                    if not np.isfinite(line).all() and row.targets.min() >= 0:
                        doubtful.add(key)
        self._memory.put_many(entries)
        if self._store is not None:
            # What is not a number where it should be may be the machine's fault, which another run need not repeat.
            self.kept &= self._store.put_many({k: v for k, v in entries.items() if k not in doubtful})

    def recall_texts(self, parts: tuple[object, ...], *, path: str) -> bytes | None:
        """Return what was kept of texts that follow from `parts`, or None.

        Args:
            parts: JSON values: the prompts and how they were continued.
            path: as for `recall`.
        """
        self._identify(path)
        key = self._texts_key(parts)
        return self._found((key,)).get(key)

    def keep_texts(self, parts: tuple[object, ...], raw: bytes) -> None:
        """Keep texts that follow from `parts`, as bytes."""
        key = self._texts_key(parts)
        self._memory.put_many({key: raw})
        if self._store is not None:
            self.kept &= self._store.put_many({key: raw})

    def _texts_key(self, parts: tuple[object, ...]) -> bytes:
        return hashlib.sha256(self._identity + _digest("texts", *parts)).digest()

    def forget(self) -> None:
        """Let go of what is held; the stores still have it as far as their bounds allow."""
        self._held.clear()

    def _found(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        found = self._memory.get_many(keys)
        if self._store is not None and self._reuse:
            known = self._store.get_many(key for key in keys if key not in found)
            self._memory.put_many(known)
            found |= known
        return found

    def _identify(self, path: str) -> None:
        if path == self._path:
            return
        mark = None
        if self._store is not None:
            mark = self._backend.fingerprint(self._store) if isinstance(self._backend, Fingerprinted) else None
        if mark is None and self._store is not None:
            _log.warning("results are not kept beyond this run: its files are unknown, or changed after loading")
            self._store, self.kept = None, False
        self._path = path
        self._identity = _digest(_code_hash(), mark or "", path)


def _row_digest(identity: bytes, row: Row) -> bytes:
    ids, targets = (np.ascontiguousarray(x, dtype="<i8").tobytes() for x in (row.ids, row.targets))
    return hashlib.sha256(b"".join((identity, _digest(len(ids), row.first, row.head), ids, targets))).digest()


def _result_key(row_digest: bytes, view: View, name: str) -> bytes:
    return hashlib.sha256(row_digest + _label(view, name)).digest()


@lru_cache(maxsize=4096)
def _label(view: View, name: str) -> bytes:
    # Every field by its name, so that a view which gains a field cannot meet results from before it.
    return _digest(name, *((f.name, repr(getattr(view, f.name))) for f in fields(view)))


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()


@cache
def _code_hash() -> str:
    """Return a hash of the code that results follow from: a version number could be forgotten when it changes."""
    total = hashlib.sha256()
    for part in _PARTS:
        for file in _sources(files("dlm_sway").joinpath(part)):
            total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _sources(folder: Traversable) -> list[Traversable]:
    return sorted((f for f in folder.iterdir() if f.name.endswith(".py")), key=lambda f: f.name)
