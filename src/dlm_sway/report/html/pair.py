"""Two checks on one page, question by question on common axes: what tells one adapter from another at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from dlm_sway.report.document import Claim, Document, document_of
from dlm_sway.report.effects import Effect
from dlm_sway.report.html.figures import Figure, Studio, claim_figure
from dlm_sway.report.html.page import environment, page_parts
from dlm_sway.report.text import clean
from dlm_sway.suite.result import CheckResult

_PICTURES: Final = 40
_SIZE: Final = 700_000
Named: TypeAlias = tuple[str, CheckResult]


@dataclass(frozen=True, slots=True)
class _Side:
    """One adapter's answer to a question."""

    name: str
    claim: Claim
    figure: Figure | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question with the answer of each; None where one was not asked."""

    question: str
    sides: tuple[_Side | None, ...]

    @property
    def differs(self) -> bool:
        """Whether their verdicts differ."""
        return len({None if side is None else side.claim.row.verdict for side in self.sides}) > 1


def to_pair_html(
    first: Named, second: Named, *, title: str, opening: str, links: Sequence[tuple[str, str]] = ()
) -> str:
    """Return two checks as one offline HTML page, first what tells them apart.

    Args:
        first: what to call it, and its check.
        second: the same of the other.
        title: of the page.
        opening: what the reader looks at, in a sentence or two.
        links: what else to offer, as names with addresses beside this page.
    """
    documents = tuple((clean(name), document_of(result)) for name, result in (first, second))
    studio = Studio(_PICTURES, _SIZE)
    asked = _asked(documents, studio)
    text: str = (
        environment()
        .get_template("pair.html.jinja")
        .render(
            title=clean(title),
            opening=clean(opening),
            documents=documents,
            differ=[row for row in asked if row.differs],
            agree=[row for row in asked if not row.differs],
            links=links,
            missing=studio.missing,
            **page_parts(),
        )
    )
    return text if text.endswith("\n") else f"{text}\n"


def _asked(documents: Sequence[tuple[str, Document]], studio: Studio) -> list[_Asked]:
    found = [{claim.row.key: claim for claim in document.claims} for _, document in documents]
    names = [name for name, _ in documents]
    rows: list[_Asked] = []
    for key in dict.fromkeys(key for claims in found for key in claims):
        claims = [each.get(key) for each in found]
        axis = tuple(claim.effect for claim in claims if claim and claim.effect)
        sides = tuple(
            None if claim is None else _Side(name, claim, _figure(claim, axis, studio))
            for name, claim in zip(names, claims, strict=True)
        )
        rows.append(_Asked(next(claim.row.question for claim in claims if claim), sides))
    return rows


def _figure(claim: Claim, axis: tuple[Effect, ...], studio: Studio) -> Figure | None:
    """Return the picture of a claim on the axis of all that are of its unit."""
    if claim.effect is None:
        return None
    unit = claim.effect.unit
    return claim_figure(claim, studio, beside=tuple(effect for effect in axis if effect.unit == unit))
