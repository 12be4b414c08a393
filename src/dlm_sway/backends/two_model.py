"""Two whole checkpoints of one architecture with one tokenizer: a base and its full fine-tune.

    kind: two_model
    base: org/base
    options:
      finetuned: runs/full-fine-tune

The fine-tune is the loaded model. The base is a set of tensors in the dtype that they are stored in, so on a CPU both
stay mapped from their files, and what a view adds is the difference of the tensors that differ: memory is one model
and one delta. On a GPU both are there whole. Nulls turn the difference by a signed permutation of its outputs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from dlm_sway.backends.encoding import TextEncoder, context_window
from dlm_sway.backends.fingerprint import fingerprint
from dlm_sway.backends.hf_find import dense_site, unruled_of
from dlm_sway.backends.hf_load import load_base, pick_device, pick_dtype
from dlm_sway.backends.hf_sites import DenseSite, Sites
from dlm_sway.backends.plain_model import PlainModel
from dlm_sway.backends.registry import register
from dlm_sway.backends.tokenizer import load_tokenizer
from dlm_sway.backends.torch_backend import TorchBackend
from dlm_sway.backends.two_model_options import options_of
from dlm_sway.backends.two_strings import TwoStringsBackend
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.store import ResultStore

_SHOWN: Final = 3
# What a config says of a file, of generation, of training or of speed; the rest decides what the model computes.
_NOT_COMPUTING: Final = frozenset(
    {"_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "pad_token_id", "torch_dtype"}
    | {"transformers_version", "use_cache", "attention_dropout", "hidden_dropout", "_attn_implementation"}
    | {"initializer_range", "tokenizer_class", "unsloth_fixed", "unsloth_version"}
)
_SAMPLES: Final = (
    "The river rises in the hills and runs west for sixty miles.",
    "def area(radius):\n    return 3.14159 * radius ** 2\n",
    "Señor Müller — 漢字 и кириллица, 12,345.67 €\t<|end|>",
)


@register("two_model")
class TwoModelBackend(TorchBackend):
    """A base and a full fine-tune of it, by the tensors in which they differ."""

    kind: ClassVar[str]

    def __init__(self, *, base_spec: ModelSpec, finetuned: str) -> None:
        """Load both.

        Raises:
            BadInputError: one of the two cannot be read, or they are not of one architecture and one tokenizer.
        """
        from transformers.utils import logging as hf_logging

        hf_logging.disable_progress_bar()
        self.spec, self.finetuned = base_spec, finetuned
        self.id = f"{base_spec.base} + {Path(finetuned).name}"
        self._loaded_ns = time.time_ns()
        tuned_spec = base_spec.model_copy(update={"base": finetuned, "revision": None})
        tokenizer = load_tokenizer(tuned_spec)
        require_one_tokenizer(load_tokenizer(base_spec), tokenizer, where=finetuned)
        self.device = pick_device(base_spec.device)
        self.dtype = pick_dtype(base_spec.dtype, self.device)
        model = load_base(tuned_spec, self.device, self.dtype).eval()
        base = load_base(base_spec, self.device, "auto")
        _require_one_architecture(base, model, where=finetuned)
        self.model = PlainModel(model)
        self.codec = TextEncoder(tokenizer, max_length=context_window(model.config, tokenizer))
        dense = _differing(model, dict(base.named_parameters()))
        self.sites = Sites((), dense, unruled_of(dense))

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> TwoModelBackend | TwoStringsBackend:
        """Load `spec.base` and `spec.options["finetuned"]`; with `compare: bytes` each has a tokenizer of its own.

        Raises:
            BadInputError: as the constructor does, or the spec asks for what this kind does not do.
        """
        options = options_of(spec)
        kind = cls if options.compare == "tokens" else TwoStringsBackend
        return kind(base_spec=spec, finetuned=str(_expanded(options.finetuned)))

    def null_refusal(self) -> str | None:
        """Return why nulls cannot be drawn, or None when they can."""
        return self.sites.refusal() if self.sites.dense else "the fine-tune has the base's very weights"

    def fingerprint(self, memo: ResultStore | None = None) -> str | None:
        """Return a hash of all that the numbers follow from, or None where the files behind them cannot be known."""
        computing = (str(self.dtype), self.device.type, torch.get_float32_matmul_precision())
        return fingerprint(
            self.spec,
            adapter=Path(self.finetuned),
            computing=computing,
            loaded_ns=self._loaded_ns,
            memo=memo,
            whole=True,
        )


def require_one_tokenizer(base: Any, tuned: Any, *, where: str) -> None:
    """Return if both tokenizers make the same tokens.

    Raises:
        BadInputError: they do not; the first difference is named.
    """
    left, right = base.get_vocab(), tuned.get_vocab()
    if left != right:
        differing = sorted(t for t in left.keys() | right.keys() if left.get(t) != right.get(t))
        what = f"the tokenizers differ in {len(differing)} tokens, such as {differing[0]!r}"
        raise BadInputError(what, where=where, remedy=_TOKENIZERS)
    for text in _SAMPLES:
        a, b = (tokenizer(text, verbose=False)["input_ids"] for tokenizer in (base, tuned))
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            what = f"the tokenizers cut {text[:20]!r} apart from token {at} on: {a[at : at + 3]} and {b[at : at + 3]}"
            raise BadInputError(what, where=where, remedy=_TOKENIZERS)


_TOKENIZERS: Final = (
    "a difference of log-probs of tokens means something only where both models read the same ones; set `compare: "
    "bytes` in the options to compare what strings cost, in bits per byte"
)


def _require_one_architecture(base: Any, tuned: Any, *, where: str) -> None:
    theirs, ours = ({n: tuple(p.shape) for n, p in m.named_parameters()} for m in (base, tuned))
    if theirs != ours:
        names = sorted(n for n in theirs.keys() | ours.keys() if theirs.get(n) != ours.get(n))
        first = f"{names[0]} is {_shape(theirs, names[0])} in the base and {_shape(ours, names[0])} in the fine-tune"
        remedy = "name the base that it was tuned from; a resized vocabulary or a head tied anew changes the model"
        raise BadInputError(f"{len(names)} parameters do not correspond: {first}", where=where, remedy=remedy)
    left, right = (_computing(m.config.to_dict()) for m in (base, tuned))
    if keys := sorted(k for k in left.keys() | right.keys() if left.get(k) != right.get(k)):
        shown = ", ".join(f"{k} {left.get(k)!r} and {right.get(k)!r}" for k in keys[:_SHOWN])
        remedy = "make the configs agree: views exchange weights, and one architecture computes them all"
        raise BadInputError(f"the configs differ: {shown}", where=where, remedy=remedy)


def _shape(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    return str(list(shapes[name])) if name in shapes else "absent"


def _computing(config: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k not in _NOT_COMPUTING}


def _differing(model: Any, base: dict[str, Tensor]) -> tuple[DenseSite, ...]:
    """Return a site for each tensor that is not the base's; equal ones are let go of."""
    sites = []
    for name, live in model.named_parameters():
        original = base[name].detach()
        if not torch.equal(original.to(live), live.detach()):
            sites.append(dense_site(model, name, original, name=name, toggled=False))
    return tuple(sites)


def _expanded(name: str) -> str | Path:
    path = Path(name).expanduser()
    return path.absolute() if path.exists() else name
