"""Trains a small LoRA the plain way: AdamW on the next token, a document mixed with plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from dlm_sway.backends.base import Encoded, Messages, Tools
from dlm_sway.backends.encoding import TextEncoder
from dlm_sway.backends.quiet import quiet_peft
from dlm_sway.core.determinism import stream
from dlm_sway.core.progress import Progress, Silent

if TYPE_CHECKING:
    from torch import Tensor


class Reply(NamedTuple):
    """A reply to a conversation in which tools may be offered; the reply is trained on."""

    messages: Messages
    text: str
    tools: Tools | None = None


Line: TypeAlias = "str | tuple[str, str] | Reply"
"""A text that is trained on whole, a prompt and its completion, of which the completion is trained on, or a reply."""

_TELL = 15  # steps between two words on progress


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an adapter is trained.

    Attributes:
        rank: LoRA rank.
        alpha: LoRA alpha; the scale is alpha / rank.
        targets: module names, or `all-linear`.
        steps: optimiser steps.
        lr: learning rate, warmed up over a tenth of the steps, then linear to zero.
        batch: lines of the document a step.
        plain: lines of plain text a step, against forgetting.
        cut: tokens of a line that are read, its prompt included.
    """

    rank: int = 8
    alpha: int = 16
    targets: tuple[str, ...] | str = ("q_proj", "v_proj")
    steps: int = 60
    lr: float = 1e-3
    batch: int = 2
    plain: int = 2
    cut: int = 64


def train_lora(
    base: Path,
    out: Path,
    *,
    texts: Sequence[Line],
    plain: Sequence[str] = (),
    recipe: Recipe,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Train an adapter on `texts` and save it as a PEFT directory; the same seed gives the same adapter.

    Args:
        base: model directory.
        out: directory to write.
        texts: the document, a line or a prompt with its completion each.
        plain: general text to mix in.
        recipe: how.
        seed: of initialisation and order.
        progress: hears how many steps are done.
    """
    import torch

    progress = progress or Silent()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, encoder = _prepare(base, recipe)
        order = _order(len(texts), len(plain), recipe, seed)
        optimiser = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=recipe.lr, weight_decay=0.0
        )
        for step, (chosen, mixed) in enumerate(order):
            for group in optimiser.param_groups:
                group["lr"] = recipe.lr * _schedule(step, recipe.steps)
            loss = _loss(model, encoder, [*(texts[i] for i in chosen), *(plain[i] for i in mixed)])
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation for it
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if (step + 1) % _TELL == 0:
                progress.phase(f"training, step {step + 1} of {recipe.steps}")
    model.save_pretrained(str(out))
    return out


def _prepare(base: Path, recipe: Recipe) -> tuple[Any, TextEncoder]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(str(base))
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, use_safetensors=True)
    targets = recipe.targets if isinstance(recipe.targets, str) else list(recipe.targets)
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=targets, task_type="CAUSAL_LM")
    with quiet_peft():
        return get_peft_model(model, config).train(), TextEncoder(tokenizer, max_length=recipe.cut)


def _order(n_texts: int, n_plain: int, recipe: Recipe, seed: int) -> list[tuple[list[int], list[int]]]:
    """Return the lines of each step: shuffled passes over both lists."""

    def deal(n: int, size: int, what: str) -> list[list[int]]:
        if not n or not size:
            return [[] for _ in range(recipe.steps)]
        rng = stream(seed, "order", what)
        need = recipe.steps * size
        deck = np.concatenate([rng.permutation(n) for _ in range(-(-need // n))])[:need]
        return [row.tolist() for row in deck.reshape(recipe.steps, size)]

    texts, plain = deal(n_texts, recipe.batch, "texts"), deal(n_plain, recipe.plain, "plain")
    return list(zip(texts, plain, strict=True))


def _schedule(step: int, steps: int) -> float:
    warm = max(1, steps // 10)
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def _loss(model: Any, encoder: TextEncoder, lines: list[Line]) -> Tensor:
    """Return the mean next-token loss over the lines, nat per token."""
    import torch

    pairs = [_encoded(encoder, line) for line in lines]
    rows = [p.ids[: encoder.max_length] for p in pairs]
    width = max(len(r) for r in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for i, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        ids[i, : len(row)] = torch.from_numpy(row)
        labels[i, pair.start : len(row)] = torch.from_numpy(row[pair.start :])
    loss: Tensor = model(input_ids=ids, labels=labels, use_cache=False).loss
    return loss


def _encoded(encoder: TextEncoder, line: Line) -> Encoded:
    if isinstance(line, Reply):
        return encoder.encode_reply(line.messages, line.text, line.tools)
    prompt, completion = ("", line) if isinstance(line, str) else line
    return encoder.encode_pair(prompt, completion, format="auto")
