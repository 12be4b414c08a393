"""The JSON Schema of the files that `sway check --json`, `sway run --json` and `sway chain --json` write."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from dlm_sway.chain.result import ChainResult
from dlm_sway.core.result import SuiteResult
from dlm_sway.suite.result import CheckResult

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_TITLES: Final = {"check": "Result of `sway check`", "suite": "Result of `sway run`", "chain": "Result of `sway chain`"}


def result_schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of each kind of result, by `check`, `suite` and `chain`."""
    models: dict[str, type[BaseModel]] = {"check": CheckResult, "suite": SuiteResult, "chain": ChainResult}
    return {
        kind: {"$schema": _DIALECT, **model.model_json_schema(mode="serialization"), "title": _TITLES[kind]}
        for kind, model in models.items()
    }
