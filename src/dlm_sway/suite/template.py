"""The suite file that `sway init` writes: it runs as it is, and says what else may stand in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dlm_sway.suite.schema import HEAD

_TOP: Final = """\
{head}
# A suite of sway. `sway run {file}` reports, `sway gate {file}` closes a pipeline.
# Paths are relative to this file. `sway list-probes` says what each kind asks.

version: 1
name: {name}

models:
  base: {base}
  ft: {adapter}  # what else it needs is as for the base; options: dtype, device, revision, quantization, ...

defaults:
  seed: 0
  draws: 39  # null adapters to compare with; 99 have more power
  alpha: 0.05  # level of tests against nulls, and of bounds on harm
  # format: auto  # chat, raw: how prompts are rendered
  # margins: {{external_perplexity: 0.05}}  # the largest loss that counts as no harm, nat per token
  # score_weights: {{adherence: 0.3, attribution: 0.35, calibration: 0.2, ablation: 0.15}}
  score_threshold: 0.6  # a gate closes on a score below this ...
  coverage_threshold: 0.6  # ... and where less than this was decided
"""
_DATA: Final = """
data:  # files by name: text (a paragraph or line an item), or JSONL with text, or prompt and completion
{lines}
"""
_SUITE: Final = """
suite:
  # Is the adapter applied, and has it learned anything? Would arbitrary weights of its size do the same?
  - name: learned
    kind: delta_kl
{prompts}{target}
  # Did it harm text that it has nothing to do with? Reads a corpus that comes with sway.
  - name: harmless
    kind: external_perplexity
"""
_TARGET: Final = """
  # Did it move toward your data{more}?
  - name: on-target
    kind: target_gain
    items: {{data: train}}
{held_out}"""
_NO_TARGET: Final = """
  # Did it move toward your data? Name the file under `data` and take the marks out.
  # - name: on-target
  #   kind: target_gain
  #   items: {data: train}
  #   held_out: {data: held_out}
"""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a suite file is made from.

    Attributes:
        base: directory or Hub id.
        adapter: directory.
        name: what reports call the suite.
        data: file with what the fine-tune was trained on, or None.
        held_out: file of the same source that it was not trained on, or None.
    """

    base: str
    adapter: str
    name: str
    data: str | None = None
    held_out: str | None = None


def suite_text(answers: Answers, *, file: Path) -> str:
    """Return a commented suite file.

    Args:
        answers: what goes into it; each is quoted, whatever it holds.
        file: where it will stand, for the words in it.
    """
    named = {"train": answers.data, "held_out": answers.held_out}
    lines = "\n".join(f"  {name}: {_quoted(path)}" for name, path in named.items() if path)
    top = _TOP.format(
        head=HEAD,
        file=file.name if file.name.isprintable() else "SPEC",
        name=_quoted(answers.name),
        base=_quoted(answers.base),
        adapter=_quoted(answers.adapter),
    )
    return top + (_DATA.format(lines=lines) if lines else "") + _suite(answers)


def _suite(answers: Answers) -> str:
    if answers.data is None:
        return _SUITE.format(prompts="", target=_NO_TARGET)
    held_out = "    held_out: {data: held_out}\n" if answers.held_out else ""
    more = ", and does it carry over to text of the same kind" if answers.held_out else ""
    return _SUITE.format(
        prompts="    prompts: {data: train}  # 32 general prompts when none are given\n",
        target=_TARGET.format(more=more, held_out=held_out),
    )


def _quoted(word: str) -> str:
    # JSON's strings are YAML's double-quoted ones, so nothing in a path can become anything else.
    return (
        word
        if word.replace("-", "").replace("_", "").isalpha() and word.isascii() and word not in _READ_AS_OTHER
        else json.dumps(word)
    )


_READ_AS_OTHER: Final = frozenset(
    {
        w
        for word in ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
        for w in (word, word.upper(), word.title())
    }
)
