"""Answers what probes ask: scores, texts and slopes, each kind together, in the order asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, replace
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from dlm_sway.backends.base import ChatCodec, Messages, Reply, WritingBackend
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.views import View
from dlm_sway.engine.ask import Answer, Ask, Request, Slopes, Write, Written
from dlm_sway.engine.decode import Ids
from dlm_sway.engine.generate import generate
from dlm_sway.engine.run import Engine
from dlm_sway.engine.slopes import slopes

_How: TypeAlias = tuple[tuple[View, ...], int, float, float, int]
_Rows: TypeAlias = dict[View, Sequence[Reply]]


def answer(engine: Engine, wanted: Sequence[Request], *, askers: Sequence[str] = ()) -> list[Answer]:
    """Return the answer to each ask, in order; all scores ride the same passes, and so do all greedy texts.

    Args:
        engine: holds the model.
        wanted: what to score, what to write, what to differentiate along.
        askers: who asks each, for the trace.

    Raises:
        BadInputError: an item holds nothing to score, or a prompt cannot be rendered or read.
        CannotRunError: the model gave a number that is not finite, or ran out of memory on a single row.
    """
    asks = [(i, ask) for i, ask in enumerate(wanted) if isinstance(ask, Ask)]
    writes = [(i, ask) for i, ask in enumerate(wanted) if isinstance(ask, Write)]
    found: dict[int, Answer] = {
        i: slopes(engine, ask, askers=askers[i : i + 1]) for i, ask in enumerate(wanted) if isinstance(ask, Slopes)
    }
    if asks:
        who = [askers[i] for i, _ in asks] if askers else ()
        found |= dict(zip((i for i, _ in asks), engine.answer([ask for _, ask in asks], askers=who), strict=True))
    if writes and askers:
        engine.say_who_asks([askers[i] for i, _ in writes])
    found |= dict(zip((i for i, _ in writes), write(engine, [ask for _, ask in writes]), strict=True))
    return [found[i] for i in range(len(wanted))]


def write(engine: Engine, wanted: Sequence[Write]) -> list[Written]:
    """Return what the views write.

    Greedy texts that differ only in their prompts and tools are decoded together. Drawn ones are decoded ask by ask:
    the k-th of several equal prompts has draws of its own, and who else asks must not change k.
    """
    own = [_written_by_backend(engine, ask) for ask in wanted]
    rest = [
        replace(ask, views=tuple(v for v in ask.views if v not in mine)) for ask, mine in zip(wanted, own, strict=True)
    ]
    groups: dict[tuple[_How, int], list[int]] = {}
    for i, ask in enumerate(rest):
        if not ask.views:
            continue
        how = (ask.views, ask.max_new_tokens, ask.temperature, ask.top_p, ask.seed)
        groups.setdefault((how, -1 if ask.temperature == 0 else i), []).append(i)
    decoded: dict[int, _Rows] = {}
    for members in groups.values():
        decoded |= dict(zip(members, _decoded(engine, [rest[i] for i in members]), strict=True))
    return [_joined(ask, own[i] | decoded.get(i, {})) for i, ask in enumerate(wanted)]


def _joined(ask: Write, rows: _Rows) -> Written:
    grid = [rows[view] for view in ask.views]
    shape = (len(ask.views), len(ask.prompts))
    return Written(
        ask,
        tuple(tuple(reply.text for reply in row) for row in grid),
        np.array([[reply.n_tokens for reply in row] for row in grid], dtype=np.int64).reshape(shape),
        np.array([[reply.stopped for reply in row] for row in grid], dtype=np.bool_).reshape(shape),
    )


def _decoded(engine: Engine, asks: Sequence[Write]) -> list[_Rows]:
    """Decode asks that differ in nothing but prompts, format and tools, unless an earlier run has kept the texts.

    They are kept as the batch that they were: a text is a choice among logits, and those of another batch differ by
    rounding.
    """
    first = asks[0]
    prompts = [_ids(engine, ask, prompt) for ask in asks for prompt in ask.prompts]
    ends = np.cumsum([0, *(len(ask.prompts) for ask in asks)])
    key = _key(first, prompts, engine.batch_tokens)
    rows = _kept(engine.recall_texts(key), first.views, len(prompts))
    if rows is None:
        rows = _made(engine, first, prompts)
        listed = [[astuple(reply) for reply in rows[view]] for view in first.views]
        engine.keep_texts(key, json.dumps(listed).encode())
    return [{v: row[a:b] for v, row in rows.items()} for a, b in pairwise(ends)]


def _key(ask: Write, prompts: Sequence[Ids], batch_tokens: int) -> tuple[object, ...]:
    views = [asdict(view) for view in ask.views]
    how = (ask.max_new_tokens, ask.temperature, ask.top_p, ask.seed, batch_tokens)
    return (views, how, [ids.tolist() for ids in prompts])


def _kept(raw: bytes | None, views: Sequence[View], n_prompts: int) -> _Rows | None:
    if raw is None:
        return None
    rows = [[Reply(str(text), int(n), bool(stopped)) for text, n, stopped in row] for row in json.loads(raw)]
    fits = len(rows) == len(views) and all(len(row) == n_prompts for row in rows)
    return dict(zip(views, rows, strict=True)) if fits else None


def _made(engine: Engine, first: Write, prompts: Sequence[Ids]) -> _Rows:
    made = generate(
        engine,
        prompts,
        views=first.views,
        max_new_tokens=first.max_new_tokens,
        temperature=first.temperature,
        top_p=first.top_p,
        seed=first.seed,
    )
    return {
        view: [Reply(text, ids.size, bool(stop)) for text, ids, stop in zip(*parts, strict=True)]
        for view, *parts in zip(made.views, made.texts, made.tokens, made.stopped, strict=True)
    }


def _ids(engine: Engine, ask: Write, prompt: str | Messages) -> Ids:
    codec = engine.backend.codec
    if isinstance(prompt, str) and ask.tools is None:
        return codec.encode_prompt(prompt, format=ask.format)
    if not isinstance(codec, ChatCodec):
        raise BadInputError("the backend renders no conversations", remedy="give prompts as plain text")
    turns: Messages = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
    return codec.encode_messages(turns, ask.tools)


def _written_by_backend(engine: Engine, ask: Write) -> _Rows:
    """Return what the backend writes itself, by view."""
    backend = engine.backend
    if not isinstance(backend, WritingBackend):
        return {}
    rows: _Rows = {}
    for view in ask.views:
        replies = backend.write(
            ask.prompts,
            view,
            max_new_tokens=ask.max_new_tokens,
            temperature=ask.temperature,
            top_p=ask.top_p,
            seed=ask.seed,
            format=ask.format,
            tools=ask.tools,
        )
        if replies is not None:
            rows[view] = replies
    return rows
