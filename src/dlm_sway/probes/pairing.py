"""How a prompt and an answer are put together, for probes whose specs give the two apart."""

from __future__ import annotations

import unicodedata

from dlm_sway.probes.base import Env


def is_chat(env: Env, prompt: str) -> bool:
    """Return whether a prompt is rendered through the chat template in this run."""
    return env.format == "chat" or (env.format == "auto" and env.chat and bool(prompt))


def answer_after(prompt: str, answer: str, env: Env) -> str:
    """Return the answer as it stands behind the prompt: in plain text a space parts the two where neither has one.

    Without it the last word of the prompt and the first of the answer would be one word. A chat template parts them
    itself, and scripts without spaces need none.
    """
    if not prompt or not answer or is_chat(env, prompt):
        return answer
    parted = prompt[-1].isspace() or answer[0].isspace()
    return answer if parted or "W" in map(unicodedata.east_asian_width, (prompt[-1], answer[0])) else f" {answer}"
