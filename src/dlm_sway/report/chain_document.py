"""A walk along the chain as the view model: a panel of links, a claim a step, a fold a link."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dlm_sway.chain.result import ChainResult, Finding, Link
from dlm_sway.chain.static import ENOUGH
from dlm_sway.core.result import Verdict
from dlm_sway.report import model
from dlm_sway.report.document import COUNTED, MAX_FACTS, Claim, Document, LinkView, ProbeView, pairs
from dlm_sway.report.evidence import Evidence, number, read_evidence
from dlm_sway.report.model import Row
from dlm_sway.report.text import clean

_TITLES: Final = {"adapter": "adapter", "merged": "merged", "gguf": "GGUF", "served": "served"}
_LAYER: Final = re.compile(r"\.(\d+)\.")
_MAX_TEXT: Final = 2000


def chain_document(result: ChainResult) -> Document:
    """Return the view model of a walk."""
    links = tuple(map(_link, result.links))
    claims = tuple(_claim(f, link, place) for place, link in enumerate(result.links) for f in link.findings)
    counted = Counter(claim.row.verdict for claim in claims)
    return Document(
        kind="chain",
        title=model.last_part(result.adapter),
        subject=" on ".join(clean(part) for part in (result.adapter, result.base) if part),
        verdict=result.verdict,
        summary=_summary(result),
        claims=claims,
        probes=tuple(_view(link, claims, place) for place, link in enumerate(result.links)),
        counts=tuple((verdict, counted[verdict]) for verdict, _ in COUNTED if counted[verdict]),
        steps=tuple(dict.fromkeys(_steps(result))),
        score=None,
        provenance=tuple(pairs(result.provenance))[:MAX_FACTS],
        work="",
        seconds=0.0,
        links=links + tuple(_not_walked(name) for name in result.not_walked),
    )


def _summary(result: ChainResult) -> str:
    broken = [f"{_title(link.name)}: {_named(link.fault)}" for link in result.links if link.fault is not None]
    if broken:
        rest = f" (then {', '.join(broken[1:])})" if broken[1:] else ""
        return f"broken at {broken[0]}{rest}"
    walked = " to ".join(dict.fromkeys(_title(link.name) for link in (result.links[:1] + result.links[-1:])))
    if result.verdict is Verdict.INCONCLUSIVE:
        open_ = [_title(link.name) for link in result.links if link.verdict is Verdict.INCONCLUSIVE]
        return f"undecided: {', '.join(open_)}"
    return f"whole from {walked}" + (", with a warning" if result.verdict is Verdict.WARN else "")


def _named(fault: Finding) -> str:
    return clean(fault.cause or (fault.message if fault.verdict is Verdict.ERROR else fault.step), limit=120)


def _steps(result: ChainResult) -> Iterator[str]:
    """Yield what to do, the worst first; what was skipped last."""
    order = (Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.WARN, Verdict.SKIP)
    found = [(order.index(f.verdict), link, f) for link in result.links for f in link.findings if f.verdict in order]
    for _, link, finding in sorted(found, key=lambda entry: entry[0]):
        if finding.remedy:
            yield f"{_title(link.name)}: {clean(finding.remedy)}"
    if result.not_walked:
        names = ", ".join(map(_title, result.not_walked))
        yield f"Mend that first, or look at {names} too with --all"


def _link(link: Link) -> LinkView:
    """Return a line of the panel; what its behaviour says of the effect comes before what its files say."""
    measured = [f for f in link.findings if number(f.effect_left) is not None]
    best = max(measured, key=lambda f: f.step == "behaviour", default=None)
    fault = link.fault or next((f for f in link.findings if f.verdict in (Verdict.INCONCLUSIVE, Verdict.WARN)), None)
    left = None if best is None else number(best.effect_left)
    low, high = (None, None) if best is None or best.interval is None else map(number, best.interval)
    return LinkView(
        name=_title(link.name),
        what=clean(link.what, limit=200),
        verdict=link.verdict,
        left=left,
        low=low,
        high=high,
        shown=_percent(left, low, high),
        cause="" if fault is None else clean(fault.cause or "", limit=120),
        remedy="" if fault is None else clean(fault.remedy, limit=_MAX_TEXT),
        minimum=ENOUGH,
    )


def _not_walked(name: str) -> LinkView:
    return LinkView(
        name=_title(name), what="not looked at", verdict=Verdict.SKIP, remedy="--all goes on behind a broken link"
    )


def _percent(left: float | None, low: float | None, high: float | None) -> str:
    if left is None:
        return ""
    return f"{left:.1%} {_ends(low, high)}".rstrip()


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.0%}, {high:.0%}]"


def _claim(finding: Finding, link: Link, place: int) -> Claim:
    left, cause = number(finding.effect_left), clean(finding.cause or "", limit=120)
    message = clean(finding.message, limit=_MAX_TEXT)
    low, high = (None, None) if finding.interval is None else map(number, finding.interval)
    row = Row(
        key=f"{link.name}: {finding.step}",
        question=f"{_title(link.name)}: {finding.step}",
        verdict=finding.verdict,
        effect="" if left is None else f"{left:.1%} left",
        interval=_ends(low, high),
        message=f"{cause}: {message}" if cause else message,
    )
    return Claim(row, None, place)


def _view(link: Link, claims: tuple[Claim, ...], place: int) -> ProbeView:
    own = tuple(claim for claim in claims if claim.probe == place)
    fault = link.fault
    message = clean(link.what, limit=200) if fault is None else _named(fault)
    return ProbeView(
        name=_title(link.name),
        kind="link",
        verdict=link.verdict,
        row=Row(link.name, _title(link.name), link.verdict, message=message),
        claims=own,
        score="",
        seconds=0.0,
        evidence=_evidence(link),
    )


def _evidence(link: Link) -> Evidence:
    """Return the numbers behind a link; the scale by module becomes a map of the model."""
    raw: dict[str, Any] = {}
    for finding in link.findings:
        raw[finding.step] = {**raw.get(finding.step, {}), **finding.evidence}
    modules = raw.get("static", {}).pop("modules", {})
    if isinstance(modules, Mapping) and modules:
        raw["layers"] = [
            {"module": str(name), "layer": _layer(str(name)), "value": number(value), "p": None}
            for name, value in modules.items()
        ]
    return read_evidence(raw)


def _layer(name: str) -> int | None:
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def _title(name: str) -> str:
    return _TITLES.get(name, clean(name, limit=40))
