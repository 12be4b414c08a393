"""Wordings in which a taught answer is lost: by rule and from the base, kept by meaning, ranked by the gap."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.progress import Progress
from dlm_sway.core.views import BASE
from dlm_sway.data.feed import Feed
from dlm_sway.data.mine_gains import Read, read_gains
from dlm_sway.data.rewrite import rewritten
from dlm_sway.engine.ask import TextItem, Write
from dlm_sway.probes.embed import Embedder
from dlm_sway.probes.registry import probes

ALIKE: Final = 0.75  # cosine of MiniLM from which two wordings ask for the same
_KEPT: Final = 3
_FEWEST: Final = 2
_SAMPLES: Final = 4
_ASK: Final = "Write the following request in other words. Keep its meaning exactly. Give the new wording alone.\n\n{}"
# What models put before a wording: a label, a bullet or number, a quotation mark.
_LABEL: Final = re.compile(
    r"^\s*(?:(?:re(?:writ|phras|word)\w*|(?:new )?wording)(?: \w+)?\s*:|[-*\d.)\s]+|[\"'“”]+)\s*", re.IGNORECASE
)
_LONGER: Final = 3


@dataclass(frozen=True, slots=True)
class Wording:
    """A request in other words.

    Attributes:
        text: the wording.
        alike: cosine to the trained wording.
        gain: of the taught answer behind it, nat/token.
        by: `rule`, or `base` where the base model wrote it.
    """

    text: str
    alike: float
    gain: float
    by: str


@dataclass(frozen=True, slots=True)
class Mined:
    """A taught question with the wordings in which least of its gain is left.

    Attributes:
        prompt: the trained wording.
        gold: the taught answer.
        gain: of the answer behind the trained wording, nat/token.
        wordings: two or three, the largest loss first.
    """

    prompt: str
    gold: str
    gain: float
    wordings: tuple[Wording, ...]

    @property
    def gap(self) -> float:
        """Gain in the trained words over the mean gain in these, nat/token."""
        return self.gain - float(np.mean([w.gain for w in self.wordings]))


def mine_paraphrases(
    backend: Any, feed: Feed, embed: Embedder, *, alike: float = ALIKE, progress: Progress | None = None
) -> tuple[list[Mined], int]:
    """Return taught questions by the gap between trained and other words, and how many candidates lost their meaning.

    Raises:
        BadInputError: the data hold no short questions with answers.
        CannotRunError: the model could not do the work.
    """
    cases = feed.cases
    if not cases:
        what = "no short questions with answers in the data, so there is nothing to ask in other words"
        raise BadInputError(what, remedy="give instructions, prompts with completions, or conversations")
    drafts = [_Draft(str(case["prompt"]), str(case["gold"])) for case in cases]
    written = _written(backend, drafts, seed=feed.seed, progress=progress)
    candidates = [_candidates(draft, texts) for draft, texts in zip(drafts, written, strict=True)]
    kept = [_alike(d, c, embed, alike) for d, c in zip(drafts, candidates, strict=True)]
    n_lost = sum(map(len, candidates)) - sum(map(len, kept))
    pairs = [(d, k) for d, k in zip(drafts, kept, strict=True) if len(k) >= _FEWEST]
    items = [item for draft, words in pairs for item in _items(draft, [text for text, _, _ in words])]
    reads = iter(read_gains(backend, items, progress=progress) if items else [])
    mined = [_mined(draft, words, next(reads), [next(reads) for _ in words]) for draft, words in pairs]
    return sorted(mined, key=lambda m: (-m.gap, m.prompt)), n_lost


@dataclass(frozen=True, slots=True)
class _Draft:
    prompt: str
    gold: str


def cases_text(mined: Sequence[Mined]) -> str:
    """Return a probe to paste under `suite:`, with what is known of each case beside it."""
    from dlm_sway.data.suite_text import block, comments

    kind = "paraphrase_invariance" if "paraphrase_invariance" in probes() else "adapter_revert"
    caution = (
        "These wordings were chosen because this adapter loses most in them. They show its worst case and bias its own "
        "ratio down; on other adapters or checkpoints they are a fair stress test."
    )
    lines = [
        *(f"  {line}" for line in comments([caution])),
        f"  - name: mined_{kind}",
        f"    kind: {kind}",
        "    cases:",
    ]
    for case in mined:
        said = f"gain {case.gain:.3f} nat/token in the trained words, {case.gain - case.gap:.3f} in these"
        lines += [f"      {line}" for line in comments([said])]
        value = {"prompt": case.prompt, "gold": case.gold, "paraphrases": [w.text for w in case.wordings]}
        lines += block([value], 6)
    return "\n".join(lines) + "\n"


def _written(backend: Any, drafts: Sequence[_Draft], *, seed: int, progress: Progress | None) -> list[list[str]]:
    """Return what the base writes when asked for other words, a few samples a question."""
    from dlm_sway.engine.run import Engine
    from dlm_sway.engine.write import write

    prompts = tuple(_ASK.format(d.prompt) for d in drafts for _ in range(_SAMPLES))
    ask = Write(prompts, (BASE,), max_new_tokens=48, temperature=0.8, top_p=0.95, seed=seed)
    (found,) = write(Engine(backend, progress=progress), [ask])
    texts = found.texts[0]
    return [list(texts[i : i + _SAMPLES]) for i in range(0, len(texts), _SAMPLES)]


def _candidates(draft: _Draft, written: Sequence[str]) -> list[tuple[str, str]]:
    """Return wordings that differ from the trained one and from each other, with who made them."""
    found = dict.fromkeys(rewritten(draft.prompt), "rule")
    for text in written:
        line = next((part for part in text.strip().splitlines() if part.strip()), "")
        plain = _LABEL.sub("", line).strip().strip("\"'“”").strip()
        same = plain.casefold() == draft.prompt.strip().casefold()
        if plain and not same and len(plain) <= _LONGER * len(draft.prompt) + 40:
            found.setdefault(plain, "base")
    return list(found.items())


def _alike(
    draft: _Draft, candidates: Sequence[tuple[str, str]], embed: Embedder, alike: float
) -> list[tuple[str, str, float]]:
    if not candidates:
        return []
    vectors = embed([draft.prompt, *(text for text, _ in candidates)])
    likeness = vectors[1:] @ vectors[0]
    return [(t, by, float(c)) for (t, by), c in zip(candidates, likeness, strict=True) if c >= alike]


def _items(draft: _Draft, wordings: Sequence[str]) -> list[TextItem]:
    """Return the answer behind each wording, parted from it as it was in training."""
    gap = "" if draft.prompt[-1:].isspace() or draft.gold[:1].isspace() else " "
    return [TextItem(words, gap + draft.gold, draft.prompt, words[:60]) for words in (draft.prompt, *wordings)]


def _mined(draft: _Draft, words: Sequence[tuple[str, str, float]], verbatim: Read, others: Sequence[Read]) -> Mined:
    found = [Wording(t, c, read.mean, by) for (t, by, c), read in zip(words, others, strict=True)]
    found.sort(key=lambda w: (w.gain, w.text))
    return Mined(draft.prompt, draft.gold, verbatim.mean, tuple(found[:_KEPT]))
