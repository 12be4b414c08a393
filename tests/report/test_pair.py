"""The page that sets two checks side by side."""

from __future__ import annotations

import re

from tests.report.samples import HOSTILE, pair, stored

from dlm_sway.report.charts import effect_chart
from dlm_sway.report.document import document_of
from dlm_sway.report.effects import Effect


def _x_domain(effect: Effect, *beside: Effect) -> list[float]:
    chart = effect_chart(effect, beside=beside).to_dict()
    return next(
        e["encoding"]["x"]["scale"]["domain"] for e in chart["layer"] if "domain" in e["encoding"]["x"]["scale"]
    )


def test_what_differs_stands_before_what_does_not() -> None:
    page = pair()
    differ, agree = page.index("Where they differ"), page.index("What they have in common")
    assert differ < page.index("<h3>learned</h3>") < agree < page.index("<h3>applied</h3>")
    assert page.count('class="asked"') == len(document_of(stored("check")).claims)


def test_both_answers_of_a_question_stand_in_its_row_with_their_verdicts() -> None:
    row = pair().partition("<h3>learned</h3>")[2].partition('class="asked"')[0]
    assert re.findall(r'class="side v-(\w+)"', row) == ["pass", "fail"]
    assert "1.67 x the median null" in row
    assert "1.02 x the median null" in row


def test_pictures_that_are_read_together_have_one_axis() -> None:
    small, large = (Effect(value, None, None, "nat", None, None) for value in (0.1, 5.0))
    assert _x_domain(small, large) == _x_domain(large, small) != _x_domain(small)


def test_a_name_is_text_and_nothing_else() -> None:
    page = pair(name=HOSTILE)
    assert page.count("<script>") == 1
    assert "<img src=x" not in page


def test_it_loads_nothing_and_links_only_where_it_was_told_to() -> None:
    links = set(re.findall(r'(?:href|src)="([^"#][^"]*)"', pair()))
    assert links == {"trained.html", "data:,"}
