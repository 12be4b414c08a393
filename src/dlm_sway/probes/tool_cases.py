"""Cases of `tool_use_fidelity`: what is asked, with which tools, and what became of a reply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from dlm_sway.backends.base import Messages
from dlm_sway.probes.tool_calls import Call, agreement, calls_in
from dlm_sway.probes.tool_schema import NOT_OFFERED, Schemas, names_of, normal_tool

_RIGHT = 1 - 1e-9


def _tools(raw: Any) -> Any:
    return tuple(normal_tool(tool) for tool in raw) if isinstance(raw, list | tuple) else raw


ToolList: TypeAlias = Annotated[tuple[dict[str, Any], ...], BeforeValidator(_tools)]


class GoldCall(BaseModel):
    """The call that is right."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    arguments: dict[str, Any] = Field(default_factory=dict)


class ToolCase(BaseModel):
    """A request, the tools offered with it, and the call that is right, if it is known.

    Attributes:
        prompt: a text, or the turns of a conversation.
        tools: those offered; the spec's when none are given.
        gold: the call that is right.
        cluster: what it varies together with, such as other wordings of one request; itself when not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Annotated[str, Field(min_length=1)] | Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    tools: ToolList = ()
    gold: GoldCall | None = None
    cluster: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _turns(self) -> Self:
        if isinstance(self.prompt, str):
            if not self.prompt.strip():
                raise ValueError("the prompt is empty")
        elif not all(isinstance(turn.get("role"), str) for turn in self.prompt):
            raise ValueError("every turn needs a role")
        return self

    @property
    def messages(self) -> Messages:
        """The prompt as a conversation."""
        return ({"role": "user", "content": self.prompt},) if isinstance(self.prompt, str) else self.prompt

    @property
    def label(self) -> str:
        """The request in words: the last turn."""
        return str(self.messages[-1].get("content") or "")

    @property
    def words(self) -> str:
        """What is asked, without regard to spaces and to the tools offered with it."""
        turns = [{**turn, "content": " ".join(str(turn.get("content") or "").split())} for turn in self.messages]
        return key_of(turns)


def clusters_of(cases: Sequence[ToolCase]) -> list[str]:
    """Return the cluster of each case; the same words with other tools are in that of their first, as they add little.

    A request of a name's cluster and one of its own cannot meet: the words of a request are written as a list.
    """
    first: dict[str, str] = {}
    return [first.setdefault(c.words, c.words if c.cluster is None else f"cluster {c.cluster}") for c in cases]


def key_of(value: Any) -> str:
    """Return one string for equal JSON values."""
    return json.dumps(value, sort_keys=True, default=str)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one reply.

    Attributes:
        calls: the calls it tries.
        valid: it calls, and every call is one that the tools allow.
        stray: names it calls that were not offered.
        agreement: best share of the gold call's arguments; None without a gold call.
        fault: what is wrong with the first call that is not valid.
    """

    calls: tuple[Call, ...]
    valid: bool
    stray: tuple[str, ...]
    agreement: float | None
    fault: str | None

    @property
    def called(self) -> bool:
        """Whether a call was tried."""
        return bool(self.calls)

    @property
    def named(self) -> bool:
        """Whether a call names a tool, offered or not; one that cannot be read names none."""
        return any(call.name for call in self.calls)

    @property
    def right(self) -> bool:
        """Whether it calls what is right, with the right arguments, and nothing else."""
        return len(self.calls) == 1 and self.agreement is not None and self.agreement >= _RIGHT


def outcome(text: str, case: ToolCase, schemas: Schemas, offered: Sequence[str]) -> Outcome:
    """Judge one reply by the tools that were offered; a malformed call has no name and strays nowhere."""
    calls = calls_in(text)
    faults = [_fault(call, schemas, offered) for call in calls]
    gold = Call(case.gold.name, case.gold.arguments) if case.gold else None
    return Outcome(
        calls=calls,
        valid=bool(calls) and not any(faults),
        stray=tuple(call.name for call in calls if call.name and call.name not in offered),
        agreement=None if gold is None else max((agreement(call, gold) for call in calls), default=0.0),
        fault=next((fault for fault in faults if fault), None),
    )


def _fault(call: Call, schemas: Schemas, offered: Sequence[str]) -> str | None:
    """Return what is wrong with a call; one that is allowed without a tool has no schema to break."""
    fault = schemas.fault(call)
    return None if fault == NOT_OFFERED and call.name in offered else fault


def offered_names(tools: Sequence[Mapping[str, Any]], allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the names that may be called: those offered, and others that the spec allows."""
    return (*names_of(tuple(tools)), *allowed)
