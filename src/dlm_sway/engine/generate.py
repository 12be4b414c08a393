"""Continues prompts under many views, all of them in one batch: greedy or sampled, the same text whatever the batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlm_sway.backends.base import BulkBackend, Format
from dlm_sway.backends.encoding import token_ids
from dlm_sway.core.errors import BadInputError, CannotRunError
from dlm_sway.core.views import View
from dlm_sway.engine.decode import CachedStepper, Ids, ModelSource, WholeStepper, decode
from dlm_sway.engine.memory import fits
from dlm_sway.engine.pack import split
from dlm_sway.engine.run import Engine
from dlm_sway.engine.sampling import Sampling, Uniforms, draw, n_levels, text_stream
from dlm_sway.engine.sources import Source

_LOGIT_BYTES = 64 * 2**20  # logits of one step
_DRAW_BYTES = 8 * 2**20  # logits drawn from at once; a draw works on several fp64 copies of them
_CACHE_BYTES = 64 * 2**10  # KV cache, for each view-token of a chunk; at least a quarter of the weights is allowed


@dataclass(frozen=True, slots=True)
class Generations:
    """What each view wrote after each prompt.

    Attributes:
        views: the views, the leading axis of all others.
        prompts: int64[n] a prompt, as the model read it.
        tokens: `tokens[v][i]` int64[t], the continuation of prompt i under view v; ends with the stop token if stopped.
        texts: `texts[v][i]`, the same as text, special tokens left out.
        stopped: bool[V, n_prompts], whether a stop token ended the text (else a limit did).
        view_tokens: tokens read, counted once a view; padding included.
    """

    views: tuple[View, ...]
    prompts: tuple[Ids, ...]
    tokens: tuple[tuple[Ids, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    stopped: npt.NDArray[np.bool_]
    view_tokens: int


@dataclass(frozen=True, slots=True)
class _Text:
    """A prompt to continue; equal prompts differ in `repeat` when tokens are drawn and are one when they are not."""

    ids: Ids
    repeat: int

    @property
    def key(self) -> tuple[bytes, int]:
        return self.ids.tobytes(), self.repeat


def generate(
    engine: Engine,
    prompts: Sequence[str | Ids],
    *,
    views: Sequence[View],
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    format: Format = "auto",  # noqa: A002 (DESIGN 5's word)
) -> Generations:
    """Return the continuations of all prompts under all views.

    A text depends on its own prompt, view and seed only; what else is in the call changes the numbers by rounding. The
    k-th of several equal prompts gets draws of its own.

    Args:
        engine: holds the model; a chunk reads about its `batch_tokens` at once.
        prompts: texts, or token ids int64[n] that are read as they are; an empty one becomes the prefix token.
        views: whose continuations; the base only if it is among them.
        max_new_tokens: at most so many tokens a text, and never more than the context window has room for.
        temperature: 0 for the most probable token at each step, else what logits are divided by.
        top_p: draw from the smallest set of tokens that holds this much probability.
        seed: of the draws.
        format: how prompts given as text are rendered.

    Raises:
        BadInputError: a prompt is longer than the context window, or an option has no meaning.
        CannotRunError: a view gives logits that are not finite.
    """
    how = Sampling(temperature, top_p, seed)
    if max_new_tokens < 0:
        raise BadInputError(f"max_new_tokens must not be negative, got {max_new_tokens}")
    encoded = tuple(_encode(p, i, engine.backend, format) for i, p in enumerate(prompts))
    texts = _texts(encoded, how)
    writer = _Writer(engine, how, max_new_tokens)
    if max_new_tokens > 0 and texts and views:
        writer.write(list({t.key: t for t in texts}.values()), tuple(dict.fromkeys(views)))
    return writer.collect(encoded, texts, tuple(views))


def _encode(prompt: str | Ids, index: int, backend: BulkBackend, format: Format) -> Ids:  # noqa: A002 (DESIGN 5's word)
    codec = backend.codec
    if isinstance(prompt, str):
        ids = codec.encode_prompt(prompt, format=format)
    else:
        ids = np.asarray(prompt, dtype=np.int64) if len(prompt) else codec.encode_prompt("")
    if len(ids) > codec.max_length:
        raise BadInputError(
            f"the prompt has {len(ids)} tokens and the model reads {codec.max_length}",
            where=f"prompt {index + 1}",
            remedy="shorten the prompt; cutting it silently would change what is tested",
        )
    return ids


def _texts(encoded: Sequence[Ids], how: Sampling) -> list[_Text]:
    seen: Counter[bytes] = Counter()
    out = []
    for ids in encoded:
        key = ids.tobytes()
        out.append(_Text(ids, 0 if how.greedy else seen[key]))
        seen[key] += 1
    return out


class _Writer:
    """One call of `generate`: writes chunk by chunk and keeps what is written."""

    def __init__(self, engine: Engine, how: Sampling, max_new_tokens: int) -> None:
        self._engine, self._how, self._max_new_tokens = engine, how, max_new_tokens
        self._window = engine.backend.codec.max_length
        self._stops = _stop_ids(engine.backend)
        self._tokens: dict[tuple[View, tuple[bytes, int]], Ids] = {}
        self._view_tokens = 0

    def write(self, texts: list[_Text], views: tuple[View, ...]) -> None:
        """Continue distinct texts under distinct views."""
        texts.sort(key=lambda t: (len(t.ids), t.key))
        with self._engine.opened() as source, torch.inference_mode():
            at_once = source.views_per_pass(views) if source.stacks else 1
            for group in split(views, at_once):
                for few, part in self._chunks(texts, group, source):
                    self._fit(part, few, source)

    def collect(self, encoded: tuple[Ids, ...], texts: list[_Text], views: tuple[View, ...]) -> Generations:
        """Return everything written, in the order asked for."""
        nothing = np.empty(0, dtype=np.int64)
        tokens = tuple(tuple(self._tokens.get((v, t.key), nothing) for t in texts) for v in views)
        decoded = tuple(tuple(self._engine.backend.codec.decode(ids) for ids in row) for row in tokens)
        stopped = np.array([[bool(ids.size) and int(ids[-1]) in self._stops for ids in row] for row in tokens])
        shape = (len(views), len(texts))
        return Generations(views, encoded, tokens, decoded, stopped.reshape(shape).astype(bool), self._view_tokens)

    def _chunks(
        self, texts: list[_Text], views: tuple[View, ...], source: Source
    ) -> Iterator[tuple[tuple[View, ...], list[_Text]]]:
        """Cut to the budget: texts first, and views too where one text under all of them is too much."""
        done = 0
        while done < len(texts):
            size = len(texts) - done
            while size > 1 and size * len(views) > self._room(len(texts[done + size - 1].ids), source):
                size = -(-size // 2)
            part = texts[done : done + size]
            few = len(views) if size > 1 else self._room(len(part[-1].ids), source)
            yield from ((some, part) for some in split(views, few))
            done += size

    def _room(self, width: int, source: Source) -> int:
        """Return how many rows with prompts of `width` tokens go at once; at least 1."""
        batch_tokens = self._engine.batch_tokens
        rooms = [batch_tokens // width]
        if isinstance(source, ModelSource):
            rooms.append(_LOGIT_BYTES // (4 * source.model.config.get_text_config().vocab_size))
            if source.continues:
                length = min(width + self._max_new_tokens, self._window)
                room = max(_CACHE_BYTES * batch_tokens, source.model.get_memory_footprint() // 4)
                rooms.append(room // (length * _cache_bytes_a_token(source.model)))
        return int(max(1, min(rooms)))

    def _fit(self, texts: list[_Text], views: tuple[View, ...], source: Source) -> None:
        """Write, in halves where memory runs out."""
        if fits(partial(self._run, texts, views, source)):
            return
        if len(texts) == len(views) == 1:
            raise CannotRunError(
                f"out of memory on a prompt of {len(texts[0].ids)} tokens under {views[0]}",
                remedy="write fewer tokens (max_new_tokens), or use --dtype bf16 or another device",
            )
        for part in (texts[::2], texts[1::2]) if len(texts) > 1 else (texts,):
            for few in (views,) if len(texts) > 1 else (views[::2], views[1::2]):
                self._fit(part, few, source)

    def _run(self, texts: list[_Text], views: tuple[View, ...], source: Source) -> None:
        began = time.perf_counter()
        rows = [(v, t) for v in views for t in texts]
        room = np.array([self._window - len(t.ids) + 1 for _, t in rows])  # the last token is written, never read
        limits = np.minimum(room, self._max_new_tokens)
        view_of = np.repeat(np.arange(len(views)), len(texts))
        with self._stepper(source, views, [t.ids for t in texts]) as stepper:
            tokens = decode(stepper, view_of, limits=limits, stops=self._stops, pick=_Picker(self._how, rows))
        for (view, text), written in zip(rows, tokens, strict=True):
            self._tokens[view, text.key] = np.array(written, dtype=np.int64)
        self._view_tokens += stepper.view_tokens
        seconds = time.perf_counter() - began
        self._engine.note(seconds=seconds, tokens=stepper.view_tokens, views=len(views), rows=len(texts))

    def _stepper(
        self, source: Source, views: tuple[View, ...], prompts: list[Ids]
    ) -> AbstractContextManager[CachedStepper | WholeStepper]:
        if isinstance(source, ModelSource) and source.continues:
            return CachedStepper(source, views, prompts, max_length=self._window)
        return WholeStepper(source, views, prompts)


class _Picker:
    """Picks the next token of each row."""

    def __init__(self, how: Sampling, rows: Sequence[tuple[View, _Text]]) -> None:
        self._how, self._rows = how, rows
        if not how.greedy:
            self._uniforms = Uniforms(text_stream(how.seed, v, t.ids, repeat=t.repeat) for v, t in rows)

    def __call__(self, logits: Tensor, rows: Ids) -> Ids:
        """Return int64[r] from logits [r, K] of the rows int64[r]."""
        best = logits.max(dim=-1)
        if not bool((fine := torch.isfinite(best.values)).all()):
            view = self._rows[rows[int(torch.argmin(fine.int()))]][0]
            raise CannotRunError(
                f"the logits of {view} are not finite", remedy="run `sway inspect`, or use --dtype fp32"
            )
        if self._how.greedy:
            return best.indices.cpu().numpy()
        uniforms = torch.from_numpy(self._uniforms.next(rows.tolist(), n_levels(logits.shape[-1])))
        step = max(1, _DRAW_BYTES // (4 * logits.shape[-1]))
        parts = [slice(i, i + step) for i in range(0, len(logits), step)]
        return torch.cat([draw(logits[part], uniforms[part], self._how) for part in parts]).cpu().numpy()


def _stop_ids(backend: BulkBackend) -> frozenset[int]:
    """Return the tokens that end a text: those of the model's generation config, and of the tokenizer."""
    config = getattr(getattr(backend, "model", None), "generation_config", None)
    own = token_ids(getattr(config, "eos_token_id", None))
    return frozenset((*own, *getattr(backend.codec, "stop_ids", ())))


def _cache_bytes_a_token(model: Any) -> int:
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize)
