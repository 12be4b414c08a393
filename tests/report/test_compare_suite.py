from __future__ import annotations

from collections.abc import Callable

import pytest

from dlm_sway.core.result import Verdict
from dlm_sway.report.compare_suite_markdown import compare_markdown
from dlm_sway.report.compare_suite_terminal import print_compare
from dlm_sway.suite.compare_result import (
    Candidate,
    Comparison,
    Contrast,
    Regression,
    Remark,
    Selection,
    Standing,
)

Printed = Callable[..., str]
NASTY = "a|b \x1b[31m<script>alert(1)</script> [x](javascript:1) @everyone www.evil.example http://evil $x$ #7"


def _contrast(outcome: str, **fields: object) -> Contrast:
    words = {"candidate": "new", "probe": "gain", "kind": "target_gain", "claim": "on_target", "outcome": outcome}
    return Contrast.model_validate({**words, **fields})


def _found(name: str = "new") -> Comparison:
    decided = {
        "unit": "nat/token",
        "difference": -0.213,
        "interval": (-0.301, -0.125),
        "p": 0.001,
        "p_adjusted": 0.002,
        "message": "over 40 shared items",
    }
    rows = tuple(
        Standing(
            probe="gain",
            claim="on_target",
            candidate=who,
            unit="nat/token",
            value=value,
            se=0.02,
            difference=value - 0.5,
            se_difference=None if value == 0.5 else 0.04,
            n_items=40,
        )
        for who, value in (("old", 0.5), (name, 0.287))
    )
    return Comparison(
        reference="old",
        alpha=0.05,
        candidates=(Candidate(name="old", verdict=Verdict.PASS), Candidate(name=name, verdict=Verdict.FAIL)),
        remarks=(Remark(level="caution", candidate=name, what="seed", message="the seed is another (0 and 1)"),),
        contrasts=(
            _contrast("worse", **decided).model_copy(update={"candidate": name}),
            _contrast("not comparable", claim="target_gain", message=name).model_copy(update={"candidate": name}),
        ),
        table=rows,
        selections=(
            Selection(
                probe="gain", claim="on_target", best="old", lead=0.1, by_chance=0.2, artefact=True, message="chosen"
            ),
        ),
        regressions=(Regression(candidate=name, probe="gain", claim="on_target", why="worse", message="worse by 0.2"),),
    )


AT_80 = """\
✗ FAIL  1 regression against old
  ✗ fail  new, gain: on_target: worse by 0.2
  caution: new, the seed is another (0 and 1)

new against old: 1 worse, 1 not comparable, 1 regression
  ▼  gain: on_target  worse
     -0.213 nat/token [-0.301, -0.125], p 0.002 (0.001 alone)
     over 40 shared items
  ·  gain  not comparable
     new

gain: on_target, nat/token, on 40 items that all have
  old  0.500 (SE 0.020)  best
  new  0.287 (SE 0.020)  -0.213 (SE 0.040)
  chosen
"""


def test_the_terminal_says_how_it_ends_and_why(printed: Printed) -> None:
    assert printed(lambda console: print_compare(_found(), console)) == AT_80


def test_it_fits_80_columns(printed: Printed) -> None:
    long = _found("a-name-that-is-long " * 3)
    text = printed(lambda console: print_compare(long, console))
    indented = [line for line in text.splitlines() if line.startswith("  ")]
    assert max(map(len, indented)) <= 80


def test_markdown_has_the_regressions_first_and_a_table() -> None:
    lines = compare_markdown(_found()).splitlines()
    assert lines[0] == "## sway compare: FAIL"
    assert lines[2].startswith("- **worse**: new, gain")
    assert any(line.startswith("| gain: on\\_target | worse |") for line in lines)
    assert "<details>" in compare_markdown(_found())


def test_text_from_files_stays_text(printed: Printed) -> None:
    found = _found(NASTY)
    text = compare_markdown(found)
    assert "<script>" not in text
    assert "[x](" not in text.replace("\\[", "")
    for live in ("@everyone", "www.evil", "http://", " $x", " #7"):
        assert live not in text
    assert "@&#8203;everyone www&#8203;.evil.example http:&#8203;//evil \\$x\\$ #&#8203;7" in text
    assert "\x1b" not in text + printed(lambda console: print_compare(found, console))
    assert all(line.count(" | ") <= 5 for line in text.splitlines())


@pytest.mark.parametrize("n", [10, 3000])
def test_markdown_stays_small_however_many_probes(n: int) -> None:
    many = _found().model_copy(update={"contrasts": _found().contrasts * n, "table": _found().table * n})
    assert len(compare_markdown(many).encode()) < 60_000


def test_nothing_to_compare_is_inconclusive(printed: Printed) -> None:
    bare = Comparison(reference="a", alpha=0.05, candidates=_found().candidates)
    text = printed(lambda console: print_compare(bare, console))
    assert text.splitlines()[0].startswith("? INCONCLUSIVE  nothing could be compared")
