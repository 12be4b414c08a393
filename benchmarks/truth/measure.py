"""The truth of a cell that its label does not settle: plain log-probs by PEFT, nothing of sway's.

Only the rule of where a text is split (`TextEncoder.encode_pair`) is shared, so that both score the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from zoo import Document, lines

from dlm_sway.backends.encoding import TextEncoder
from dlm_sway.data.control import control_passages
from dlm_sway.demo.train import Line

_CUT = 40  # tokens of a neutral passage
_BATCH = 16
Score = tuple[float, int]


class Plain:
    """A base whose log-probs are remembered, and adapters put on it in turn."""

    def __init__(self, base: Path) -> None:
        """Load the base in fp32."""
        self._model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32).eval()
        self._encoder = TextEncoder(AutoTokenizer.from_pretrained(str(base)), max_length=2048)
        self._base: dict[Line, Score] = {}

    def truth(self, adapter: Path, document: Document) -> dict[str, Any]:
        """Return gains in nat per token on the document, its held-out part and neutral text (by register too)."""
        passages = control_passages()
        assert document.held_out is not None
        trained, held_out = lines(document.data), lines(document.held_out)
        every: list[Line] = [*trained, *held_out, *(p.text for p in passages)]
        before = self._of_base(every)
        tuned = PeftModel.from_pretrained(self._model, str(adapter)).eval()
        after = self._scored(tuned, every)
        self._model = tuned.unload()
        a, b = len(trained), len(trained) + len(held_out)
        by_register: dict[str, list[int]] = {}
        for i, passage in enumerate(passages):
            by_register.setdefault(passage.register, []).append(b + i)
        return {
            "target": _gain(before, after, range(a)),
            "held_out": _gain(before, after, range(a, b)),
            "neutral": _gain(before, after, range(b, len(every))),
            "registers": {name: _gain(before, after, rows) for name, rows in by_register.items()},
        }

    def _of_base(self, every: Sequence[Line]) -> list[Score]:
        unknown = [line for line in dict.fromkeys(every) if line not in self._base]
        self._base |= dict(zip(unknown, self._scored(self._model, unknown), strict=True))
        return [self._base[line] for line in every]

    def _scored(self, model: Any, every: Sequence[Line]) -> list[Score]:
        """Return log-prob and number of the scored tokens of each line; rows of like length share a batch."""
        pairs = [self._encoder.encode_pair(*(("", x) if isinstance(x, str) else x), format="auto") for x in every]
        rows = [p.ids[: _CUT + 1] if isinstance(x, str) else p.ids for p, x in zip(pairs, every, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        out: dict[int, Score] = {}
        for at in range(0, len(order), _BATCH):
            chosen = order[at : at + _BATCH]
            sums = self._batch(model, [rows[i] for i in chosen], [pairs[i].start for i in chosen])
            out |= {i: (total, len(rows[i]) - pairs[i].start) for i, total in zip(chosen, sums, strict=True)}
        return [out[i] for i in range(len(rows))]

    @torch.inference_mode()
    def _batch(self, model: Any, rows: Sequence[Any], starts: Sequence[int]) -> list[float]:
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.from_numpy(row)  # padded on the right, which a causal model does not see
        logprobs = model(input_ids=ids, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        token = logprobs.gather(-1, ids[:, 1:, None])[..., 0]
        return [float(token[i, s - 1 : len(r) - 1].sum()) for i, (r, s) in enumerate(zip(rows, starts, strict=True))]


def _gain(before: Sequence[Score], after: Sequence[Score], rows: Iterable[int]) -> float:
    chosen = list(rows)
    return sum(after[i][0] - before[i][0] for i in chosen) / sum(after[i][1] for i in chosen)
