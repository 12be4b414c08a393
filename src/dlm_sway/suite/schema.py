"""The JSON Schema of suite files, made from the specs, so that editors complete and check what is written."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, BeforeValidator
from pydantic.json_schema import models_json_schema

from dlm_sway.core.docstrings import attributes
from dlm_sway.core.model import ModelSpec
from dlm_sway.probes.base import ProbeSpec
from dlm_sway.probes.registry import probes
from dlm_sway.suite.fields import FROM_DATA, holds
from dlm_sway.suite.spec import Defaults, Models, SuiteFile

FILE_NAME: Final = "sway.schema.json"
HEAD: Final = f"# yaml-language-server: $schema={FILE_NAME}"
"""First line of a suite file with the schema beside it; editors with a YAML language server read it."""

TITLE: Final = "A suite of sway"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_TEXT: Final = {"type": "string", "minLength": 1}
_ITEM: Final[dict[str, Any]] = {
    "description": "A text, or a mapping with `text`, or with `prompt` and `completion`.",
    "anyOf": [
        _TEXT,
        {
            "type": "object",
            "properties": {
                "text": {**_TEXT, "description": "What is scored."},
                "prompt": {"type": "string", "description": "What the completion is conditioned on."},
                "completion": {**_TEXT, "description": "What is scored."},
                "cluster": {"type": "string", "description": "Items of one cluster are counted as one in intervals."},
                "label": {"type": "string", "description": "What reports call it."},
                "stratum": {"type": "string", "description": "What subsets are balanced over."},
            },
            "anyOf": [{"required": ["text"]}, {"required": ["completion"]}, {"required": ["prompt"]}],
            "additionalProperties": False,
        },
    ],
}
_FROM_DATA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "The name of a file under `data`.",
    "properties": {"data": {"type": "string"}},
    "required": ["data"],
    "additionalProperties": False,
}


def is_ours(path: Path) -> bool:
    """Return whether a file is a schema of suites, of this version or another, which may be made again."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("title") == TITLE


def suite_schema(*, own_only: bool = False) -> dict[str, Any]:
    """Return the JSON Schema of suite files.

    Args:
        own_only: leave out probes that other packages register, so that the answer is the same on every machine.
    """
    kinds = {k: c for k, c in probes().items() if not own_only or c.__module__.startswith("dlm_sway.")}
    specs: dict[str, type[ProbeSpec]] = {kind: cls.spec_type for kind, cls in kinds.items()}
    every: list[type[BaseModel]] = [SuiteFile, Models, ModelSpec, Defaults, *specs.values()]
    _, found = models_json_schema([(model, "validation") for model in every], ref_template="#/$defs/{model}")
    defs = {name: _untitled(node) for name, node in found["$defs"].items()}
    defs["TextItem"] = _ITEM
    for model in every:
        _describe(defs[model.__name__], model)
    for spec in specs.values():
        _takes_data(defs[spec.__name__], spec)
    _words_for_models(defs)
    root = defs.pop("SuiteFile")
    root["patternProperties"] = {"^x-": {"description": "A place for anchors; not read."}}
    root["properties"]["suite"] = _members(specs, root["properties"]["suite"])
    return {"$schema": _DIALECT, "title": TITLE, **root, "$defs": dict(sorted(defs.items()))}


def _members(specs: Mapping[str, type[ProbeSpec]], node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of the list of probes: the kind says which keys there are."""
    chosen = [
        {"if": {"properties": {"kind": {"const": kind}}}, "then": {"$ref": f"#/$defs/{spec.__name__}"}}
        for kind, spec in specs.items()
    ]
    member = {
        "type": "object",
        "properties": {"name": {"type": "string", "minLength": 1}, "kind": {"enum": list(specs)}},
        "required": ["name", "kind"],
        "allOf": chosen,
    }
    return {**node, "items": member}


def _describe(node: dict[str, Any], model: type) -> None:
    doc = (model.__doc__ or "").strip().splitlines()
    node["description"] = doc[0] if doc else ""
    for name, words in attributes(model).items():
        if name in node.get("properties", {}):
            node["properties"][name] = {**node["properties"][name], "description": words}


def _takes_data(node: dict[str, Any], spec: type[ProbeSpec]) -> None:
    for name, field in node["properties"].items():
        if holds(spec, name) in FROM_DATA:
            own = {key: value for key, value in field.items() if key not in ("description", "default")}
            kept = {key: value for key, value in field.items() if key in ("description", "default")}
            alone = [_TEXT] if any(isinstance(m, BeforeValidator) for m in spec.model_fields[name].metadata) else []
            texts = alone if holds(spec, name) == "texts" else []  # a single text is taken as a list of one
            node["properties"][name] = {**kept, "anyOf": [own, *texts, _FROM_DATA]}


def _words_for_models(defs: dict[str, Any]) -> None:
    fine_tune = copy.deepcopy(defs["ModelSpec"])
    fine_tune["description"] = "The fine-tune; what it does not say is as for the base."
    fine_tune.pop("required", None)
    defs["FineTune"] = fine_tune
    for which, name, word in (("base", "ModelSpec", "Directory or Hub id."), ("ft", "FineTune", "Adapter directory.")):
        node = defs["Models"]["properties"][which]
        choices = [{"$ref": f"#/$defs/{name}"}, {**_TEXT, "description": word}]
        defs["Models"]["properties"][which] = {"description": node.get("description", ""), "anyOf": choices}


def _untitled(node: Any, *, names: bool = False) -> Any:
    """Return a schema without the titles that pydantic makes of names; `names` where keys are names and no words."""
    if isinstance(node, Mapping):
        return {
            key: _untitled(value, names=key == "properties" and not names)
            for key, value in node.items()
            if names or key != "title"
        }
    return [_untitled(value) for value in node] if isinstance(node, list) else node
