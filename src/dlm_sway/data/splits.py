"""What was trained on and what was held out: clusters and near-duplicates stay on one side of the line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, Literal

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Section
from dlm_sway.data.conversations import as_text
from dlm_sway.data.duplicates import groups_of_alike
from dlm_sway.data.material import Material, Source, read_material
from dlm_sway.data.readers import items_of, read_sections
from dlm_sway.data.requests import joined_by_request, request_of, requests_of

_SHARE: Final = re.compile(r"(0?\.\d+|\d+(?:\.\d+)?%)$")
_HALF: Final = 0.5
_NAMES: Final = ("held-out", "held_out", "heldout", "valid", "validation", "val", "dev", "test", "eval")

TRAINED_ON_ALL: Final = (
    "generalises: everything in the data was trained on, so no part of it can show what carries over",
    "leakage against unseen text: reciting cannot be told from knowing without text of the same source it never saw",
)
INSTEAD: Final = "paraphrases of what was trained on stand in for unseen text: `sway mine --mode paraphrase` finds more"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What `--held-out` asks for.

    Attributes:
        how: a file, a share of the data, nothing, or `auto`: a file beside the data that is named like one.
        name: the file.
        share: of the sections, in (0, 0.5].
    """

    how: Literal["file", "share", "auto", "none"]
    name: str = ""
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Split:
    """The two sides of the line.

    Attributes:
        trained: what the fine-tune was trained on.
        held_out: text of the same source that it was not; may be empty.
        how: one sentence on how the line was drawn.
        cannot: what cannot be tested with it.
        dropped: held-out sections left out since they are, or nearly are, part of what was trained on.
        unseen: the file that was held out, as it was read; None where it is a share of the data or nothing.
        asked_before: requests of held-out sections that were trained on too, with other replies.
    """

    trained: tuple[Section, ...]
    held_out: tuple[Section, ...]
    how: str
    cannot: tuple[str, ...] = ()
    dropped: int = 0
    unseen: Material | None = None
    asked_before: frozenset[str] = frozenset()

    @property
    def newly_asked(self) -> tuple[Section, ...]:
        """Held-out sections without those whose request was trained on."""
        return tuple(s for s in self.held_out if request_of(s) not in self.asked_before)


def parse_held_out(text: str) -> HeldOut:
    """Return what `auto`, `none`, a share (`0.2` or `20%`) or a name means; an existing file of a share comes first.

    Raises:
        BadInputError: a share outside (0, 0.5].
    """
    if text == "auto":
        return HeldOut("auto")
    if text == "none":
        return HeldOut("none")
    if not _SHARE.match(text) or Path(text).exists():
        return HeldOut("file", name=text)
    share = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    if not 0 < share <= _HALF:
        raise BadInputError(f"{text} is no share that can be held out", remedy="give more than 0 and at most 0.5")
    return HeldOut("share", share=share)


def split(material: Material, wanted: HeldOut, *, seed: int = 0, near: bool = True) -> Split:
    """Return both sides of the line.

    Args:
        material: what was read.
        wanted: where the line is to be.
        seed: of what is drawn.
        near: look for near-duplicates on both sides of a file too, not only for equal ones.

    Raises:
        BadInputError: the file cannot be read or is all part of the data, or the data are one single cluster.
        MissingExtraError: near-duplicates have to be found, and datasketch is not installed.
    """
    if wanted.how == "none":
        return Split(material.sections, (), "nothing is held out", TRAINED_ON_ALL)
    if wanted.how == "share":
        return _by_share(material, wanted.share, seed)
    name = wanted.name or beside(material)
    if not name:
        how = "everything in the data was trained on, as far as sway can see: no file beside it is named like held-out"
        return Split(material.sections, (), how, TRAINED_ON_ALL)
    return _by_file(material, name, seed, near=near)


def beside(material: Material) -> str:
    """Return the file beside the first source that is named like its held-out part, or nothing."""
    path = Path(material.sources[0].name)
    if not path.is_file():
        return ""
    stem = re.sub(r"[._-]?train(?:ing)?$", "", path.stem, flags=re.IGNORECASE)
    for word in _NAMES:
        for middle in (
            f"{stem}.{word}",
            f"{stem}-{word}",
            f"{stem}_{word}",
            *([word] if stem in ("", "train") else []),
        ):
            found = path.with_name(middle + path.suffix)
            if found.is_file() and not found.samefile(path):
                return str(found)
    return ""


