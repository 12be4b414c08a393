from __future__ import annotations

from collections.abc import Callable

from dlm_sway.core.result import ProbeResult
from dlm_sway.report.compare_terminal import print_comparison
from dlm_sway.suite.result import CheckResult

Printed = Callable[..., str]

AT_80 = """\
? INCONCLUSIVE  trained: undecided: harmless; not asked: generalises
✗ FAIL  noise twin: not learned, not on target

Learned, or would any weights of this size do the same?
Size of the change, in multiples of the median null draw

  trained           ●●●●                                                ◆  7.88x
  noise twin        ●●◆●                                                   1.04x
              ┴──────┴───────┴──────┴──────┴───────┴──────┴───────┴──────
              0      1       2      3      4       5      6       7
  · one null draw, • two or three, ● more, ◆ the adapter

               trained                          noise twin
  sound        ✓ pass  210 tensors              ✓ pass  210 tensors
  applied      ✓ pass  0.421 nat/token          ✓ pass  0.421 nat/token
               [0.380, 0.460]                   [0.380, 0.460]
  learned      ✓ pass  7.70 x median null       ✗ fail  1.04 x median null
               p = 0.025                        p = 0.62
  on target    ✓ pass  +0.531 nat/token         ✗ fail  -0.0100 nat/token
               [+0.480, +0.602], p = 0.025      [-0.0300, +0.0120], p = 0.4
  generalises  – skip                           – skip
  harmless     ? inconclusive  +0.0310          ? inconclusive  +0.0310
               nat/token                        nat/token
               at most +0.0610                  at most +0.0610
"""  # noqa: RUF001 (the dash is the symbol of a skip)


def _shown(first: CheckResult, second: CheckResult, printed: Printed, **options: object) -> str:
    return printed(lambda console: print_comparison(("trained", first), ("noise twin", second), console), **options)


def test_the_comparison_shows_verdicts_a_picture_and_both_answers(
    healthy: CheckResult, twin: CheckResult, printed: Printed
) -> None:
    text = _shown(healthy, twin, printed)
    assert text == AT_80
    assert max(map(len, text.splitlines())) <= 80


def test_without_draws_the_picture_is_left_out(healthy: CheckResult, twin: CheckResult, printed: Printed) -> None:
    bare = twin.model_copy(update={"probes": (ProbeResult(name="x", kind="x", verdict="pass", raw=1.0),)})
    text = _shown(healthy, bare, printed)
    assert "null draw" not in text
    assert "✗ FAIL  noise twin" in text


def test_values_that_are_not_positive_are_drawn_as_they_are(
    healthy: CheckResult, twin: CheckResult, printed: Printed
) -> None:
    evidence = {"null_draws": [-0.1, 0.0, 0.1], "statistic": 0.3}
    signed = twin.model_copy(
        update={"probes": (ProbeResult(name="x", kind="delta_kl", verdict="pass", evidence=evidence),)}
    )
    text = _shown(healthy, signed, printed)
    assert "multiples" not in text
    assert "0.300\n" in text


def test_an_encoding_without_symbols_gets_an_ascii_picture(
    healthy: CheckResult, twin: CheckResult, printed: Printed
) -> None:
    text = _shown(healthy, twin, printed, encoding="ascii")
    assert text.isascii()
    assert "?" not in text.replace("? INCONCLUSIVE", "").replace("? inconclusive", "").replace("the same?", "")


def test_a_question_that_one_result_lacks_leaves_its_cell_empty(
    healthy: CheckResult, twin: CheckResult, printed: Printed
) -> None:
    only = twin.model_copy(update={"questions": {"learned": twin.questions["learned"]}})
    assert "  sound        ✓ pass  210 tensors\n" in _shown(healthy, only, printed)


def test_names_are_shown_and_never_obeyed(healthy: CheckResult, printed: Printed) -> None:
    text = printed(lambda console: print_comparison(("\x1b[31ma", healthy), ("[red]b", healthy), console))
    assert "\x1b" not in text
    assert "[red]b: undecided" in text
