"""Answers asks: one token table for all of them, de-duplicated, sorted by length, packed into chunks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from dlm_sway.backends.base import BulkBackend
from dlm_sway.backends.cpu_linear import fast_linears
from dlm_sway.backends.fingerprint import Fingerprinted
from dlm_sway.backends.torch_backend import TorchBackend
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.progress import NamesWhatAsks, Progress, Silent
from dlm_sway.core.store import ResultStore
from dlm_sway.core.views import BASE
from dlm_sway.engine.ask import Ask, Scores
from dlm_sway.engine.budget import view_tokens_a_pass
from dlm_sway.engine.cache import BASE_LOGPROB, ResultCache
from dlm_sway.engine.memory import fits, give_back
from dlm_sway.engine.overlaps import Overlaps, Table
from dlm_sway.engine.pack import Chunk, Key, Need, heads, pack, pack_rows
from dlm_sway.engine.reduce import reduce_block
from dlm_sway.engine.rows import Row, right_padded, rows_of
from dlm_sway.engine.shared import cut
from dlm_sway.engine.sources import ScalarSource, Source, open_source
from dlm_sway.engine.trace import CACHED, TraceWriter
from dlm_sway.engine.viewwise import ViewwiseSource
from dlm_sway.engine.widths import padded, rows_for

_ROWS_ASKED = 64  # rows that a server is asked for before their results are kept


class Engine:
    """Runs the model in bulk, once for all probes, and remembers per-position results for later rounds."""

    def __init__(
        self,
        backend: BulkBackend,
        *,
        batch_tokens: int | None = None,
        progress: Progress | None = None,
        store: ResultStore | None = None,
        reuse: bool = True,
        trace: TraceWriter | None = None,
    ) -> None:
        """Drive `backend`; a chunk holds about `batch_tokens` view-tokens.

        Args:
            backend: what to drive.
            batch_tokens: view-tokens a chunk at most; the device's own number when None.
            progress: who listens.
            store: where results outlive the run; each chunk's are there when it ends.
            reuse: whether what earlier runs left in `store` is used.
            trace: where a line a chunk is written.
        """
        self.backend = backend
        self.batch_tokens = view_tokens_a_pass(batch_tokens, getattr(backend, "device", "cpu"))
        self.progress: Progress = progress or Silent()
        self.view_tokens_done = 0
        self._source: Source | None = None
        self.seconds = 0.0
        self.cached_positions = 0
        self._planned = 0
        self._trace = trace
        self._stores = store is not None
        self._results = ResultCache(backend, store, reuse=reuse)
        self._askers: dict[Key, dict[str, None]] = {}
        self._heads: dict[Key, int] = {}
        self._overlaps = Overlaps()

    @property
    def path(self) -> str:
        """How the views are computed: `stacked`, `view by view`, or empty before the first answer."""
        return self._source.name if self._source else ""

    @property
    def kept(self) -> str:
        """What is left of the work if it stops now, as a clause."""
        if not self._results.kept and not isinstance(self.backend, Fingerprinted):
            return "nothing is kept: this backend does not say what its numbers follow from, so a run begins anew"
        if not self._results.kept and self._stores:
            return "nothing is kept, since the model's files are unknown or the cache cannot be written"
        if not self._results.kept:
            return "nothing is kept; with --resume a run keeps what it has scored"
        if not self._planned:
            return "nothing was scored yet"
        return f"{self.view_tokens_done:,} of {self._planned:,} view-tokens are kept: run again with --resume"

    def rounding_refusal(self) -> str | None:
        """Return why the dtype leaves no nulls and scales of what was trained whole, or None where it does.

        A stacked pass turns what such a tensor adds to the outputs; view by view its values are rounded.
        """
        if not isinstance(self.backend, TorchBackend):
            return None
        with self.opened() as source:
            return self.backend.sites.rounding_refusal() if isinstance(source, ViewwiseSource) else None

    def work(self) -> dict[str, float]:
        """Return what was done: view-tokens, seconds of scoring, and positions that the cache knew."""
        return {
            "view_tokens": float(self.view_tokens_done),
            "scoring_s": round(self.seconds, 3),
            "cached_positions": float(self.cached_positions),
        }

    def recall_texts(self, parts: tuple[object, ...]) -> bytes | None:
        """Return the texts that were kept under `parts`, which they follow from, or None."""
        with self.opened():
            return self._results.recall_texts(parts, path=self.path)

    def keep_texts(self, parts: tuple[object, ...], raw: bytes) -> None:
        """Keep texts under `parts`, after `recall_texts` found none."""
        self._results.keep_texts(parts, raw)

    def say_who_asks(self, names: Sequence[str]) -> None:
        """Tell who listens, where that interests it, for which probes the next work is done."""
        if names and isinstance(self.progress, NamesWhatAsks):
            self.progress.asking(names)

    def answer(self, asks: Sequence[Ask], *, askers: Sequence[str] = ()) -> list[Scores]:
        """Return the scores of each ask, in order.

        Args:
            asks: what to score.
            askers: who asks each, for the trace.

        Raises:
            BadInputError: an item holds nothing to score.
            CannotRunError: the model gave a number that is not finite, or ran out of memory on a single row.
        """
        wanted = [[rows_of(item, ask, self.backend.codec) for item in ask.items] for ask in asks]
        try:
            with self.opened() as source:
                table = self._behind_heads(asks, self._overlaps.joined(asks, wanted), source)
                self._recall(asks, table, askers)
                self._work(source, self._missing(asks, table))
            return [self._collect(*parts) for parts in zip(asks, table, wanted, strict=True)]
        finally:
            self._results.forget()

    @contextmanager
    def opened(self) -> Iterator[Source]:
        """Hold the backend for bulk work; opened once, kept for the engine's life."""
        with self.backend.exclusive(), fast_linears(getattr(self.backend, "model", None)):
            self._source = self._source or open_source(self.backend)
            yield self._source

    def _behind_heads(self, asks: Sequence[Ask], table: Table, source: Source) -> Table:
        """Decide what rows share, from all that is asked and before a cache is looked at; what was decided stays."""
        needs: dict[Key, Need] = {}
        for ask, items in zip(asks, table, strict=True):
            for row in (r for rows in items for r in rows if r.key not in self._heads):
                need = needs.setdefault(row.key, Need(row))
                need.views |= dict.fromkeys(ask.views)
                need.reducers |= ask.reducers
        self._heads |= heads(needs.values(), stacks=source.stacks, shares=lambda: source.continues)
        return [[tuple(replace(r, head=self._heads[r.key]) for r in rows) for rows in items] for items in table]

    def _recall(self, asks: Sequence[Ask], table: Table, askers: Sequence[str]) -> None:
        began = time.perf_counter()
        rows = [[r for item in items for r in item] for items in table]
        self._askers = defaultdict(dict)
        for name, some in zip(askers, rows, strict=False):
            for row in some:
                self._askers[row.key][name] = None
        wanted = ((r, a.views, a.reducers) for a, some in zip(asks, rows, strict=True) for r in some)
        hit = self._results.recall(wanted, path=self.path)
        self.cached_positions += hit
        if hit and self._trace:
            names = list(dict.fromkeys(askers))
            self._trace.add(seconds=time.perf_counter() - began, path=CACHED, hit=hit, probes=names)

    def _missing(self, asks: Sequence[Ask], table: Table) -> dict[Key, Need]:
        needs: dict[Key, Need] = {}
        for ask, items in zip(asks, table, strict=True):
            for row in (r for rows in items for r in rows):
                anew = (row, BASE, BASE_LOGPROB) not in self._results
                if anew:
                    needs.setdefault(row.key, Need(row))
                for view in ask.views:
                    absent = [r for r in ask.reducers if anew or (row, view, r) not in self._results]
                    if absent:
                        need = needs.setdefault(row.key, Need(row))
                        need.views[view] = None
                        need.reducers.update(absent)
        return needs

    def _work(self, source: Source, needs: dict[Key, Need]) -> None:
        """Compute what is needed; where memory runs out, go on with half the tokens, keeping what is done."""
        waiting = list(self._packed(source, needs))
        while waiting:
            self._planned = self.view_tokens_done + sum(c.view_tokens for c in waiting)
            chunk, *rest = waiting
            if fits(partial(self._run, chunk, source)):
                waiting = rest
                continue
            if not chunk.halves():
                raise CannotRunError(
                    f"out of memory on {chunk.width} tokens under {chunk.views[0] if chunk.views else 'the base'}",
                    remedy="score shorter texts (max_tokens), or use --dtype bf16 or another device",
                )
            # What is as large as the chunk that failed would fail as well.
            large = [c.view_tokens >= chunk.view_tokens for c in waiting]
            waiting = [part for c, cut in zip(waiting, large, strict=True) for part in (cut and c.halves()) or (c,)]
            self.batch_tokens = max(1, min(self.batch_tokens, chunk.view_tokens) // 2)

    def _packed(self, source: Source, needs: dict[Key, Need]) -> Iterator[Chunk]:
        if isinstance(source, ScalarSource):
            return pack_rows(needs.values(), n_rows=_ROWS_ASKED)
        return pack(
            needs.values(),
            batch_tokens=self.batch_tokens,
            views_per_pass=source.views_per_pass,
            stacks=source.stacks,
        )

    def _run(self, chunk: Chunk, source: Source) -> None:
        self.say_who_asks(self._names(chunk))
        began = time.perf_counter()
        values = self._asked(chunk, source) if isinstance(source, ScalarSource) else self._computed(chunk, source)
        self._results.keep(chunk.rows, chunk.views, values)
        give_back()
        self._ran(chunk, time.perf_counter() - began)

    @staticmethod
    def _asked(chunk: Chunk, source: ScalarSource) -> dict[str, npt.NDArray[np.float32]]:
        return dict(source.backend.scalars(chunk.rows, chunk.views, chunk.reducers))

    def _computed(self, chunk: Chunk, source: Source) -> dict[str, npt.NDArray[np.float32]]:
        ahead, rows = cut(chunk.rows, n_views=1 + len(chunk.views), batch_tokens=self.batch_tokens)
        longest = max(len(r.ids) for r in rows)
        # A whole row is never padded beyond the window, where some models have no positions.
        width = padded(longest) if ahead else max(longest, min(padded(longest), source.window))
        ids = right_padded(rows, width, height=rows_for(1 + len(chunk.views) if source.stacks else 1, width))
        keep = np.concatenate([[(i, p) for p in range(r.first, len(r.ids))] for i, r in enumerate(rows)])
        target = torch.from_numpy(np.concatenate([r.targets for r in chunk.rows])).to(source.device)
        parts: dict[str, list[torch.Tensor]] = defaultdict(list)
        tokens, kept = torch.from_numpy(ids).to(source.device), torch.from_numpy(keep).to(source.device)
        # A source that cannot go on from what rows share need not know of it.
        shared = {} if ahead is None else {"heads": ahead}
        # Closed on any exit: until then the model may be patched, and a traceback would keep it so.
        with torch.inference_mode(), closing(source.blocks(tokens, kept, chunk.views, **shared)) as blocks:
            for block, logits in blocks:
                for name, value in reduce_block(logits[0], logits[1:], target[block], chunk.reducers).items():
                    parts[name].append(value.cpu())
                del logits
        return {name: torch.cat(parts_of, dim=-1).numpy() for name, parts_of in parts.items()}

    def _ran(self, chunk: Chunk, seconds: float) -> None:
        n_views = 1 + len(chunk.views)
        self.note(
            seconds=seconds,
            views=n_views,
            rows=len(chunk.rows),
            tokens=chunk.view_tokens,
            scored=n_views * sum(r.n_scored for r in chunk.rows),
            reducers=chunk.reducers,
            probes=self._names(chunk),
        )

    def _names(self, chunk: Chunk) -> list[str]:
        return list(dict.fromkeys(name for row in chunk.rows for name in self._askers.get(row.key, ())))

    def note(self, *, seconds: float, tokens: int, **parts: object) -> None:
        """Count work that was done on the model, here or with `opened`; `parts` are other fields of `TraceLine`."""
        self.view_tokens_done += tokens
        self.seconds += seconds
        self.progress.work(self.view_tokens_done, max(self._planned, self.view_tokens_done))
        if self._trace:
            self._trace.add(seconds=seconds, tokens=tokens, path=self.path, **parts)

    def _collect(self, ask: Ask, items: list[tuple[Row, ...]], wanted: list[tuple[Row, ...]]) -> Scores:
        # A row may have been read from an earlier place on than this ask wants.
        rows = [_part(r, w) for read, want in zip(items, wanted, strict=True) for r, w in zip(read, want, strict=True)]
        sizes = [sum(r.n_scored for r in item) for item in wanted]
        offsets = np.cumsum([0, *sizes]).astype(np.int64)
        base = np.concatenate([self._results.get(r, BASE, BASE_LOGPROB)[part] for r, part in rows]).astype(np.float64)
        values: dict[str, npt.NDArray[np.float64]] = {}
        for name in sorted(ask.reducers):
            grid = [np.concatenate([self._results.get(r, v, name)[part] for r, part in rows]) for v in ask.views]
            values[name] = np.asarray(grid, dtype=np.float64).reshape(len(ask.views), int(offsets[-1]))
            _require_finite(values[name], name, ask)
        return Scores(ask.items, ask.views, offsets, values, base)


def _part(read: Row, wanted: Row) -> tuple[Row, slice]:
    return read, slice(read.n_scored - wanted.n_scored, None)


def _require_finite(values: npt.NDArray[np.float64], name: str, ask: Ask) -> None:
    allowed = ask.position == "last" and name in ("gain", "rank", "base_rank")
    if not allowed and not np.isfinite(values).all():
        view = ask.views[int(np.argmin(np.isfinite(values).all(axis=1)))]
        raise CannotRunError(
            f"{name} is not finite in {int((~np.isfinite(values)).sum())} places, first under {view}",
            remedy="run `sway inspect`, or use --dtype fp32",
        )
