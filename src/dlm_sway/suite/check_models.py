"""What can be wrong with the models of a suite, found before one is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from dlm_sway.adapters.config import load_config
from dlm_sway.backends.known_options import options_model
from dlm_sway.backends.registry import backend_kinds
from dlm_sway.core.errors import SwayError
from dlm_sway.probes.base import Pairs
from dlm_sway.suite.explain import explained
from dlm_sway.suite.faults import Fault, did_you_mean
from dlm_sway.suite.needs import needs_model
from dlm_sway.suite.paths import is_path
from dlm_sway.suite.spec import Models
from dlm_sway.suite.yaml_file import Document

_HF = "hf"


def check_models(models: Models, pairs: Pairs, document: Document) -> Iterator[Fault]:
    """Yield what is wrong with the models; a suite that needs none may name some that are not on this machine."""
    for which in ("base", "ft"):
        kind = getattr(models, which).kind
        own = which == "base" or ("models", "ft", "kind") in document.values
        if own and kind not in backend_kinds():
            hint = did_you_mean(kind, backend_kinds(), noun="known kinds")
            yield Fault(document.place(("models", which, "kind")), f"unknown kind of backend `{kind}`", hint)
    if not any(needs_model(probe, spec) for probe, spec in pairs):
        return
    base = models.ft.base
    if is_path(base) and not Path(base).exists():
        yield Fault(document.place(("models", "base", "base")), f"{base}: no such model", "check the path")
    yield from _options(models, document)
    if models.ft.kind == _HF:
        yield from _adapter(models, document)


def _options(models: Models, document: Document) -> Iterator[Fault]:
    """Yield what is wrong with the options of the fine-tune, which has those of the base where it names none."""
    model = options_model(models.ft.kind)
    if model is None:
        return
    try:
        model.model_validate(models.ft.options)
    except ValidationError as e:
        own = ("models", "ft", "options")
        root = own if own in document.values else ("models", "base", "options")
        for fault in explained(e, model, document, root):
            none = "" if model.model_fields else f"a model of kind {models.ft.kind} has no options"
            yield Fault(fault.place, fault.what, none or fault.remedy)


def _adapter(models: Models, document: Document) -> Iterator[Fault]:
    if models.ft.adapter is None:
        yield Fault(document.place(("models", "ft")), "the fine-tune names no adapter", "give `adapter: DIRECTORY`")
        return
    if models.ft.base != models.base.base:
        what = f"the fine-tune stands on another base, `{models.ft.base}`"
        yield Fault(
            document.place(("models", "ft", "base")), what, "leave `base` out here: an adapter is compared with its own"
        )
    try:
        load_config(models.ft.adapter)
    except SwayError as e:
        place = document.place(("models", "ft", "adapter"))
        yield Fault(place, f"{e.where}: {e.what}" if e.where else e.what, e.remedy or "")
