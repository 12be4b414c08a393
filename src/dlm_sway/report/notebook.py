"""How results show themselves in a notebook; found by `core.shown` through entry points."""

from __future__ import annotations

from typing import Any, Final

from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.extras import needs_extra
from dlm_sway.report.document import Claim, Document, Result, document_of
from dlm_sway.report.html.page import environment

_COLUMNS: Final = ("probe", "claim", "verdict", "effect", "unit", "low", "high", "p", "null", "message")


def as_html(result: Result) -> str:
    """Return the verdict, the claims and the next steps as a fragment that a notebook can hold.

    It has no script, no picture and no style beyond its own elements: a notebook may drop any of them.
    """
    text: str = environment().get_template("fragment.html.jinja").render(doc=document_of(result))
    return text


def as_frame(result: Result) -> Any:
    """Return a pandas frame with a row a claim; what a claim lacks is None or NaN.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    with needs_extra("a table of a result"):
        import pandas as pd
    document = document_of(result)
    return pd.DataFrame([_record(document, claim) for claim in document.claims], columns=list(_COLUMNS))


def as_chart(result: Result) -> Any:
    """Return every picture of a result below each other as one Altair chart.

    Raises:
        MissingExtraError: altair is not installed.
        CannotRunError: nothing in this result can be drawn.
    """
    from dlm_sway.report import charts

    with needs_extra("drawing pictures"):
        import altair as alt
    document = document_of(result)
    effects = [(claim.row.question, claim.effect) for claim in document.claims if claim.effect is not None]
    parts = [_titled(charts.effect_chart(effect), title) for title, effect in effects]
    if any(link.left is not None for link in document.links):
        parts.append(_titled(charts.chain_chart(document.links), "effect left"))
    for view in document.probes:
        evidence = view.evidence
        parts += [_titled(charts.curve_chart(curve), f"{view.name}: {curve.name}") for curve in evidence.curves]
        parts += [_titled(charts.matrix_chart(evidence.matrix), view.name)] if evidence.matrix else []
        parts += [_titled(charts.layer_chart(evidence.layers), view.name)] if evidence.layers else []
    if not parts:
        raise CannotRunError("nothing in this result can be drawn: no claim has an effect")
    config = parts[0].to_dict()["config"]
    for part in parts:
        part.config = alt.Undefined  # only the outermost chart may have one
    return alt.vconcat(*parts).resolve_scale(color="independent", x="independent", y="independent").configure(**config)


def _record(document: Document, claim: Claim) -> dict[str, Any]:
    effect, row = claim.effect, claim.row
    return {
        "probe": None if claim.probe is None else document.probes[claim.probe].name,
        "claim": row.key,
        "verdict": row.verdict.value,
        "effect": effect.estimate if effect else None,
        "unit": effect.unit if effect else None,
        "low": effect.low if effect else None,
        "high": effect.high if effect else None,
        "p": float(row.p) if row.p else None,
        "null": row.null or None,
        "message": row.message,
    }


def _titled(chart: Any, title: str) -> Any:
    return chart.properties(title=title)
