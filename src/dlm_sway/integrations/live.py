"""A PEFT model in the middle of its training: scored as base and as fine-tune, and left as if nobody had looked."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dlm_sway.core.errors import BadInputError

if TYPE_CHECKING:
    from dlm_sway.backends.base import Encoded

F64 = npt.NDArray[np.float64]
Originals: TypeAlias = Sequence[tuple[Any, Any]]


def require_peft(model: Any) -> None:
    """Return if the base of a model can be had by switching its adapter off.

    Raises:
        BadInputError: it is no PEFT model, so that its base would be a second copy.
    """
    if not hasattr(model, "disable_adapter") or not hasattr(model, "peft_config"):
        what = f"{type(model).__name__} has no PEFT adapter to switch off"
        raise BadInputError(what, where="sway_callback", remedy="train a PEFT model, or run `sway check` afterwards")


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Hold a model in evaluation, without gradients; put back modes, what is trained, and all random states."""
    import torch

    modes = [(module, module.training) for module in model.modules()]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (training may draw from it)
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in trained:  # PEFT trains all of an adapter again when it is switched on, frozen parts too
            parameter.requires_grad_(flag)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 (as above)


def trained_in_place(model: Any) -> Originals:
    """Return the base's own parameters that are trained, such as those of `bias="all"`, with their values of now.

    Switching the adapter off leaves them as they are, so a look at the base has to put these values back.
    """
    prefix = getattr(model.base_model, "prefix", None)
    if prefix is None:  # prompt tuning and its kin train nothing of the base's
        return []
    added = (prefix, ".modules_to_save.")
    found = [(n, p) for n, p in model.base_model.named_parameters() if p.requires_grad]
    return [(p, p.detach().clone()) for n, p in found if not any(mark in n for mark in added)]


@contextmanager
def _at(originals: Originals) -> Iterator[None]:
    kept = [(parameter, parameter.detach().clone()) for parameter, _ in originals]
    try:
        for parameter, value in originals:
            parameter.data.copy_(value)
        yield
    finally:
        for parameter, value in kept:
            parameter.data.copy_(value)


def logprobs(model: Any, texts: Sequence[Encoded], *, base: bool, originals: Originals = ()) -> list[F64]:
    """Return the log-prob of each scored token of each text, nats.

    Args:
        model: a PEFT model, inside `undisturbed`.
        texts: read one by one, so that memory stays what one short text needs.
        base: whether the adapter is switched off.
        originals: what `trained_in_place` found before the training.
    """
    with ExitStack() as stack:
        if base:
            stack.enter_context(model.disable_adapter())
            stack.enter_context(_at(originals))
        return [_of_rows(model, text, rows=1) for text in texts]


def numeric_floor(model: Any, text: Encoded) -> float:
    """Return what numerics alone change, nat per token: mean |difference| of the base and itself in a batch of two."""
    with model.disable_adapter():
        alone, together = (_of_rows(model, text, rows=rows) for rows in (1, 2))
    return float(np.abs(alone - together).mean())


def _of_rows(model: Any, text: Encoded, *, rows: int) -> F64:
    import torch

    device = next(model.parameters()).device
    ids = torch.as_tensor(text.ids, device=device).expand(rows, -1)  # [rows, N]
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, -ids.shape[1] :]
    wanted = ids[0, text.start :]  # [K]
    scores = torch.log_softmax(logits[text.start - 1 : -1].float(), dim=-1)  # [K, V]
    found: F64 = scores.gather(1, wanted[:, None])[:, 0].double().cpu().numpy()
    return found
