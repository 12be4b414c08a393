from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.report.samples import hostile, stored

from dlm_sway.core import shown
from dlm_sway.core.errors import CannotRunError, MissingExtraError
from dlm_sway.core.result import SuiteResult
from dlm_sway.report.document import document_of

RESULTS: list[Any] = [stored("check"), stored("suite")]


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_shows_its_verdict_and_every_claim_in_a_notebook(result: Any) -> None:
    text = result._repr_html_()
    assert result.verdict.upper() in text
    for claim in document_of(result).claims:
        assert f"<td>{claim.row.question}</td>" in text
    assert "<script" not in text


def test_a_hostile_result_is_shown_as_text() -> None:
    text = hostile()._repr_html_()
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_shows_itself_where_only_markdown_is_read(result: Any) -> None:
    assert result._repr_markdown_().startswith("## ")


@pytest.mark.parametrize("result", RESULTS)
def test_a_frame_has_a_row_a_claim_with_its_numbers(result: Any) -> None:
    frame = result.to_frame()
    claims = document_of(result).claims
    assert list(frame["verdict"]) == [claim.row.verdict.value for claim in claims]
    found = frame[frame["claim"] == "generalises"].iloc[0]
    assert (found["effect"], found["unit"], found["p"]) == (pytest.approx(1.626, abs=1e-3), "nat/token", 0.025)
    assert found["low"] < found["effect"] < found["high"]


@pytest.mark.parametrize(("package", "method"), [("pandas", "to_frame"), ("altair", "plot")])
def test_what_is_missing_is_named_with_its_command(package: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"pip install .*{package}"):
        getattr(RESULTS[0], method)()


def test_the_figures_are_one_chart_with_a_part_for_each_picture() -> None:
    drawn = stored("suite").plot().to_dict()
    titles = [part["title"] for part in drawn["vconcat"]]
    for title in ("moved: learned", "section map", "dose: held-out gain", "where it learned"):
        assert title in titles
    assert "config" in drawn
    assert not any("config" in part for part in drawn["vconcat"])


def test_a_result_without_an_effect_says_that_it_cannot_be_drawn() -> None:
    with pytest.raises(CannotRunError, match="nothing"):
        SuiteResult(name="s").plot()


def test_a_renderer_that_is_not_installed_is_named() -> None:
    with pytest.raises(CannotRunError, match="sculpture"):
        shown._way("sculpture")


def test_results_import_no_renderer(tmp_path: Path) -> None:
    code = (
        "import sys, dlm_sway.suite.result, dlm_sway.core.result\n"
        "assert not [m for m in sys.modules if m.startswith('dlm_sway.report') or m in ('altair', 'pandas', 'jinja2')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
