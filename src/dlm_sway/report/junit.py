"""JUnit XML, as CI servers read it: one case a probe (of a check: one a question, of a chain: one a step), one a gate.

The format knows passed, failed, error and skipped. An INCONCLUSIVE answer is a skipped case whose message says so,
since it is neither; a WARN passes and says its warning in `system-out`. Nothing here ever turns absence of evidence
into a passed case. A closed gate is one failure, or an error where an error closed it, that lists what closed it: CI
servers read one failure a case.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.etree import ElementTree as ET

from dlm_sway.core.result import Verdict
from dlm_sway.report.document import Document, Result, document_of
from dlm_sway.report.gate import GateView
from dlm_sway.report.model import Row
from dlm_sway.report.suite_terminal import score_line
from dlm_sway.report.text import legal_in_xml
from dlm_sway.suite.gate import Gate

_TAGS: Final = {
    Verdict.FAIL: "failure",
    Verdict.ERROR: "error",
    Verdict.INCONCLUSIVE: "skipped",
    Verdict.SKIP: "skipped",
}
_COUNTED: Final = (
    ("failures", (Verdict.FAIL,)),
    ("errors", (Verdict.ERROR,)),
    ("skipped", (Verdict.SKIP, Verdict.INCONCLUSIVE)),
)


def to_junit(result: Result, *, gate: Gate | None = None) -> str:
    """Return the result as JUnit XML with a newline at its end; what a gate found of it is a case too."""
    document = document_of(result, gate)
    cases = list(_cases(document))
    counts = {"tests": str(len(cases))} | {
        name: str(sum(row.verdict in verdicts for row, _, _ in cases)) for name, verdicts in _COUNTED
    }
    shared = {"name": legal_in_xml(f"sway: {document.title}"), **counts, "time": f"{document.seconds:.3f}"}
    root = ET.Element("testsuites", shared)
    suite = ET.SubElement(root, "testsuite", shared)
    _add_properties(suite, document)
    for row, kind, seconds in cases:
        _add_case(suite, row, kind, seconds)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _cases(document: Document) -> Iterator[tuple[Row, str, float]]:
    if document.kind == "suite":
        yield from ((probe.row, probe.kind, probe.seconds) for probe in document.probes)
    else:
        yield from ((claim.row, document.kind, 0.0) for claim in document.claims)
    if document.gate is not None:
        yield _gate_row(document.gate), "gate", 0.0


def _gate_row(gate: GateView) -> Row:
    """Return a gate as a row; one that is closed by what is undecided fails, since a skipped case lets CI go on."""
    verdict = Verdict.FAIL if gate.verdict is Verdict.INCONCLUSIVE else gate.verdict
    breaches = "; ".join(f"{breach.name}: {breach.message}" for breach in gate.breaches)
    message = f"{gate.headline}: {breaches}" if breaches else gate.headline
    return Row("gate", "gate", verdict, message=message)


def _add_properties(suite: ET.Element, document: Document) -> None:
    properties = ET.SubElement(suite, "properties")
    facts = (
        ("verdict", document.verdict.value),
        ("summary", document.summary),
        ("subject", document.subject),
        ("score", score_line(document.score)),
        *document.provenance,
    )
    for name, value in facts:
        if value:
            ET.SubElement(properties, "property", {"name": legal_in_xml(name), "value": legal_in_xml(value)})


def _add_case(suite: ET.Element, row: Row, kind: str, seconds: float) -> None:
    names = {
        "classname": legal_in_xml(f"sway.{kind}"),
        "name": legal_in_xml(row.question or "unnamed"),
        "time": f"{seconds:.3f}",
    }
    case = ET.SubElement(suite, "testcase", names)
    message = legal_in_xml(row.message or row.effect or row.verdict)
    numbers = legal_in_xml(_numbers(row))
    tag = _TAGS.get(row.verdict)
    if tag is not None:
        undecided = row.verdict is Verdict.INCONCLUSIVE
        found = ET.SubElement(case, tag, {"message": f"inconclusive: {message}" if undecided else message})
        if tag != "skipped":
            found.set("type", row.verdict.value)
            found.text = "\n".join(part for part in (message, numbers) if part)
            return
    said = [f"WARN: {message}" if row.verdict is Verdict.WARN else f"{row.verdict.upper()}: {message}", numbers]
    ET.SubElement(case, "system-out").text = "\n".join(part for part in said if part)


def _numbers(row: Row) -> str:
    parts = (
        f"{row.effect} {row.interval}".strip(),
        f"p = {row.p}" if row.p else "",
        f"against {row.null}" if row.null else "",
    )
    return ", ".join(part for part in parts if part)
