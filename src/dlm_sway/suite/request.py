"""What a check is asked: read and found usable before any model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Section
from dlm_sway.data.choose import items_by_section
from dlm_sway.data.duplicates import can_find_alike
from dlm_sway.data.feed import Feed
from dlm_sway.data.material import Material, Source, read_material
from dlm_sway.data.prompts import GENERAL_PROMPTS
from dlm_sway.data.readers import items_of
from dlm_sway.data.splits import HeldOut, beside, split
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.adapter_ablation import AdapterAblation, AdapterAblationSpec
from dlm_sway.probes.base import Env, Pairs
from dlm_sway.probes.controls import matched_controls
from dlm_sway.probes.delta_kl import DeltaKL, DeltaKLSpec
from dlm_sway.probes.external_perplexity import ExternalPerplexity, ExternalPerplexitySpec
from dlm_sway.probes.leakage import Leakage, LeakageSpec
from dlm_sway.probes.section_internalization import SectionInternalization, SectionInternalizationSpec
from dlm_sway.probes.target_gain import TargetGain, TargetGainSpec
from dlm_sway.stats.power import require_draws

_LOGGER: Final = logging.getLogger(__name__)

QUICK_DRAWS: Final = 19
QUICK_TOKENS: Final = 128
QUICK_SHARE: Final = 0.25  # of the texts that a whole check reads at most: 32 of each file
QUICK_CUT: Final = 32  # tokens of a text, its first ones: as many as nulls see
QUICK_PASSAGES: Final = 32  # looked at once: as many as a whole check begins with
NULL_TOKENS: Final = 192  # the same for all probes, so that one pass answers them
SPANS: Final = 80  # one look; 59 decide where nothing is recited
SWEEP: Final = {"lambdas": (0.25, 0.5, 0.75, 1.0), "text_tokens": 320, "control_tokens": 480}
# More passages say more than longer ones; in a suite they are read on, and where nulls stand is shown beside.
CONTROL: Final = {"max_tokens": 64, "null_tokens": 0}


@dataclass(frozen=True, slots=True)
class Request:
    """One check.

    Attributes:
        adapter: the adapter directory as the user named it.
        data: the file with what it was trained on, or None.
        held_out: the file with text of the same source that it was not trained on, or None.
        pairs: the probes that answer the questions.
        n_draws: number of rotation nulls.
        seed: of the nulls and of all resampling.
        quick: whether there are fewer nulls, which see fewer tokens, fewer texts are read and of each its beginning, no
            kind of control text is read on, and nothing is looked for beyond the questions.
        batch_tokens: view-tokens a chunk, or None for the engine's own.
    """

    adapter: Path
    data: Path | None
    held_out: Path | None
    pairs: Pairs
    n_draws: int
    seed: int
    quick: bool
    batch_tokens: int | None


def read_request(
    adapter: Path,
    *,
    data: Path | None,
    held_out: Path | None,
    n_draws: int,
    seed: int,
    quick: bool,
    batch_tokens: int | None,
) -> Request:
    """Return the request with its files read.

    Raises:
        BadInputError: a file cannot be used, all held-out text is part of the data or comes without it, or there are
            fewer than 19 draws.
    """
    require_draws(n_draws)
    _require_apart(data, held_out)
    feed = _feed(data, held_out, seed, scale=QUICK_SHARE if quick else 1.0)
    items, unseen = (feed.trained_items, feed.held_out_items) if feed else ((), ())
    by_section = items_by_section(feed.split.trained, most=feed.size("trained"), seed=seed) if feed else ()
    return Request(
        adapter=adapter,
        data=data,
        held_out=held_out,
        pairs=(*_pairs(items, unseen, quick=quick), *_by_section(by_section, items, seed, quick=quick)),
        n_draws=QUICK_DRAWS if quick else n_draws,
        seed=seed,
        quick=quick,
        batch_tokens=batch_tokens,
    )


def _feed(data: Path | None, held_out: Path | None, seed: int, *, scale: float) -> Feed | None:
    """Return what is scored of both files, as a suite from the same data has it, and warn of what is not."""
    if data is None:
        return None
    material = read_material((Source(str(data)),), seed=seed)
    wanted = HeldOut("none") if held_out is None else HeldOut("file", name=str(held_out))
    parted = split(material, wanted, seed=seed, near=can_find_alike())
    feed = Feed(parted, scale=scale, seed=seed)
    _warn(material, parted.trained, feed.size("trained"))
    if parted.unseen is not None:
        _warn(parted.unseen, parted.held_out, feed.size("held_out"))
        if parted.dropped:
            what = "%s: %s sections left out, since the data hold them or nearly so"
            _LOGGER.warning(what, held_out, f"{parted.dropped:,}")
    elif name := beside(material):
        _LOGGER.warning("%s lies beside the data and is not read; --held-out names it", name)
    return feed


def _warn(material: Material, sections: Sequence[Section], most: int) -> None:
    (tally,) = material.tallies
    if tally.skipped or tally.cut or tally.n_reasoned or tally.kept is not None:
        _LOGGER.warning(material.summaries[0])
    if (n := sum(len(items_of(section)) for section in sections)) > most:
        name = material.sources[0].name
        _LOGGER.warning("%s: %s texts in it, of which %s are read, drawn by the seed", name, f"{n:,}", most)


def _require_apart(data: Path | None, held_out: Path | None) -> None:
    if held_out is None:
        return
    if data is None:
        what = "held-out text is judged beside what the adapter was trained on, and no data is named"
        raise BadInputError(what, where=held_out, remedy="name that too, with --data")
    if data == held_out or (data.exists() and held_out.exists() and data.samefile(held_out)):
        what = "is the same file as the data, so nothing in it was held out"
        raise BadInputError(what, where=held_out, remedy="give text of the same kind that was not trained on")


def _pairs(items: tuple[TextItem, ...], unseen: tuple[TextItem, ...], *, quick: bool) -> Pairs:
    tokens = {"null_tokens": QUICK_TOKENS, "max_tokens": QUICK_CUT} if quick else {"null_tokens": NULL_TOKENS}
    pairs: Pairs = ((DeltaKL(), DeltaKLSpec.model_validate({"name": "delta_kl", "prompts": items, **tokens})),)
    if items:
        spec = {"name": "target_gain", "items": items, "held_out": unseen, **tokens}
        pairs = (*pairs, (TargetGain(), TargetGainSpec.model_validate(spec)))
    less = {"max_tokens": QUICK_CUT, "max_passages": QUICK_PASSAGES, "read_on": False} if quick else {}
    control = {"name": "external_perplexity", **CONTROL, **less}
    pairs = (*pairs, (ExternalPerplexity(), ExternalPerplexitySpec.model_validate(control)))
    return pairs if quick or not items else (*pairs, *_findings(items, unseen))


def _by_section(sections: tuple[TextItem, ...], items: tuple[TextItem, ...], seed: int, *, quick: bool) -> Pairs:
    """Return what says which sections took: of the texts and controls that `target_gain` reads, so at no cost."""
    if not sections:
        return ()
    controls = matched_controls(items, rng=Env(seed=seed).rng("target_gain", "controls"))
    cut = QUICK_CUT if quick else None
    spec = {"name": "sections", "sections": sections, "read": "whole", "controls": controls, "text_tokens": cut}
    return ((SectionInternalization(), SectionInternalizationSpec.model_validate(spec)),)


def _findings(items: tuple[TextItem, ...], unseen: tuple[TextItem, ...]) -> Pairs:
    """Return what is looked for beyond the six questions, at a tenth of their cost each."""
    leakage = {"name": "leakage", "items": items, "held_out": unseen, "max_spans": SPANS}
    sweep = {"name": "adapter_ablation", "items": items, "held_out": unseen, "prompts": GENERAL_PROMPTS[:8], **SWEEP}
    return (
        (Leakage(), LeakageSpec.model_validate(leakage)),
        (AdapterAblation(), AdapterAblationSpec.model_validate(sweep)),
    )
