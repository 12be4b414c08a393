"""Reads a suite file and finds all that is wrong with it before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from dlm_sway.adapters.recorded_base import at_recorded_revision
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.model import ModelSpec
from dlm_sway.stats.power import require_draws
from dlm_sway.suite.check_models import check_models
from dlm_sway.suite.explain import explained, shown
from dlm_sway.suite.faults import Fault, SpecError, did_you_mean
from dlm_sway.suite.members import Members, kinds_with_margin
from dlm_sway.suite.paths import from_file, model_words
from dlm_sway.suite.spec import Models, Suite, SuiteFile
from dlm_sway.suite.yaml_file import Document, read_yaml

_SHARED: Final = "x-"  # top-level keys that begin so are a place for anchors


def load_spec(path: Path | str) -> Suite:
    """Return the suite that a file describes, with everything in it found usable; no model is loaded.

    Paths in the file are relative to it. An item field of a probe takes a list, or `{data: NAME}` for a file that is
    named under `data`.

    Raises:
        SpecError: the file is wrong; it names every fault with file, line and column.
        BadInputError: the file cannot be read, or is no YAML.
    """
    path = Path(path).expanduser()
    document = read_yaml(path)
    faults = list(document.faults)
    raw = _mapping(document, faults)
    _require_no_result(raw, path)
    found = _validated(raw, path, document, faults)
    members = Members(path, document, raw.get("suite"), data=_data(raw), defaults=_section(raw, "defaults"))
    pairs = members.read()
    faults += members.faults
    faults += _margin_faults(_section(raw, "defaults"), document)
    faults += _draws_faults(found, document)
    if (models := _models(raw, path)) is not None:
        faults += check_models(models, pairs, document)
    if faults or found is None:
        raise SpecError(path, _telling(faults, document))
    return Suite(
        path=path,
        name=found.name or path.stem,
        base=_as_written(raw, "base"),
        adapter=_as_written(raw, "ft") or None,
        model=_model(found),
        defaults=found.defaults,
        pairs=pairs,
        data={name: from_file(path, file) for name, file in found.data.items()},
        sha256=document.sha256,
    )


def _mapping(document: Document, faults: list[Fault]) -> dict[str, Any]:
    if not isinstance(document.value, Mapping):
        what = f"a suite file is a mapping, and this is {shown(document.value)}"
        faults.append(Fault(document.place(()), what, "begin with `version: 1`"))
        return {}
    return {key: value for key, value in document.value.items() if not str(key).startswith(_SHARED)}


def _require_no_result(raw: Mapping[str, Any], path: Path) -> None:
    """Return unless the file is what a run wrote, which is YAML too and would be a flood of unknown keys.

    Raises:
        BadInputError: it is.
    """
    if "schema_version" in raw and {"probes", "links"} & raw.keys():
        what = "is a result, not a suite file"
        remedy = "`sway report` shows it, and `sway gate` judges it where its name ends in .json"
        raise BadInputError(what, where=path, remedy=remedy)


def _validated(raw: Mapping[str, Any], path: Path, document: Document, faults: list[Fault]) -> SuiteFile | None:
    if not raw:
        return None
    ready = {**raw, "models": model_words(raw.get("models"), path)} if "models" in raw else raw
    try:
        return SuiteFile.model_validate(ready)
    except ValidationError as e:
        faults += explained(e, SuiteFile, document, ())
        return None


def _section(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = raw.get(name)
    return found if isinstance(found, Mapping) else {}


def _data(raw: Mapping[str, Any]) -> dict[str, str]:
    return {name: file for name, file in _section(raw, "data").items() if isinstance(file, str)}


def _models(raw: Mapping[str, Any], path: Path) -> Models | None:
    """Return the models where they are right by themselves, whatever else is wrong."""
    try:
        return Models.model_validate(model_words(raw.get("models"), path))
    except ValidationError:
        return None


def _margin_faults(defaults: Mapping[str, Any], document: Document) -> Iterator[Fault]:
    margins = _section(defaults, "margins")
    kinds = kinds_with_margin() if margins else ()
    for kind in margins:
        if kind not in kinds:
            place = document.place(("defaults", "margins", kind), of_key=True)
            yield Fault(place, f"no kind `{kind}` has a margin", did_you_mean(kind, kinds))


def _draws_faults(found: SuiteFile | None, document: Document) -> Iterator[Fault]:
    if found is None:
        return
    try:
        require_draws(found.defaults.draws, alpha=found.defaults.alpha)
    except BadInputError as fault:
        yield Fault(document.place(("defaults", "draws")), fault.what, fault.remedy or "")


def _telling(faults: Iterable[Fault], document: Document) -> list[Fault]:
    """Return the faults without those that only follow from another at the same place."""
    bad = {fault.place for fault in document.faults}
    return [fault for fault in faults if fault.place not in bad or fault in document.faults]


def _model(found: SuiteFile) -> ModelSpec:
    """Return what to load: the fine-tune's spec, with the suite's device and dtype where it leaves them open."""
    open_fields = {
        name: value
        for name, value in (("dtype", found.defaults.dtype), ("device", found.defaults.device))
        if getattr(found.models.ft, name) == "auto"
    }
    return at_recorded_revision(found.models.ft.model_copy(update=open_fields))


def _as_written(raw: Mapping[str, Any], which: str) -> str:
    """Return what the file itself calls a model: a path here is the user's word, and not a place of this machine."""
    word = _section(raw, "models").get(which)
    key = {"base": "base", "ft": "adapter"}[which]
    return str(word.get(key) or "") if isinstance(word, Mapping) else str(word or "")
