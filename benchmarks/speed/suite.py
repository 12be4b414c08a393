"""A suite of eight probes with 39 draws as sway runs it, and the same suite with 3 draws as a loop would."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dlm_sway.core.views import BASE
from dlm_sway.demo.run import demo_text
from dlm_sway.engine.ask import Ask, Write
from dlm_sway.probes import drive as drive_module
from dlm_sway.probes.base import Pairs, RunContext, build_probe
from dlm_sway.suite.arrange import arrange

DRAWS, FEW = 39, 3
LINES, WORDS = 6, 8


def eight(n_draws: int) -> Pairs:
    """Return a suite that asks eight things of one fine-tune, with the calibration that every suite gets.

    Six lines of each file, eight words of each line and short texts to write, so that the loop ends within minutes. All
    else is as the probes have it.
    """
    texts, held_out, other = _lines("tidal-bell.txt"), _lines("tidal-bell.held-out.txt"), _plain()
    raw: list[dict[str, Any]] = [
        {"name": "learned", "kind": "delta_kl", "prompts": texts},
        {"name": "on-target", "kind": "target_gain", "items": texts, "held_out": held_out, "controls": other},
        {"name": "sections", "kind": "section_internalization", "sections": texts, "controls": other},
        {"name": "topics", "kind": "cluster_kl", "prompts": texts + held_out + other,
         "labels": ["bell"] * 2 * LINES + ["other"] * LINES},
        {"name": "harmless", "kind": "external_perplexity", "passages": other},
        {"name": "seen", "kind": "membership", "items": texts, "held_out": held_out},
        {"name": "scale", "kind": "adapter_ablation", "prompts": texts, "items": texts, "held_out": held_out,
         "controls": other},
        {"name": "style", "kind": "style_fingerprint", "reference": demo_text("tidal-bell.txt"),
         "prompts": texts, "max_new_tokens": 24},
    ]  # fmt: skip
    return arrange(tuple(build_probe(entry) for entry in raw), n_draws=n_draws).of_model


def _lines(name: str) -> list[str]:
    return [_cut(line) for line in demo_text(name).splitlines() if line.strip()][:LINES]


def _plain() -> list[str]:
    return [_cut(json.loads(line)["text"]) for line in demo_text("plain.jsonl").splitlines()[:LINES]]


def _cut(line: str) -> str:
    return " ".join(line.split()[:WORDS])


def as_sway_runs_it(backend: Any) -> None:
    """Answer all of them with 39 draws, in shared passes."""
    drive_module.drive(eight(DRAWS), RunContext(backend=backend, n_draws=DRAWS))


def as_a_loop(backend: Any) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return the same questions with 3 draws, asked probe by probe, view by view and prompt by prompt, in two halves.

    The loop scores what each probe asks for in a run with 3 draws, each prompt once a view. It measures no numeric
    floor and draws no conclusions.
    """
    asked: list[Ask | Write] = []
    real = drive_module.answer

    def overheard(engine: Any, wanted: Any, **options: Any) -> Any:
        asked.extend(wanted)
        return real(engine, wanted, **options)

    drive_module.answer = overheard
    try:
        drive_module.drive(eight(FEW), RunContext(backend=backend, n_draws=FEW))
    finally:
        drive_module.answer = real
    return tuple(lambda part=part: _loop(backend, part) for part in (asked[::2], asked[1::2]))


def _loop(backend: Any, asked: list[Ask | Write]) -> None:
    for ask in asked:
        views = ask.views if isinstance(ask, Write) else (BASE, *ask.views)
        for view in dict.fromkeys(views):
            with backend.view(view) as opened:
                _one_by_one(opened, ask)


def _one_by_one(opened: Any, ask: Ask | Write) -> None:
    if isinstance(ask, Write):
        for prompt in ask.prompts:
            opened.generate(prompt, max_new_tokens=ask.max_new_tokens, temperature=ask.temperature, seed=ask.seed)
        return
    for item in ask.items:
        opened.rolling_logprob(item.prompt + item.completion)
