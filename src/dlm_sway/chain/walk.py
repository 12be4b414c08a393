"""Walks the chain: each link by its files, its tokens and its behaviour, until one is broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dlm_sway.chain.given import MAX_TOKENS, ChainRequest, Given
from dlm_sway.chain.links import AdapterLink, GgufLink, MergedLink, ServedLink, Steps
from dlm_sway.chain.result import ChainResult, Finding, Link, LinkName
from dlm_sway.core.errors import SwayError
from dlm_sway.core.progress import Progress, Silent
from dlm_sway.core.result import Verdict

__all__ = ["ChainRequest", "walk"]


def walk(request: ChainRequest, *, progress: Progress | None = None) -> ChainResult:
    """Return what each link says, ending at the first broken one unless `every` is asked for.

    Raises:
        BadInputError: the adapter, its base or the data cannot be used.
    """
    given = Given(request, progress or Silent())
    plan = _plan(given)
    links: list[Link] = []
    for name, what, steps in plan:
        if links and links[-1].fault and not request.every:
            break
        links.append(Link(name=name, what=what, findings=tuple(_taken(name, steps, given))))
    return ChainResult(
        adapter=str(request.adapter),
        base=given.base,
        links=tuple(links),
        not_walked=tuple(name for name, _, _ in plan[len(links) :]),
        provenance=_provenance(given),
    )


def _plan(given: Given) -> list[tuple[LinkName, str, Steps]]:
    r = given.request
    plan: list[tuple[LinkName, str, Steps]] = [("adapter", str(r.adapter), AdapterLink(given).steps())]
    if r.merged is not None:
        plan.append(("merged", str(r.merged), MergedLink(given, r.merged).steps()))
    if r.gguf is not None:
        plan.append(("gguf", str(r.gguf), GgufLink(given, r.gguf).steps()))
    if r.endpoint is not None:
        plan.append(("served", r.endpoint, ServedLink(given, r.endpoint).steps()))
    return plan


def _taken(name: LinkName, steps: Steps, given: Given) -> Iterator[Finding]:
    for kind, step in steps:
        given.progress.phase(f"{name}: looking at {kind}")
        try:
            found = step()
        except SwayError as error:
            # What cannot be read or reached now cannot be in the next step either: one error, and on to the next link.
            what = f"{error.where}: {error.what}" if error.where else error.what
            yield Finding(step=kind, verdict=Verdict.ERROR, message=what, remedy=error.remedy or "")
            return
        yield found
        if found.verdict is Verdict.FAIL and not given.request.every:
            return


def _provenance(given: Given) -> dict[str, Any]:
    r = given.request
    texts = {"n_data": len(given.own), "n_general": len(given.general), "max_tokens": MAX_TOKENS, "seed": r.seed}
    return texts | {"data": None if r.data is None else str(r.data)}
