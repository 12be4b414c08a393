from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.report.samples import hostile, snapshot, stored

from dlm_sway.core.result import ProbeResult, SuiteResult, Verdict
from dlm_sway.report.suite_terminal import print_suite

Printed = Callable[..., str]


def _shown(printed: Printed, result: SuiteResult, **options: object) -> str:
    return printed(lambda console: print_suite(result, console), **options)


@pytest.fixture
def suite() -> SuiteResult:
    found = stored("suite")
    assert isinstance(found, SuiteResult)
    return found


@pytest.mark.parametrize("width", [80, 160])
def test_the_report_is_as_it_was_looked_at(suite: SuiteResult, printed: Printed, width: int) -> None:
    text = _shown(printed, suite, width=width)
    assert text == snapshot(f"suite-{width}.txt", text)


@pytest.mark.parametrize("width", [40, 80, 120, 139, 140, 160, 240])
def test_only_the_headline_and_the_last_line_are_longer_than_the_terminal(
    suite: SuiteResult, printed: Printed, width: int
) -> None:
    lines = _shown(printed, suite, width=width).splitlines()
    assert max(map(len, lines[3:-1])) <= width
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [80, 160])
def test_no_word_of_a_message_is_cut_short(suite: SuiteResult, printed: Printed, width: int) -> None:
    text = "".join(_shown(printed, suite, width=width).split())
    assert "sentence_transformers,whichisnotinstalled" in text or width == 160
    assert "…" not in text


def test_a_pipe_gets_no_colour(suite: SuiteResult, printed: Printed) -> None:
    assert "\x1b" not in _shown(printed, suite)
    assert "\x1b[" in _shown(printed, suite, force_terminal=True, color_system="standard")


def test_hostile_text_cannot_command_the_terminal(printed: Printed) -> None:
    for width in (80, 160):
        text = _shown(printed, hostile(), width=width, force_terminal=True, color_system=None)
        assert "owned" in text
        assert not set(text) & {"\x1b", "\r", "\x00", "\x07", "\u202e"}


def test_a_long_name_leaves_the_claim_that_a_row_is_of(printed: Printed) -> None:
    claims = {name: {"verdict": "pass", "effect": 0.5, "message": "m"} for name in ("applied", "learned")}
    name = "harbour-town-document-v2-with-all-of-its-appendices"
    probe = ProbeResult(name=name, kind="delta_kl", verdict=Verdict.PASS, evidence={"claims": claims})
    text = _shown(printed, SuiteResult(name="s", probes=(probe,)), width=80)
    assert "harbour-town-doc…: applied" in text
    assert "harbour-town-doc…: learned" in text


def test_a_skip_says_why_on_a_narrow_terminal(printed: Printed) -> None:
    probe = ProbeResult(name="a", kind="k", verdict=Verdict.SKIP, raw=0.5, message="no adapter to turn off")
    for width in (80, 160):
        assert "no adapter to turn off" in _shown(printed, SuiteResult(name="s", probes=(probe,)), width=width)


def test_a_suite_without_probes_still_prints(printed: Printed) -> None:
    assert _shown(printed, SuiteResult(name="s")).splitlines()[0].endswith("s: no probe ran")
