from __future__ import annotations

from collections.abc import Callable

import pytest

from dlm_sway.core.result import Question, Verdict
from dlm_sway.report.terminal import print_check
from dlm_sway.suite.result import CheckResult

Printed = Callable[..., str]

AT_80 = """\
? INCONCLUSIVE  my-adapter: undecided: harmless; not asked: generalises
runs/my-adapter on org/small-base

  ✓ pass          sound        210 tensors
  ✓ pass          applied      0.421 nat/token [0.380, 0.460], against 10 x N0
  ✓ pass          learned      7.70 x median null
                               p = 0.025 against rotation (N1), 39 draws
  ✓ pass          on target    +0.531 nat/token [+0.480, +0.602]
                               p = 0.025 against rotation (N1), 39 draws
  – skip          generalises  Give --held-out FILE with text that was not
                               trained on.
  ? inconclusive  harmless     +0.0310 nat/token at most +0.0610
                               against margin 0.05 nat/token
                               The bound is beyond the margin; about 340
                               passages would decide it.

Next
  1. Score more control text.
  2. Give --held-out FILE.
"""  # noqa: RUF001 (the dash is the symbol of a skip)

AT_160 = """\
✗ FAIL  twin: not learned, not on target
runs/twin on org/small-base

                  question     effect              95 % interval       p     against                  in words
  ✓ pass          sound        210 tensors                                                            All tensors land at scale 2.
  ✓ pass          applied      0.421 nat/token     [0.380, 0.460]            10 x N0                  It is on.
  ✗ fail          learned      1.04 x median null                      0.62  rotation (N1), 39 draws  Any weights do as much.
  ✗ fail          on target    -0.0100 nat/token   [-0.0300, +0.0120]  0.4   rotation (N1), 39 draws  No gain.
  – skip          generalises                                                                         Give --held-out FILE with text that was not trained on.
  ? inconclusive  harmless     +0.0310 nat/token   at most +0.0610           margin 0.05 nat/token    The bound is beyond the margin; about 340 passages would
                                                                                                      decide it.

Next
  1. Score more control text.
  2. Give --held-out FILE.
"""  # noqa: E501, RUF001 (160 columns are what is tested; the dash is the symbol of a skip)


def test_the_report_at_80_columns(healthy: CheckResult, printed: Printed) -> None:
    assert printed(lambda console: print_check(healthy, console), width=80) == AT_80


def test_the_report_at_160_columns(twin: CheckResult, printed: Printed) -> None:
    assert printed(lambda console: print_check(twin, console), width=160) == AT_160


@pytest.mark.parametrize("width", [40, 60, 80, 100, 139, 140, 160, 240])
def test_no_line_but_the_first_two_is_longer_than_the_terminal_or_ends_in_blanks(
    healthy: CheckResult, twin: CheckResult, printed: Printed, width: int
) -> None:
    for result in (healthy, twin):
        lines = printed(lambda console, shown=result: print_check(shown, console), width=width).splitlines()
        assert max(map(len, lines[2:])) <= width
        assert all(line == line.rstrip() for line in lines)


def test_the_verdict_is_one_line_however_narrow_the_terminal(twin: CheckResult, printed: Printed) -> None:
    first = printed(lambda console: print_check(twin, console), width=20).splitlines()[0]
    assert first == "✗ FAIL  twin: not learned, not on target"


def test_a_pipe_gets_no_colour_and_a_terminal_does(healthy: CheckResult, printed: Printed) -> None:
    def show(console: object) -> None:
        print_check(healthy, console)  # type: ignore[arg-type]

    assert "\x1b" not in printed(show)
    assert "\x1b[32m✓ pass" in printed(show, force_terminal=True, color_system="standard")


def test_an_encoding_without_symbols_gets_ascii(healthy: CheckResult, printed: Printed) -> None:
    text = printed(lambda console: print_check(healthy, console), encoding="ascii")
    assert text.isascii()
    assert "+ pass" in text
    assert "- skip" in text


HOSTILE = "a\x1b[31mred\x1b]8;;http://x\x07[bold]b[/bold]\r\u202egpj\x00\n[link=x]c"
SAFE = "ared[bold]b[/bold] gpj [link=x]c"


@pytest.mark.parametrize("width", [80, 160])
def test_hostile_text_from_files_is_shown_and_never_obeyed(healthy: CheckResult, printed: Printed, width: int) -> None:
    question = Question(verdict=Verdict.FAIL, effect=1.0, unit=HOSTILE, null=HOSTILE, message=HOSTILE)
    update = {"adapter": HOSTILE, "base": HOSTILE, "questions": {"learned": question}, "next_steps": (HOSTILE,)}
    text = printed(
        lambda console: print_check(healthy.model_copy(update=update), console),
        width=width,
        force_terminal=True,
        color_system=None,
    )
    assert text.count(SAFE) >= 5
    assert not set(text) & {"\x1b", "\r", "\x00", "\x07", "\u202e"}


def test_a_result_with_nothing_in_it_still_prints(printed: Printed) -> None:
    empty = CheckResult(adapter="", base=None, verdict=Verdict.SKIP, questions={})
    assert printed(lambda console: print_check(empty, console)).splitlines()[0].endswith("nothing could be asked")
