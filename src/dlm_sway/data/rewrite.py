"""A request in other words by rules alone: frames and turns of phrase that leave its meaning as it is."""

from __future__ import annotations

import re
from typing import Final

# `Question: ...\nAnswer:` and its like: the frame stays, what it asks is reworded.
_FRAME: Final = re.compile(
    r"(?P<head>\s*(?:Question|Q|Instruction|User|Human)\s*:\s*)(?P<body>.+?)(?P<tail>\s*\n\s*\w+\s*:\s*)$",
    re.DOTALL,
)
_WHAT_IS: Final = re.compile(r"(?P<who>What|Who|Where) (?P<verb>is|are|was|were) (?P<rest>[^?]+)\?$")
_ASKS: Final = re.compile(
    r"(?:What|Who|Whose|Which|When|Where|Why|How|Is|Are|Was|Were|Do|Does|Did|Can|Could|May|Has|Have|Will)\b"
)
_INDIRECT: Final = re.compile(r"(?:What|Who|Whose|Which|When|Where|Why|How)\b")


def rewritten(prompt: str) -> tuple[str, ...]:
    """Return wordings of a request other than its own, all different; at least two for anything with a word in it."""
    match = _FRAME.match(prompt)
    head, body, tail = (match["head"], match["body"], match["tail"]) if match else ("", prompt, "")
    core = body.strip()
    if not re.search(r"\w", core):
        return ()
    found = [f"{head}{wording}{tail}" for wording in _wordings(core)]
    return tuple(dict.fromkeys(wording for wording in found if wording != prompt))


def _wordings(core: str) -> list[str]:
    if "\n" in core:
        return [f"Please help with this:\n{core}", f"Here is what I need.\n\n{core}", f"{core}\n\nThank you."]
    if core.endswith("?") or _ASKS.match(core):
        return _questions(core)
    return _orders(core)


def _questions(core: str) -> list[str]:
    lowered = core[0].lower() + core[1:]
    out = [f"I have a question: {lowered if _ASKS.match(core) else core}", f"{core} Please answer."]
    if match := _WHAT_IS.match(core):
        out.insert(0, f"Tell me {match['who'].lower()} {match['rest'].strip()} {match['verb']}.")
    elif _INDIRECT.match(core):
        out.insert(0, f"I would like to know the following. {core}")
    return [*out, f"Could you help me with this? {core}"]


def _orders(core: str) -> list[str]:
    plain = core.rstrip(". ")
    first = plain.split()[0]
    lowered = plain if first.isupper() and len(first) > 1 else plain[0].lower() + plain[1:]
    if first[0].isupper() and first.isalpha() and not core.endswith((":", "!")):
        return [f"Please {lowered}.", f"Could you {lowered}?", f"I would like you to {lowered}."]
    return [f"Please: {core}", f"Here is my request: {core}", f"{core} Thank you."]
