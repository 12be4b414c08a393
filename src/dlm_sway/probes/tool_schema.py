"""Tools as a user offers them, and whether a call is one that their schemas allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dlm_sway.backends.base import Tools
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.extras import needs_extra
from dlm_sway.probes.tool_calls import Call

NOT_OFFERED: Final = "not offered"


def normal_tool(raw: Any) -> dict[str, Any]:
    """Return a tool as chat templates take it; the function alone is accepted too.

    Raises:
        ValueError: it has no name, or its parameters are no schema of an object.
    """
    tool = dict(raw) if isinstance(raw, Mapping) else {}
    function = tool.get("function", tool)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError("a tool needs a name: {type: function, function: {name, description, parameters}}")
    parameters = function.get("parameters", {"type": "object", "properties": {}})
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise ValueError(f"the parameters of {function['name']!r} must be a JSON schema of type object")
    return {"type": "function", "function": {"description": "", **function, "parameters": dict(parameters)}}


def names_of(tools: Tools) -> tuple[str, ...]:
    """Return the names of tools."""
    return tuple(tool["function"]["name"] for tool in tools)


class Schemas:
    """The parameters of a set of tools; a schema that refers to another file is refused and nothing is fetched."""

    def __init__(self, tools: Tools) -> None:
        """Compile the schemas.

        Raises:
            MissingExtraError: jsonschema is not installed.
            BadInputError: a tool's parameters are no valid schema, or two tools of one name differ.
        """
        with needs_extra("checking tool calls"):
            import jsonschema
            import referencing
        self._unresolved = referencing.exceptions.Unresolvable
        self._checks: dict[str, Any] = {}
        for tool in tools:
            name, schema = tool["function"]["name"], tool["function"]["parameters"]
            try:
                jsonschema.Draft202012Validator.check_schema(schema)
            except jsonschema.SchemaError as fault:
                raise BadInputError(
                    f"its parameters are no JSON schema: {fault.message}", where=f"tool {name!r}"
                ) from None
            check = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())
            if name in self._checks and self._checks[name].schema != schema:
                raise BadInputError("two tools of this name differ", where=f"tool {name!r}")
            self._checks[name] = check

    def fault(self, call: Call) -> str | None:
        """Return what is wrong with a call, or None when it is valid.

        Raises:
            BadInputError: the schema refers to what is not in it.
        """
        if call.arguments is None:
            return "cannot be read"
        if call.name not in self._checks:
            return NOT_OFFERED
        try:
            faults: Sequence[Any] = [*self._checks[call.name].iter_errors(dict(call.arguments))]
        except self._unresolved as fault:
            raise BadInputError(
                f"its schema refers to what is not there: {fault}", where=f"tool {call.name!r}"
            ) from None
        except RecursionError:
            return "nested too deep"
        except OverflowError:  # of 1e999, or of hundreds of digits, beside `multipleOf`
            return "a number is too large"
        return f"{faults[0].json_path}: {faults[0].message}" if faults else None
