"""Does a link still stop where the fine-tune stops? The probability of the stop token where a good answer ends."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dlm_sway.chain.result import Finding
from dlm_sway.core.result import Verdict
from dlm_sway.stats.equivalence import Equivalence, equivalence

MARGIN: Final = 0.05
"""Five answers in a hundred that would end otherwise."""

RUNS_ON: Final = "runs on"
STOPS_EARLY: Final = "stops where training did not"
_ANSWER: Final = "ANSWER"
_TAUGHT: Final = 0.1
_MANY: Final = 30
_FEWEST: Final = 8


def stop_text(tokenizer: Any, *, chat: bool) -> str | None:
    """Return the token that ends an answer as text: what the chat template writes behind one, else eos; or None.

    Args:
        tokenizer: of transformers.
        chat: whether answers are turns of a conversation.
    """
    behind = _behind_a_turn(tokenizer) if chat else None
    return behind or tokenizer.eos_token


def _behind_a_turn(tokenizer: Any) -> str | None:
    """Return the special token that the template puts right behind the assistant's words, or None."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    try:
        rendered = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception:  # noqa: BLE001 (a template is code of the model's maker and raises what it likes)
        return None
    _, found, after = rendered.rpartition(_ANSWER)
    special = [t for t in tokenizer.all_special_tokens if after.startswith(t)]
    return max(special, key=len, default=None) if found else None


def judge_stop(
    logprobs: npt.NDArray[np.float64],
    observed: npt.NDArray[np.float64],
    clusters: tuple[str, ...],
    *,
    margin: float = MARGIN,
) -> Finding:
    """Return whether a link gives the stop the probability that the fine-tune gives it.

    Two one-sided tests on the mean difference of P(stop) over answers: at 0.05 from 30 answers on, at 0.025 under 30,
    where a few answers with a large difference are easily missed, and never a pass under 8. How often that errs is in
    docs/statistics/equivalence.md.

    Args:
        logprobs: float64[2, S], log-prob of the stop under the base and under the fine-tune.
        observed: float64[S], the same under the link; NaN where a server does not say.
        clusters: S names of what varies together.
        margin: largest difference that counts as none.
    """
    if not len(observed):
        return _skipped("no text is known to end where an answer should", "give --data with whole answers")
    if unknown := int(np.isnan(observed).sum()):
        what = f"it does not say how probable the stop is behind {unknown} of {len(observed)} answers"
        return _skipped(what, "serve it with llama.cpp or vLLM, which give the log-prob of any token")
    base, tuned, here = np.exp(logprobs[0]), np.exp(logprobs[1]), np.exp(observed)
    alpha = 0.05 if len(set(clusters)) >= _MANY else 0.025
    same = equivalence(here - tuned, np.ones(len(here), dtype=np.int64), clusters, margin=margin, alpha=alpha)
    p = {name: float(x.mean()) for name, x in (("base", base), ("trained", tuned), ("here", here))}
    message = (
        f"behind {len(here)} answers it stops with probability {p['here']:.3f}, as trained {p['trained']:.3f}, the "
        f"base {p['base']:.3f}; difference {same.estimate:+.3f}{_ends(same)}, margin {margin:g}"
    )
    evidence = {"stop": asdict(same), "p_stop": p, "margin": margin, "n_items": len(here)}
    verdict, cause, remedy = _judged(same)
    if verdict is Verdict.PASS and p["trained"] < _TAUGHT:
        message += "; training did not teach it to stop at these ends"
    return Finding(step="stop", verdict=verdict, cause=cause, message=message, remedy=remedy, evidence=evidence)


def _judged(same: Equivalence) -> tuple[Verdict, str | None, str]:
    if same.decision == "within" and same.n_clusters >= _FEWEST:
        return Verdict.PASS, None, ""
    if same.decision != "outside":
        more = "" if same.n_to_decide is None else f", about {max(same.n_to_decide, _FEWEST)}"
        return Verdict.INCONCLUSIVE, None, f"give --data with more answers{more}: these do not decide"
    if same.estimate < 0:
        remedy = "let it end at the token that training ended answers with: eos in the file's metadata or config"
        return Verdict.FAIL, RUNS_ON, remedy
    return Verdict.FAIL, STOPS_EARLY, "serve the weights that were tested: compare the files"


def _ends(same: Equivalence) -> str:
    return "" if same.low is None or same.high is None else f" [{same.low:+.3f}, {same.high:+.3f}]"


def _skipped(message: str, remedy: str) -> Finding:
    return Finding(step="stop", verdict=Verdict.SKIP, message=message, remedy=remedy)
