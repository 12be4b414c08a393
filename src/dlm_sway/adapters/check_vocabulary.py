"""Faults around the vocabulary: resized or tied embeddings, and a tokenizer that outgrew them."""

from __future__ import annotations

from collections.abc import Iterator

from dlm_sway.adapters.facts import Facts
from dlm_sway.adapters.inspection import Fault
from dlm_sway.adapters.naming import Part
from dlm_sway.adapters.targets import is_output_head
from dlm_sway.adapters.tokenizer_files import tokenizer_length
from dlm_sway.adapters.wording import counted, listed


def check_resized(facts: Facts) -> Iterator[Fault]:
    """Name embeddings that were trained with more or fewer tokens than the base has."""
    keys = [key for key in (*facts.saved_parameters, *facts.stray_parameters) if facts.is_resized(key)]
    if keys:
        rows = facts.file.infos[keys[0].name].shape[0]
        names = tuple(key.name for key in keys)
        yield Fault(
            code="resized_vocabulary",
            severity="warn",
            message=f"trained with {rows} tokens, another number than the base has: {listed(names)}",
            remedy=f"save the resized base (model.resize_token_embeddings({rows}), save_pretrained) and name it as "
            "--base",
            tensors=names,
        )


def check_tying(facts: Facts) -> Iterator[Fault]:
    """Name adapted embeddings or heads of a base that uses one matrix for both.

    The adapter changes one of its two uses: training saw an untied model, and merging either unties it or changes
    both.
    """
    base = facts.base
    if base is None or not base.tied or facts.config.ensure_weight_tying:
        return
    whole = {key.module for key in facts.saved_parameters if key.part is Part.WHOLE}
    adapted = {
        module for module in facts.pairs.keys() | whole if module == base.embedding_module or is_output_head(module)
    }
    if adapted:
        names = tuple(sorted(adapted))
        yield Fault(
            code="tied_weights",
            severity="warn",
            message=f"the base ties its output head to its embedding, and the adapter changes {listed(names)}",
            remedy="train with ensure_weight_tying=True, or do not merge this adapter",
            tensors=names,
        )


def check_tokenizer(facts: Facts) -> Iterator[Fault]:
    """Name a tokenizer that gives ids beyond the embedding: such a token crashes the model, or reads garbage.

    A base that ships so itself (Gemma 3 1B has an image token that its text model cannot embed) is only warned about.
    """
    base = facts.base
    rows = None if base is None or base.embedding_module is None else facts.weight_shape(base.embedding_module)
    if base is None or not rows:
        return
    own, original = tokenizer_length(facts.directory), tokenizer_length(base.directory)
    length = original if own is None else own
    if length is None or length <= rows[0]:
        return
    from_base = original is not None and length <= original
    yield Fault(
        code="tokenizer_too_long",
        severity="warn" if from_base else "fail",
        message=f"the {'base' if own is None else 'adapter'}'s tokenizer gives ids up to {length - 1}, "
        f"the embedding has {counted(rows[0], 'row')}",
        remedy="the base ships so: keep those tokens out of the text"
        if from_base
        else f"train with model.resize_token_embeddings({length}) and save the embedding, or drop the added tokens",
    )
