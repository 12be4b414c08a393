from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dlm_sway.probes.registry import probe_kinds
from dlm_sway.suite.schema import suite_schema

HEAD: dict[str, Any] = {"version": 1, "models": {"base": "org/name", "ft": {"adapter": "x"}}}


@pytest.fixture(scope="module")
def validator() -> Any:
    """Return what checks documents against the schema."""
    return jsonschema.Draft202012Validator(suite_schema())


def test_the_schema_is_one(validator: Any) -> None:
    validator.check_schema(validator.schema)


def test_every_kind_and_every_option_of_it_is_known(validator: Any) -> None:
    from dlm_sway.probes.registry import probes

    assert set(validator.schema["properties"]["suite"]["items"]["properties"]["kind"]["enum"]) == set(probe_kinds())
    for cls in probes().values():
        node = validator.schema["$defs"][cls.spec_type.__name__]
        assert set(node["properties"]) == set(cls.spec_type.model_fields)
        assert "title" not in node["properties"]["name"]


@pytest.mark.parametrize(
    "member",
    [
        "{name: a, kind: delta_kl}",
        "{name: a, kind: delta_kl, prompts: [x, {text: y, cluster: c}]}",
        "{name: a, kind: target_gain, items: {data: train}, held_out: [{prompt: p, completion: c}]}",
        "{name: a, kind: style_fingerprint, reference: one text}",
        "{name: a, kind: adapter_revert, cases: [{prompt: p, gold: g, paraphrases: [q, r]}]}",
    ],
)
def test_what_the_loader_takes_fits(validator: Any, member: str) -> None:
    assert list(validator.iter_errors({**HEAD, "suite": [yaml.safe_load(member)]})) == []


@pytest.mark.parametrize(
    "member",
    [
        "{kind: delta_kl}",
        "{name: a, kind: delta_kll}",
        "{name: a, kind: delta_kl, promts: []}",
        "{name: a, kind: target_gain}",
        "{name: a, kind: target_gain, items: {dat: train}}",
        "{name: a, kind: target_gain, items: [{text: x, custer: y}]}",
    ],
)
def test_what_the_loader_refuses_does_not(validator: Any, member: str) -> None:
    assert list(validator.iter_errors({**HEAD, "suite": [yaml.safe_load(member)]})) != []


def test_words_stand_for_models_and_shared_parts_may_stand_anywhere(validator: Any) -> None:
    suite = [{"name": "a", "kind": "delta_kl"}]
    whole = {"version": 1, "models": {"base": "b", "ft": "a"}, "x-shared": 1, "suite": suite}
    assert list(validator.iter_errors(whole)) == []
    assert list(validator.iter_errors(whole | {"shared": 1})) != []


def test_the_committed_schema_is_what_the_specs_say_now() -> None:
    committed = Path(__file__).parents[2] / "docs" / "sway.schema.json"
    assert json.loads(committed.read_text()) == suite_schema(own_only=True), "run: python docs/build.py"