def group_labels(sections: Sequence[Section]) -> list[int]:
    """Return a group number for each section: of one cluster, one document section, or nearly equal content.

    Raises:
        MissingExtraError: datasketch is not installed.
    """
    labels = groups_of_alike([_content(section) for section in sections])
    for key in (lambda s: s.cluster, lambda s: s.part_of if s.kind == "prose" else ""):
        labels = _merged(labels, sections, key)
    return labels


def _merged(labels: list[int], sections: Sequence[Section], key: Callable[[Section], Hashable]) -> list[int]:
    """Join the groups of all sections that share a key."""
    first: dict[Hashable, int] = {}
    parents = {label: label for label in labels}

    def root(label: int) -> int:
        while parents[label] != label:
            label = parents[label]
        return label

    for label, section in zip(labels, sections, strict=True):
        name = key(section)
        if name not in (None, ""):
            a, b = sorted((root(label), root(first.setdefault(name, label))))
            parents[b] = a
    return [root(label) for label in labels]


def _by_share(material: Material, share: float, seed: int) -> Split:
    sections = material.sections
    labels = joined_by_request(group_labels(sections), sections, most=share * len(sections))
    order = stream(seed, "held-out").permutation(sorted(set(labels)))
    sizes = Counter(labels)
    if len(order) < 2:  # noqa: PLR2004 (a line needs something on both sides)
        what = "the data are one single cluster, which no line may cut"
        raise BadInputError(what, where=sections[0].source, remedy="name held-out text as a file of its own")
    out: set[int] = set()
    taken = 0
    for label in order[:-1]:
        if taken >= share * len(sections):
            break
        out.add(int(label))
        taken += sizes[int(label)]
    trained = tuple(s for s, label in zip(sections, labels, strict=True) if label not in out)
    held = tuple(s for s, label in zip(sections, labels, strict=True) if label in out)
    how = (
        f"{len(held)} of {len(sections)} sections taken as held out by seed {seed}, whole clusters; it counts only if "
        "they were left out of training"
    )
    asked = _also_in(_everything(material, but=held), held)[1] if requests_of(held) else frozenset[str]()
    return Split(trained, held, how, asked_before=asked)


def _by_file(material: Material, name: str, seed: int, *, near: bool) -> Split:
    unseen = read_material((Source(name),), seed=seed)
    known = {item.words for section in material.sections for item in items_of(section)}
    kept = [s for s in unseen.sections if not any(item.words in known for item in items_of(s))]
    if near:
        kept = _unlike(kept, material.sections)
    equal, asked = _also_in(_everything(material), kept)
    kept = [s for s in kept if s.key not in equal]
    if not kept:
        what = "all of it is also in the data, exactly or nearly, so nothing was held out"
        raise BadInputError(what, where=name, remedy="give text of the same kind that was not trained on")
    dropped = len(unseen.sections) - len(kept)
    how = f"held out: {unseen.summaries[0]}"
    return Split(material.sections, tuple(kept), how, dropped=dropped, unseen=unseen, asked_before=asked)


def _unlike(unseen: Sequence[Section], trained: Sequence[Section]) -> list[Section]:
    """Return what of `unseen` is like nothing trained on; two files may use a cluster's name for different things."""
    labels = groups_of_alike([_content(section) for section in (*trained, *unseen)])
    known = set(labels[: len(trained)])
    return [s for s, label in zip(unseen, labels[len(trained) :], strict=True) if label not in known]


def _everything(material: Material, *, but: Sequence[Section] = ()) -> Iterator[Section]:
    """Yield what the data hold, read once more from end to end where that is more than was kept."""
    gone = {s.where for s in but}
    again = (read_sections(source.name) for source in material.sources)
    found = chain.from_iterable(again) if material.is_sample else material.sections
    yield from (section for section in found if section.where not in gone)


def _also_in(everything: Iterable[Section], held_out: Sequence[Section]) -> tuple[set[str], frozenset[str]]:
    """Return those contents and those requests of held-out sections that occur in the data."""
    keys, asked = {s.key for s in held_out}, requests_of(held_out)
    found_keys, found_asked = set[str](), set[str]()
    for section in everything if held_out else ():
        found_keys |= {section.key} & keys
        found_asked |= {request_of(section)} & asked
    return found_keys, frozenset(found_asked)


def _content(section: Section) -> str:
    if section.messages:  # a system prompt that all share would make everything alike
        return "\n".join(as_text(m) for m in section.messages if m["role"] != "system")
    return f"{section.prompt}\n{section.completion}"
