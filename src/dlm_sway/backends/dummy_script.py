"""What a dummy says by heart: texts by prompt, so that a test can plant the very words that it judges."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from dlm_sway.backends.base import Messages, Reply
from dlm_sway.backends.dummy_text import DummyCodec
from dlm_sway.core.errors import BadInputError

_WORD = re.compile(r"\s*\S+")


def recite(
    lines: Mapping[str, str | tuple[str, ...]],
    prompts: Sequence[str | Messages],
    codec: DummyCodec,
    *,
    max_new_tokens: int,
) -> list[Reply]:
    """Return the line of each prompt, cut to `max_new_tokens` words.

    Raises:
        BadInputError: there is no line for a prompt, nor one for all others.
    """
    seen: Counter[str] = Counter()
    replies = []
    for prompt in prompts:
        key = prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
        line = lines.get(key, lines.get(""))
        if line is None:
            raise BadInputError(f"the script has no line for {key[:60]!r}", where="script of a dummy")
        text = line if isinstance(line, str) else line[seen[key] % len(line)]
        seen[key] += 1
        words = _WORD.findall(text)
        kept = text if len(words) <= max_new_tokens else "".join(words[:max_new_tokens])
        replies.append(Reply(kept, len(codec.encode(kept)), len(words) <= max_new_tokens))
    return replies
