from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.core.result import ProbeResult
from dlm_sway.report.strip import Strip, learned_strip, legend, multiples, plot
from dlm_sway.suite.result import CheckResult


def _result(*probes: ProbeResult) -> CheckResult:
    return CheckResult(adapter="a", base=None, verdict="pass", questions={}, probes=probes)


def _probe(kind: str, raw: float | None = None, **evidence: object) -> ProbeResult:
    return ProbeResult(name=kind, kind=kind, verdict="pass", raw=raw, evidence=evidence)


def test_a_strip_shows_where_the_adapter_stands_among_its_draws() -> None:
    strips = (Strip("a", (1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0), 8.0), Strip("twin", (0.0, 1.0), 1.0))
    assert plot(strips, width=40, ascii_only=True) == (
        "a        o   O  .                X  8.00",
        "twin  .  X                          1.00",
        "      +------+------+-----+------+",
        "      0      2      4     6      8",
    )


def test_a_wide_range_gets_a_logarithmic_axis() -> None:
    assert plot((Strip("a", (1.0, 2.0), 1000.0),), width=40, suffix="x") == (
        "a  ·  ·                        ◆  1,000x",
        "   ┴────────┴─────────┴────────┴",
        "   1       10        100    1000",
    )


def test_values_below_zero_are_drawn_left_of_it() -> None:
    line, _, labels = plot((Strip("a", (-3.0, 1.0), -1.0),), width=40)
    assert line.index("·") < line.index("◆") < line.rindex("·")
    assert labels.index("-1") < labels.index("0")


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0, 1e-300, 1e9])
def test_draws_that_are_all_alike_still_give_a_plot(value: float) -> None:
    assert "◆" in plot((Strip("a", (value, value), value),), width=40)[0]


def test_the_legend_names_the_marks_that_the_plot_uses() -> None:
    assert legend() == "· one null draw, • two or three, ● more, ◆ the adapter"
    assert legend(ascii_only=True).isascii()


def test_multiples_are_of_the_median_draw_and_only_where_all_are_positive() -> None:
    good, bad = Strip("a", (1.0, 2.0, 9.0), 4.0), Strip("b", (0.0, 1.0), 1.0)
    assert multiples([good]) == (Strip("a", (0.5, 1.0, 4.5), 2.0),)
    assert multiples([good, bad]) is None


def test_the_statistic_is_read_from_delta_kl_before_others() -> None:
    other = _probe("other", null_draws=[1.0], statistic=2.0)
    delta = _probe("delta_kl", raw=9.0, null_draws=(3.0, math.nan), statistic=4)
    assert learned_strip("n", _result(other, delta)) == Strip("n", (3.0,), 4.0)
    assert learned_strip("n", _result(other)) == Strip("n", (1.0,), 2.0)


def test_the_effect_stands_in_for_a_statistic_that_is_not_told() -> None:
    assert learned_strip("n", _result(_probe("delta_kl", raw=9.0, null_draws=[3.0]))) == Strip("n", (3.0,), 9.0)


@pytest.mark.parametrize(
    "evidence",
    [
        {},
        {"null_draws": None, "statistic": 1.0},
        {"null_draws": [], "statistic": 1.0},
        {"null_draws": [math.nan], "statistic": 1.0},
        {"null_draws": ["a"], "statistic": 1.0},
        {"null_draws": [1.0], "statistic": math.inf},
        {"null_draws": [1.0], "statistic": None},
        {"null_draws": {"a": 1.0}, "statistic": 1.0},
    ],
)
def test_a_result_without_usable_draws_has_no_strip(evidence: dict[str, object]) -> None:
    assert learned_strip("n", _result(_probe("delta_kl", **evidence))) is None


_VALUES = st.floats(-1e12, 1e12)


@settings(deadline=None, max_examples=200)
@given(st.lists(_VALUES, min_size=1, max_size=9), _VALUES, st.integers(40, 200))
def test_no_line_is_wider_than_asked_and_every_strip_shows_its_adapter(
    nulls: list[float], real: float, width: int
) -> None:
    lines = plot((Strip("name", tuple(nulls), real),), width=width)
    assert max(map(len, lines)) <= width
    assert lines[0].count("◆") == 1
