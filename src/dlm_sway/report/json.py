"""Reports as strict JSON: no NaN, a stable order, and a way back.

`report.read.read_result` gives the same result again wherever its numbers are finite. JSON has no word for NaN and
infinity, so those become null; an interval with such an end becomes null as a whole, since half an interval would be
read as a whole one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from dlm_sway.chain.result import ChainResult
from dlm_sway.core.result import SuiteResult
from dlm_sway.suite.result import QUESTIONS, CheckResult


def to_json(result: CheckResult | SuiteResult | ChainResult) -> str:
    """Return the result as JSON with a newline at its end; equal results give equal bytes.

    `schema_version` stands first and the records keep their fields' order; free-form parts (evidence, provenance,
    timing) are sorted by key.
    """
    if isinstance(result, ChainResult):
        return dumps(chain_document(result))
    return dumps(suite_document(result) if isinstance(result, SuiteResult) else check_document(result))


def check_document(result: CheckResult) -> dict[str, Any]:
    """Return the result of a check as JSON values."""
    dumped = result.model_dump()
    dumped["questions"] = {key: dumped["questions"][key] for key in _question_order(result)}
    document = _common(dumped)
    for question in (*document["questions"].values(), *document["findings"].values()):
        question["interval"] = _whole(question["interval"])
    return document


def chain_document(result: ChainResult) -> dict[str, Any]:
    """Return a walk along the chain as JSON values; its verdict stands behind its names."""
    dumped = result.model_dump()
    first = ("schema_version", "adapter", "base", "verdict")
    document = {key: _plain(dumped[key]) for key in (*first, *dumped)}
    for link in document["links"]:
        for finding in link["findings"]:
            finding["interval"] = _whole(finding["interval"])
            finding["evidence"] = _sorted(finding["evidence"])
    document["provenance"] = _sorted(document["provenance"])
    return document


def suite_document(result: SuiteResult) -> dict[str, Any]:
    """Return the result of a suite as JSON values; its verdict stands behind its name, where a reader looks for it."""
    dumped = result.model_dump()
    first = ("schema_version", "name", "verdict")
    document = _common({key: dumped[key] for key in (*first, *dumped)})
    document["components"] = {key: value for key, value in document["components"].items() if value is not None}
    document["coverage"] = document["coverage"] or 0.0
    return document


def _common(dumped: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {key: _plain(value) for key, value in dumped.items()}
    for probe in document["probes"]:
        probe["ci_95"] = _whole(probe["ci_95"])
        probe["duration_s"] = probe["duration_s"] or 0.0
        probe["evidence"] = _sorted(probe["evidence"])
    document["provenance"] = _sorted(document["provenance"])
    document["timing"] = {key: value for key, value in _sorted(document["timing"]).items() if value is not None}
    return document


def dumps(document: Mapping[str, Any]) -> str:
    """Return a document as strict JSON, indented, keys in their order, with a newline at its end."""
    return json.dumps(_plain(document), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def _question_order(result: CheckResult) -> list[str]:
    known = [key for key in QUESTIONS if key in result.questions]
    return known + [key for key in result.questions if key not in known]


def _whole(ends: list[float | None] | None) -> list[float | None] | None:
    return None if ends is None or None in ends else ends


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Return `value` as what JSON has: arrays and scalars of numpy as lists and numbers, the unknown as its text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace").decode()  # a lone surrogate is no UTF-8
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else _plain(str(value))
