"""Two models of any kind, with a tokenizer each, compared by the log-probs of strings.

    kind: two_model
    base: org/base
    options:
      finetuned: org/other
      compare: bytes

The log-prob of a string is defined whatever pieces a model cuts it into (of all ways to cut it, the tokenizer's own is
counted, as everywhere), so a gain is, in bits per byte. A divergence between two next-token distributions is not: they
are over two vocabularies. Nothing is exchanged between the models, so they need not have one architecture, and there
are no scales and no nulls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
import torch

from dlm_sway.backends.base import Scored
from dlm_sway.backends.byte_codec import ByteCodec, over_bytes, piece_of
from dlm_sway.backends.differential import Differential
from dlm_sway.backends.encoding import TextEncoder, context_window
from dlm_sway.backends.hf_load import load_base, pick_device, pick_dtype
from dlm_sway.backends.hf_view import HFView
from dlm_sway.backends.plain_model import PlainModel
from dlm_sway.backends.tokenizer import load_tokenizer
from dlm_sway.core.errors import BadInputError, NotOfferedError, NullRuleError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import BASE, View

ONE_VOCABULARY: Final = (
    "the two models are compared by the bytes of strings, and what this asks compares them token by token, which needs "
    "one vocabulary"
)
_NO_NULL: Final = "two models that are compared as strings share no weights, so none can be turned"
_SPARE: Final = 8  # tokens that a tokenizer may add to the bytes of a text


class TwoStringsBackend(Differential[HFView]):
    """A base and a fine-tune that are compared by what strings cost in each.

    Attributes:
        codec: bytes, which both models can be asked about.
        device: where both compute.
        dtype: of both.
    """

    source_name = "strings, bit/byte"

    def __init__(self, *, base_spec: ModelSpec, finetuned: str) -> None:
        """Load both.

        Raises:
            BadInputError: one of the two cannot be read.
        """
        from transformers.utils import logging as hf_logging

        hf_logging.disable_progress_bar()
        self.id = f"{base_spec.base} + {Path(finetuned).name}"
        self.device = pick_device(base_spec.device)
        self.dtype = pick_dtype(base_spec.dtype, self.device)
        tuned_spec = base_spec.model_copy(update={"base": finetuned, "revision": None})
        self._models = tuple(self._loaded(spec) for spec in (base_spec, tuned_spec))
        window = min(encoder.max_length for _, encoder in self._models)
        self.codec = ByteCodec(max_length=max(2, window - _SPARE))

    def null_refusal(self) -> str:
        """Return why nulls cannot be drawn."""
        return _NO_NULL

    def token_refusal(self) -> str:
        """Return why the two cannot be compared token by token."""
        return ONE_VOCABULARY

    def scalars(
        self, rows: Sequence[Scored], views: Sequence[View], reducers: Sequence[str]
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Return gains and the base's log-probs of rows, by byte; see `ScalarBackend`.

        Raises:
            NotOfferedError: anything but gains was asked for.
            NullRuleError: a view is neither of the two models.
        """
        if set(reducers) - {"gain"}:
            self._refuse()
        base = self._by_byte(rows, BASE)
        found = [self._by_byte(rows, view) - base for view in views]
        gains = np.array(found, dtype=np.float32).reshape(len(views), len(base))
        return dict.fromkeys(reducers, gains) | {"base_logprob": base.astype(np.float32)}

    def repeat(self, rows: Sequence[Scored]) -> Mapping[str, npt.NDArray[np.float32]]:
        """Refuse: a divergence is over one vocabulary.

        Raises:
            NotOfferedError: always.
        """
        del rows
        self._refuse()

    def write(self, prompts: Sequence[Any], view: View, **options: Any) -> NoReturn:
        """Refuse: what two models write in two formats is not compared here.

        Raises:
            NotOfferedError: always.
        """
        del prompts, view, options
        raise NotOfferedError("two models that are compared as strings write nothing", where=self.id)

    def close(self) -> None:
        """Release both models; an open view answers no more, and calling it twice is harmless."""
        super().close()
        self._models = ()

    def _loaded(self, spec: ModelSpec) -> tuple[Any, TextEncoder]:
        tokenizer = load_tokenizer(spec)
        model = load_base(spec, self.device, self.dtype).eval()
        return PlainModel(model), TextEncoder(tokenizer, max_length=context_window(model.config, tokenizer))

    def _handle(self, label: str, view: View) -> HFView:
        model, encoder = self._of(view)
        return HFView(f"{self.id} [{label}]", model, encoder, self._is_open)

    def _of(self, view: View) -> tuple[Any, TextEncoder]:
        if not self._models:
            return None, None  # type: ignore[return-value]  # closed: whoever holds it is told so before it asks
        if view.lam == 0.0:
            return self._models[0]
        if view.kind == "adapter" and view.lam == 1.0:
            return self._models[1]
        raise NullRuleError(_NO_NULL, where=self.id, remedy="its probes are calibrated by N5 only")

    def _by_byte(self, rows: Sequence[Scored], view: View) -> npt.NDArray[np.float64]:
        model, encoder = self._of(view)
        return np.concatenate([_scored(row, model, encoder, where=self.id) for row in rows])

    def _refuse(self) -> NoReturn:
        remedy = "compare models with one tokenizer, or ask target_gain and external_perplexity"
        raise NotOfferedError(ONE_VOCABULARY, where=self.id, remedy=remedy)


def _scored(row: Scored, model: Any, encoder: TextEncoder, *, where: str) -> npt.NDArray[np.float64]:
    """Return float64[n]: the log-prob of a row's targets, bytes, under one model."""
    piece = piece_of(row.ids[: row.first + 1], np.append(row.ids[row.first + 1 :], row.targets[-1]))
    ids, ends = encoder.tokens(piece.text)
    start = next((i for i, end in enumerate(ends) if end > piece.boundary), len(ids))
    if start == len(ids):
        return np.zeros(piece.n_bytes)
    if start == 0:  # the first token of all reaches into what is scored, and needs something before it
        ids, ends, start = np.append([encoder.prefix_id], ids), [0, *ends], 1
    if len(ids) - 1 > encoder.max_length:
        what = f"{len(ids)} tokens where the model reads {encoder.max_length}"
        raise BadInputError(what, where=where, remedy="score shorter texts")
    return over_bytes(piece, ends, start, _logprobs(model, ids, start))


@torch.inference_mode()
def _logprobs(model: Any, ids: npt.NDArray[np.int64], start: int) -> npt.NDArray[np.float64]:
    """Return float64[N - start]: the log-probs of `ids[start:]`."""
    read = torch.from_numpy(ids[:-1])[None].to(model.device)
    target = torch.from_numpy(ids[start:])[:, None].to(model.device)
    logits = model(input_ids=read, use_cache=False).logits[0, start - 1 :].float()  # [N - start, vocab]
    picked = logits.gather(1, target)[:, 0] - torch.logsumexp(logits, dim=1)
    return np.asarray(picked.double().cpu().numpy())
