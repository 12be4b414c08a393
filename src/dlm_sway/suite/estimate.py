"""What a suite would cost, without a model: tokens by plan, seconds by a measured rate of this machine.

Probes plan their rounds on made-up answers, so the figure is an estimate and not a bound: a probe that reads on until
it is sure may read more or less. Rows that several probes share are counted once, as they are scored once.

The seconds are 2 x parameters x view-tokens operations at 70 % of what a matrix product reaches here; on SmolLM2-135M
the engine was measured to take 1.65 ms a token in fp32 on two cores, which is 160 GFLOP/s. Written tokens count three
times, since they come one after the other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np

from dlm_sway.adapters.base_files import open_base
from dlm_sway.adapters.base_location import locate_base
from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import SwayError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import View
from dlm_sway.engine.ask import Ask, Request, Scores, Slopes, TextItem, Write, Written
from dlm_sway.probes.base import Env, Pairs, Probe, ProbeSpec, Seen

_MOST_ROUNDS: Final = 8
_EFFICIENCY: Final = 0.7
_WRITTEN: Final = 3
_BACKWARD: Final = 3  # a forward and a backward pass in units of a forward one
_GEMM: Final = 768
_CHARS_PER_TOKEN: Final = 4.0

Count: TypeAlias = Callable[[str], int]
_Row: TypeAlias = "tuple[str, str, str, int | None]"


@dataclass(frozen=True, slots=True)
class ProbeCost:
    """What one probe adds.

    Attributes:
        name: of the probe.
        kind: of the probe.
        view_tokens: tokens, each counted once a view, that no probe before it asks for.
        rounds: how often it asks.
    """

    name: str
    kind: str
    view_tokens: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a suite would cost.

    Attributes:
        probes: one a probe that needs the model, in order.
        view_tokens: of all together.
        seconds: of scoring on this machine's processor; None where the size of the base is not known.
        counted: how tokens were counted: `tokenizer` or `characters`.
        parameters: of the base, or None.
        gflops: what a matrix product reaches here, in units of 1e9 operations a second.
    """

    probes: tuple[ProbeCost, ...]
    view_tokens: int
    seconds: float | None
    counted: str
    parameters: int | None
    gflops: float


def estimate(pairs: Pairs, env: Env, model: ModelSpec) -> Estimate:
    """Return what these probes would cost, calibration first as they run."""
    count, counted = _counter(model)
    seen_rows: dict[_Row, set[View]] = {}
    costs: list[ProbeCost] = []
    for i, (probe, spec) in enumerate(pairs):
        asks, rounds = _asks(probe, spec, replace(env, later=pairs[i + 1 :]), count)
        costs.append(ProbeCost(spec.name, spec.kind, sum(_cost(ask, seen_rows, count) for ask in asks), rounds))
    total = sum(cost.view_tokens for cost in costs)
    parameters, rate = _parameters(model), _gflops()
    seconds = None if parameters is None else 2 * parameters * total / (rate * 1e9 * _EFFICIENCY)
    return Estimate(tuple(costs), total, seconds, counted, parameters, rate)


def _asks(probe: Probe[Any], spec: ProbeSpec, env: Env, count: Count) -> tuple[list[Request], int]:
    """Return all that a probe asks for, its later rounds planned on made-up answers."""
    seen: Seen = ()
    every: list[Request] = []
    for number in range(_MOST_ROUNDS):
        try:
            asks = probe.plan(spec, env, seen)
        except Exception:  # noqa: BLE001 (made-up answers may be what no probe expects; what was planned so far counts)
            return every, number
        if not asks:
            return every, number
        every += asks
        if any(isinstance(ask, Slopes) for ask in asks):  # no probe asks anything after a gradient
            return every, number + 1
        seen = (*seen, tuple(_made_up(ask, count) for ask in asks if not isinstance(ask, Slopes)))
    return every, _MOST_ROUNDS


def _cost(ask: Request, seen: dict[_Row, set[View]], count: Count) -> int:
    if isinstance(ask, Slopes):
        texts = [count(i.prompt) + count(i.completion) for i in (*ask.items, *ask.controls)]
        return _BACKWARD * sum(min(n, ask.max_tokens or n) for n in texts)
    if isinstance(ask, Write):
        prompts = sum(count(prompt if isinstance(prompt, str) else str(prompt)) for prompt in ask.prompts)
        return len(ask.views) * (prompts + _WRITTEN * ask.max_new_tokens * len(ask.prompts))
    return sum(_row_cost(item, ask, seen, count) for item in ask.items)


def _row_cost(item: TextItem, ask: Ask, seen: dict[_Row, set[View]], count: Count) -> int:
    key = (item.prompt, item.completion, ask.position, ask.max_tokens)
    known = seen.setdefault(key, set())
    new = set(ask.views) - known
    base = 0 if known else 1  # the base is scored with the first view that is asked for
    known |= set(ask.views)
    return (base + len(new)) * _length(item, ask, count)


def _length(item: TextItem, ask: Ask, count: Count) -> int:
    return (count(item.prompt) if item.prompt else 1) + _scored(item, ask, count)


def _scored(item: TextItem, ask: Ask, count: Count) -> int:
    if ask.position == "last":
        return 1
    n = max(1, count(item.completion))
    return n if ask.max_tokens is None else min(n, ask.max_tokens)


def _made_up(ask: Ask | Write, count: Count) -> Scores | Written:
    if isinstance(ask, Write):
        shape = (len(ask.views), len(ask.prompts))
        words = " ".join(f"word{i}." if i % 9 == 0 else f"word{i}" for i in range(1, ask.max_new_tokens))
        texts = tuple(tuple(words for _ in ask.prompts) for _ in ask.views)
        return Written(ask, texts, np.full(shape, ask.max_new_tokens), np.ones(shape, dtype=np.bool_))
    offsets = np.cumsum([0, *(_scored(item, ask, count) for item in ask.items)]).astype(np.int64)
    rng = stream("estimate")
    shape = (len(ask.views), int(offsets[-1]))
    # Of the size that a modest adapter makes, so that what a probe asks next is what it mostly asks.
    values: dict[str, Any] = {name: np.abs(rng.normal(0.05, 0.01, shape)) for name in ask.reducers}
    return Scores(ask.items, ask.views, offsets, values, rng.normal(-3.0, 1.0, shape[1]))


def _counter(model: ModelSpec) -> tuple[Count, str]:
    """Return what counts tokens: the base's own tokenizer where it is on this machine, else characters."""
    tokens = _tokenizer(model)
    if tokens is not None:
        return tokens, "tokenizer"
    return (lambda text: math.ceil(len(text) / _CHARS_PER_TOKEN)), "characters"


def _tokenizer(model: ModelSpec) -> Count | None:
    try:
        folder = locate_base(model.base, revision=model.revision).directory
        if folder is None or not (folder / "tokenizer.json").is_file():
            return None
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # noqa: BLE001 (tokenizers raises its plain Exception for any file that it cannot use)
        return None
    return lambda text: len(tokenizer.encode(text).ids)


def _parameters(model: ModelSpec) -> int | None:
    try:
        folder = locate_base(model.base, revision=model.revision).directory
        return None if folder is None else _sum(info.shape for _, info in open_base(folder).parameters.values())
    except SwayError:
        return None


def _sum(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _gflops() -> float:
    """Return what a matrix product in fp32 reaches on this machine, the best of ten, since others may compute too."""
    rng = stream("gflops")
    a, b = (rng.random((_GEMM, _GEMM), dtype=np.float32) for _ in range(2))
    best = math.inf
    for _ in range(10):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * _GEMM**3 / best / 1e9
