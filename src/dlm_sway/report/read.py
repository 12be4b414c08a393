"""Results back from their JSON files, of this version and of older ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NoReturn

from pydantic import ValidationError

from dlm_sway.chain.result import SCHEMA_VERSION as CHAIN_VERSION
from dlm_sway.chain.result import ChainResult
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import SuiteResult
from dlm_sway.report.document import Result
from dlm_sway.report.text import clean
from dlm_sway.suite.result import SCHEMA_VERSION, CheckResult
from dlm_sway.suite.version import upgraded

_REMEDY: Final = "name a file that `sway check --json`, `sway run --json` or `sway chain --json` wrote"
_FAULTS: Final = 3


def load_result(path: Path) -> Result:
    """Return the result that a file holds.

    Raises:
        BadInputError: it cannot be read, is no result, or was written by a newer sway.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "is not UTF-8"
        raise BadInputError(f"cannot be read: {reason}", where=path, remedy=_REMEDY) from exc
    return read_result(text, where=str(path))


def read_result(text: str, *, where: str = "the document") -> Result:
    """Return the result of a check, a suite or a walk along the chain from its JSON.

    Args:
        text: the document.
        where: what errors call it.

    Raises:
        BadInputError: it is no result, or was written by a newer sway.
    """
    parsed = _parsed(text, where)
    newest = CHAIN_VERSION if "links" in parsed else SCHEMA_VERSION
    document = upgraded(parsed, newest=newest, where=where, remedy=_REMEDY)
    model = _model_of(document)
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in exc.errors()[:_FAULTS])
        raise BadInputError(f"is no result: {clean(faults, limit=500)}", where=where, remedy=_REMEDY) from None


def _model_of(document: dict[str, Any]) -> type[Result]:
    if "links" in document:
        return ChainResult
    return CheckResult if "questions" in document else SuiteResult


def _parsed(text: str, where: str) -> dict[str, Any]:
    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is no JSON")

    try:
        document = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as exc:
        raise BadInputError(f"is no JSON: {clean(exc, limit=200)}", where=where, remedy=_REMEDY) from None
    if isinstance(document, dict) and {"trained", "twin"} <= document.keys():
        raise BadInputError(
            "holds the two results of a demo", where=where, remedy="save one of its parts, as `trained`"
        )
    if not isinstance(document, dict) or "schema_version" not in document or not {"probes", "links"} & set(document):
        raise BadInputError("is no result of sway", where=where, remedy=_REMEDY)
    return document
