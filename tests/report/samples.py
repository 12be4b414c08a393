"""Results that were stored when they were new, and one that a hostile model or file could make."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from dlm_sway.chain.result import ChainResult, Finding, Link
from dlm_sway.core.result import ProbeResult, SuiteResult, Verdict
from dlm_sway.report.document import Result
from dlm_sway.report.html.pair import to_pair_html
from dlm_sway.report.read import load_result
from dlm_sway.suite.result import CheckResult

FOLDER: Final = Path(__file__).with_name("samples")
SNAPSHOTS: Final = Path(__file__).with_name("snapshots")
HOSTILE: Final = (
    "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
    "\"'`&amp; {{ 7*7 }} {% raw %} ]]> <!-- | [a](javascript:alert(1)) ![i](http://evil.example/p.png) "
    "@octocat #123 www.evil.example \x1b[31mred\x1b]8;;http://x\x07 \x00\ufffe\u202egpj $x^2$ ~~x~~ **b** <b>bold</b>"
)


def stored(kind: str, version: int = 1) -> Result:
    """Return a stored result, `check`, `suite` or `chain`."""
    return load_result(FOLDER / f"{kind}-v{version}.json")


def pair(*, name: str = "noise twin") -> str:
    """Return the page of a check beside one of an adapter that did not learn."""
    trained = load_result(FOLDER / "check-v1.json")
    assert isinstance(trained, CheckResult)
    learned = trained.questions["learned"].model_copy(update={"verdict": Verdict.FAIL, "effect": 1.02, "p": 0.45})
    twin = trained.model_copy(
        update={"verdict": Verdict.FAIL, "questions": {**trained.questions, "learned": learned}, "probes": ()}
    )
    links = (("the trained one", "trained.html"),)
    return to_pair_html(("trained", trained), (name, twin), title="Two adapters", opening="One learned.", links=links)


def hostile() -> SuiteResult:
    """Return a suite in which every text that a user, a file or a model has a say in attacks its reader."""
    claim = {"verdict": "fail", "effect": 1.0, "unit": HOSTILE, "interval": [0.5, 1.5], "p": 0.5, "null": HOSTILE}
    rows = [{"label": HOSTILE, "value": 0.1 * i, "text": HOSTILE, HOSTILE: HOSTILE} for i in range(3)]
    evidence: dict[str, Any] = {
        "claims": {HOSTILE: {**claim, "message": HOSTILE}},
        "unit": HOSTILE,
        "statistic": 1.0,
        "null_draws": [0.1, 0.2],
        "curves": [{"name": HOSTILE, "x": [0, 1], "y": [0, 1], "x_label": HOSTILE, "unit": HOSTILE, "minimum": 0.5}],
        "matrix": {
            "labels": [HOSTILE] * 2,
            "values": [[1, 0], [0, 1]],
            "unit": HOSTILE,
            "rows": HOSTILE,
            "columns": HOSTILE,
        },
        "layers": [{"module": HOSTILE, "layer": 0, "value": 1.0, "p": None}],
        "items": {"largest": rows, "smallest": rows},
        "per_item": rows,
        "dropped": [{"label": HOSTILE, "why": HOSTILE}],
        HOSTILE: HOSTILE,
    }
    probe = ProbeResult(
        name=HOSTILE,
        kind=HOSTILE,
        verdict="fail",
        raw=1.0,
        message=HOSTILE,
        evidence=evidence,  # type: ignore[arg-type]
    )
    return SuiteResult(
        name=HOSTILE,
        base=HOSTILE,
        adapter=HOSTILE,
        band=HOSTILE,
        score=0.0,
        next_steps=(HOSTILE,),
        probes=(probe,),
        provenance={HOSTILE: HOSTILE, "versions": {HOSTILE: HOSTILE}},
    )


def hostile_chain() -> ChainResult:
    """Return a walk in which every text that a user, a file or a server has a say in attacks its reader."""
    finding = Finding(
        step="behaviour",
        verdict=Verdict.FAIL,
        cause=HOSTILE,
        message=HOSTILE,
        remedy=HOSTILE,
        effect_left=0.5,
        interval=(0.4, 0.6),
        evidence={HOSTILE: HOSTILE, "modules": {HOSTILE: 1.0}},
    )
    static = finding.model_copy(update={"step": "static", "interval": None})
    links = tuple(Link(name=name, what=HOSTILE, findings=(static, finding)) for name in ("adapter", "served"))
    return ChainResult(adapter=HOSTILE, base=HOSTILE, links=links, not_walked=("gguf",), provenance={HOSTILE: HOSTILE})


def snapshot(name: str, text: str) -> str:
    """Return the stored snapshot; with `SWAY_SNAPSHOTS=write` store `text` as the new one first."""
    path = SNAPSHOTS / name
    if os.environ.get("SWAY_SNAPSHOTS") == "write":
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")
