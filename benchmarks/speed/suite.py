"""A suite of eight probes with 39 draws as sway runs it, and the same suite with 3 draws as a loop would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlm_sway.core.views import BASE
from dlm_sway.demo.run import demo_text
from dlm_sway.engine.ask import Ask, Write
from dlm_sway.probes import drive as drive_module
from dlm_sway.probes.base import Pairs, RunContext, build_probe
from dlm_sway.suite.arrange import arrange

DRAWS, FEW = 39, 3


def eight(n_draws: int) -> Pairs:
    """Return the suite: what a user of the demo would write."""
    lines = demo_text("tidal-bell.txt").splitlines()
    held_out = [line for line in demo_text("tidal-bell.held-out.txt").splitlines() if line.strip()]
    texts = [line for line in lines if line.strip()][:24]
    raw: list[dict[str, Any]] = [
        {"name": "null", "kind": "null_adapter", "runs": n_draws},
        {"name": "floor", "kind": "numeric_floor"},
        {"name": "learned", "kind": "delta_kl", "prompts": texts},
        {"name": "learned-next", "kind": "delta_kl", "prompts": texts, "position": "last", "divergence": "js"},
        {"name": "on-target", "kind": "target_gain", "items": texts, "held_out": held_out[:12]},
        {"name": "on-held-out", "kind": "target_gain", "items": held_out[:12]},
        {"name": "harmless", "kind": "external_perplexity"},
        {"name": "style", "kind": "style_fingerprint", "reference": " ".join(texts), "samples": 1, "max_new_tokens": 24,
         "prompts": [" ".join(text.split()[:5]) for text in texts[:8]]},
    ]  # fmt: skip
    return arrange(tuple(build_probe(entry) for entry in raw), n_draws=n_draws).of_model


def as_sway_runs_it(backend: Any) -> None:
    drive_module.drive(eight(DRAWS), RunContext(backend=backend, n_draws=DRAWS))


def as_a_loop(backend: Any) -> Callable[[], None]:
    """Return the same questions with 3 draws, asked probe by probe, view by view and prompt by prompt."""
    asked: list[Ask | Write] = []
    real = drive_module.answer

    def overheard(engine: Any, wanted: Any, **options: Any) -> Any:
        asked.extend(wanted)
        return real(engine, wanted, **options)

    drive_module.answer = overheard
    try:
        for pair in eight(FEW):
            drive_module.drive((pair,), RunContext(backend=backend, n_draws=FEW))
    finally:
        drive_module.answer = real

    def loop() -> None:
        for ask in asked:
            views = ask.views if isinstance(ask, Write) else (BASE, *ask.views)
            for view in dict.fromkeys(views):
                with backend.view(view) as opened:
                    _one_by_one(opened, ask)

    return loop


def _one_by_one(opened: Any, ask: Ask | Write) -> None:
    if isinstance(ask, Write):
        for prompt in ask.prompts:
            opened.generate(prompt, max_new_tokens=ask.max_new_tokens, temperature=ask.temperature, seed=ask.seed)
        return
    for item in ask.items:
        opened.rolling_logprob(item.prompt + item.completion)
