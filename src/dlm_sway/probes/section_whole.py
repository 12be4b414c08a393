"""Sections as they stand: which are read, and what the answers say of each. No halves, so nothing to exchange."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dlm_sway.engine.ask import Scores, TextItem
from dlm_sway.probes.inputs import shown, words_of
from dlm_sway.probes.section_cells import Cells, Layout, Section
from dlm_sway.stats.standardise import expected_gain


def whole_layout(items: Sequence[TextItem], *, most: int, rng: np.random.Generator) -> Layout:
    """Return the sections that items make up by their clusters; at most `most`, drawn without a look at any score."""
    texts: dict[str, dict[str, TextItem]] = {}
    for item in items:
        texts.setdefault(item.cluster, {}).setdefault(words_of(item), item)
    names = list(texts)
    chosen = set(rng.permutation(len(names))[:most].tolist())
    kept = [tuple(texts[name].values()) for i, name in enumerate(names) if i in chosen]
    out = [name for i, name in enumerate(names) if i not in chosen]
    sections = tuple(Section(part[0].cluster, part[0].prompt, part[0].completion, part) for part in kept)
    dropped = tuple({"label": shown(name), "why": f"not among the {most} drawn"} for name in out)
    return Layout(sections, (), dropped[:200])


def whole_cells(drawn: Layout, own: Scores, control: Scores) -> Cells:
    """Return the gains of the tokens of each section."""
    expected = expected_gain(control.base_logprob, control.values["gain"][0])
    ends = own.offsets[np.cumsum([len(section.texts) for section in drawn.sections])]
    return Cells(
        labels=tuple(section.label for section in drawn.sections),
        gains=(),
        excess=(),
        sizes=(),
        own=_parts(own.values["gain"][0], ends),
        own_logprobs=_parts(own.base_logprob, ends),
        expected=expected,
        groups=(),
    )


def _parts(values: npt.NDArray[np.float64], ends: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], ...]:
    return tuple(np.split(values, ends[:-1]))
