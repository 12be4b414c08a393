"""Whether two results can be set side by side, by what they came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dlm_sway.core.result import SuiteResult
from dlm_sway.suite.compare_result import Level, Remark

_SHOWN: Final = 80
_CONTENT: Final = "weights_sample_sha256"
_FILES: Final = ("config_sha256", "weights_bytes", _CONTENT)
_DIFFERENT: Final[tuple[tuple[str, Level, str], ...]] = (
    ("format", "blocks", "prompts were rendered otherwise"),
    ("dtype", "caution", "computed in another dtype, so rounding is a part of every difference"),
    ("suite", "caution", "the suite file is another, so a probe may ask something else"),
    ("data_sha256", "caution", "the data are others; items with the same text are compared"),
    ("held_out_sha256", "caution", "the held-out data are others; items with the same text are compared"),
    ("control_corpus_sha256", "caution", "the control corpus is another"),
    ("limit", "caution", "items were limited otherwise"),
    ("seed", "caution", "the seed is another: nulls, controls and drawn items are too"),
    ("alpha", "caution", "the level is another, so verdicts are judged otherwise"),
    ("n_draws", "note", "compared with another number of null adapters"),
    ("device", "note", "computed on another device"),
    ("platform", "note", "computed on another platform"),
)


def remarks_on(reference: SuiteResult, other: SuiteResult, name: str) -> tuple[Remark, ...]:
    """Return what tells two results apart besides the adapter, the gravest first.

    Only another base or another rendering of prompts makes numbers incomparable: a gain is over the base, and items are
    recognised by their text, so other data merely leave fewer of them in common.
    """
    found = _bases(reference, other, name)
    ours, theirs = _facts(reference), _facts(other)
    for what, level, words in _DIFFERENT:
        # What one of them does not say is no proof that it was otherwise, and a block needs one.
        said = (what in ours and what in theirs) if level == "blocks" else (what in ours or what in theirs)
        if said and ours.get(what) != theirs.get(what):
            found.append(_remark(level, name, what, words, (ours.get(what), theirs.get(what))))
    found += _versions(reference, other, name)
    if _known(ours.get("adapter")) and ours["adapter"] == theirs.get("adapter"):
        found.append(Remark(level="note", candidate=name, what="adapter", message="it is the same adapter"))
    order: tuple[Level, ...] = ("blocks", "caution", "note")
    return tuple(sorted(found, key=lambda remark: order.index(remark.level)))


def _bases(reference: SuiteResult, other: SuiteResult, name: str) -> list[Remark]:
    """Return that the bases differ: by the content of their files where it is known, else by revision and name.

    Every model of an architecture has files of the same sizes, so equal sizes under two names prove nothing.
    """
    ours, theirs = (_section(r.provenance, "model") for r in (reference, other))
    names, revisions = (reference.base, other.base), (ours.get("revision"), theirs.get("revision"))
    known = [key for key in _FILES if ours.get(key) and theirs.get(key)]
    words = "the base is another, and a gain is over the base"
    if any(ours[key] != theirs[key] for key in known):
        return [_remark("blocks", name, "base", words, names)]
    if _CONTENT in known:
        return []
    if all(revisions) and revisions[0] != revisions[1]:
        return [_remark("blocks", name, "base", words, revisions)]
    if names[0] == names[1]:
        return []
    if not known:
        return [_remark("blocks", name, "base", words, names)]
    same_size = "the base has another name, and only the sizes of its files are known to agree"
    return [_remark("caution", name, "base", same_size, names)]


def _versions(reference: SuiteResult, other: SuiteResult, name: str) -> list[Remark]:
    ours, theirs = (_section(r.provenance, "versions") for r in (reference, other))
    changed = [
        f"{k} {ours.get(k)} and {theirs.get(k)}" for k in sorted({*ours, *theirs}) if ours.get(k) != theirs.get(k)
    ]
    level: Level = "caution" if ours.get("dlm-sway") != theirs.get("dlm-sway") else "note"
    message = f"versions differ: {_cut(', '.join(changed))}"
    return [Remark(level=level, candidate=name, what="versions", message=message)] if changed else []


def _facts(result: SuiteResult) -> dict[str, Any]:
    came_from = result.provenance
    suite = _section(came_from, "suite")
    facts = {what: came_from[what] for what, _, _ in _DIFFERENT if what in came_from and what not in ("suite", "limit")}
    own = {"suite": suite.get("sha256"), "limit": suite.get("limit")} if suite else {}
    return {**facts, **own, "adapter": came_from.get("adapter_sha256")}


def _section(came_from: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = came_from.get(key)
    return found if isinstance(found, Mapping) else {}


def _known(hashes: Any) -> bool:
    return isinstance(hashes, Mapping) and all(hashes.values()) and bool(hashes)


def _remark(level: Level, name: str, what: str, words: str, both: tuple[Any, Any]) -> Remark:
    said = "" if any(isinstance(each, Mapping) for each in both) else f" ({_cut(both[0])} and {_cut(both[1])})"
    return Remark(level=level, candidate=name, what=what, message=f"{words}{said}")


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
