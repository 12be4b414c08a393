from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.report.samples import FOLDER, hostile, stored

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import SuiteResult
from dlm_sway.report.json import to_json
from dlm_sway.report.read import load_result, read_result
from dlm_sway.report.schema import result_schemas
from dlm_sway.suite.result import CheckResult

KINDS = ("check", "suite")


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_stored_by_version_1_still_loads_with_all_it_holds(kind: str) -> None:
    raw = json.loads((FOLDER / f"{kind}-v1.json").read_text())
    result = stored(kind)
    assert isinstance(result, CheckResult if kind == "check" else SuiteResult)
    assert [p.name for p in result.probes] == [p["name"] for p in raw["probes"]]
    assert (result.verdict, result.provenance) == (raw["verdict"], raw["provenance"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_result_is_written_again_byte_for_byte(kind: str) -> None:
    assert to_json(stored(kind)) == (FOLDER / f"{kind}-v1.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("make", [lambda: stored("check"), lambda: stored("suite"), hostile])
def test_what_is_written_meets_the_schema(make: Callable[[], Any]) -> None:
    result = make()
    schema = result_schemas()["check" if isinstance(result, CheckResult) else "suite"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(to_json(result)), schema)


def test_the_schema_refuses_a_verdict_that_does_not_exist() -> None:
    document = json.loads(to_json(stored("suite"))) | {"verdict": "perhaps"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, result_schemas()["suite"])


def test_a_hostile_suite_comes_back_from_its_json() -> None:
    assert read_result(to_json(hostile())) == hostile()


def test_a_flipped_verdict_in_a_suite_file_is_not_believed() -> None:
    document = json.loads(to_json(stored("suite"))) | {"verdict": "pass"}
    assert read_result(json.dumps(document)).verdict == "error"


def test_numbers_that_json_lacks_are_left_out_of_a_suite() -> None:
    text = to_json(SuiteResult(score=float("nan"), coverage=float("inf"), components={"adherence": float("nan")}))
    back = read_result(text)
    assert isinstance(back, SuiteResult)
    assert (back.score, back.coverage, back.components) == (None, 0.0, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ('{"schema_version": 1, "probes": NaN}', "is no JSON"),
        ("[]", "is no result"),
        ('{"x": 1}', "is no result"),
        ('{"schema_version": "1", "probes": []}', "schema_version"),
        ('{"schema_version": 0, "probes": []}', "schema_version"),
        ('{"schema_version": 99, "probes": []}', "update sway"),
        ('{"schema_version": 1, "probes": [{"name": 3}]}', "probes.0.name"),
        ('{"schema_version": 1, "probes": [], "surprise": 1}', "surprise"),
        ('{"trained": {}, "twin": {}}', "demo"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_what_is_no_result_is_named_with_its_fault(text: str, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        read_result(text, where="r.json")


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "no", tmp_path / "b", tmp_path):
        with pytest.raises(BadInputError, match="cannot be read"):
            load_result(path)
