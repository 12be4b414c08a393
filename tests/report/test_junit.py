from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from tests.report.samples import hostile, snapshot, stored

from dlm_sway.core.result import ProbeResult, SuiteResult, Verdict
from dlm_sway.report.junit import to_junit


def _cases(result: SuiteResult) -> list[ET.Element]:
    return ET.fromstring(to_junit(result)).findall("./testsuite/testcase")  # noqa: S314 (our own output)


def _one(verdict: Verdict) -> ET.Element:
    probe = ProbeResult(name="p", kind="k", verdict=verdict, message="because", raw=1.0, duration_s=2.5)
    (case,) = _cases(SuiteResult(name="s", probes=(probe,)))
    return case


@pytest.mark.parametrize("kind", ["check", "suite"])
def test_the_file_is_as_it_was_looked_at(kind: str) -> None:
    text = to_junit(stored(kind))
    assert text == snapshot(f"{kind}.xml", text)


def test_there_is_one_case_a_probe_in_their_order() -> None:
    result = stored("suite")
    assert isinstance(result, SuiteResult)
    assert [case.get("name") for case in _cases(result)] == [p.name for p in result.probes]


@pytest.mark.parametrize(
    ("verdict", "tag", "said"),
    [
        (Verdict.FAIL, "failure", "because"),
        (Verdict.ERROR, "error", "because"),
        (Verdict.SKIP, "skipped", "because"),
        (Verdict.INCONCLUSIVE, "skipped", "inconclusive: because"),
    ],
)
def test_each_verdict_that_is_no_pass_can_be_seen(verdict: Verdict, tag: str, said: str) -> None:
    case = _one(verdict)
    assert {child.tag for child in case} <= {tag, "system-out"}
    found = case.find(tag)
    assert found is not None
    assert found.get("message") == said


def test_a_warning_passes_and_can_be_read() -> None:
    case = _one(Verdict.WARN)
    assert [child.tag for child in case] == ["system-out"]
    assert (case.findtext("system-out") or "").startswith("WARN: because")
    assert case.get("time") == "2.500"


def test_the_counts_are_those_of_the_cases() -> None:
    suite = ET.fromstring(to_junit(stored("suite"))).find("testsuite")  # noqa: S314 (our own output)
    assert suite is not None
    counts = {name: int(suite.get(name, "")) for name in ("tests", "failures", "errors", "skipped")}
    tags = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}
    assert counts == {name: len(list(suite.iter(tag))) for name, tag in tags.items()}


def test_hostile_text_stays_text_and_illegal_characters_never_break_the_file() -> None:
    (case,) = _cases(hostile())
    assert [child.tag for child in case] == ["failure"]
    assert "</script><script>" in case[0].get("message", "")
    assert "\ufffe" not in to_junit(hostile())
