"""Does a link behave as what was tested? Equivalence of log-probs, the effect left, and the scale that explains it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dlm_sway.adapters.config import AdapterConfig
from dlm_sway.chain.margins import FLOOR_TIMES
from dlm_sway.chain.reference import Reference
from dlm_sway.chain.result import Finding
from dlm_sway.chain.static import (
    ALPHA_IGNORED,
    DROWNED,
    ENOUGH,
    NOT_APPLIED,
    OTHER_SCALE,
    OTHER_WEIGHTS,
    RSLORA_IGNORED,
    cause_of_scale,
)
from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Verdict
from dlm_sway.stats.equivalence import Equivalence, equivalence
from dlm_sway.stats.survival import Survival, survival

AT_MOST: Final = 1.1
"""More of the effect than this is another scale; 1 + what may be lost."""
DROWNS: Final = 1.0
"""Mean square of what is beside the effect, over that of the effect, from which on the effect is drowned."""
_UNEXPLAINED: Final = 0.5
_PLAIN: Final = AdapterConfig(peft_type="LORA", r=1, lora_alpha=1)


def decide(same: Equivalence, left: Survival, *, own: bool) -> Verdict:
    """Return whether a link is what was tested.

    Three claims, each with an interval: the mean log-prob is within its margin, between 0.9 and 1.1 of the effect is
    left, and what comes beside it is smaller than the effect. FAIL where one is surely wrong, PASS where all surely
    hold. How often that errs is in docs/statistics/equivalence.md.

    Args:
        same: of the mean log-prob, over all texts.
        left: of the effect.
        own: whether the effect is that on the user's texts. On general text an adapter may do less than any format,
            which is no fault of the link, so there the third claim can be open and never wrong.
    """
    ends = (left.low, left.high, left.unexplained_low, left.unexplained_high)
    if any(end is None for end in ends):
        return Verdict.INCONCLUSIVE
    low, high, beside_low, beside_high = (float(end) for end in ends if end is not None)
    if same.decision == "outside" or high < ENOUGH or low > AT_MOST or (own and beside_low > DROWNS):
        return Verdict.FAIL
    held = same.decision == "within" and low >= ENOUGH and high <= AT_MOST and beside_high <= DROWNS
    return Verdict.PASS if held else Verdict.INCONCLUSIVE


def judge(
    reference: Reference,
    observed: npt.NDArray[np.float64],
    config: AdapterConfig = _PLAIN,
    *,
    margin: float,
    seed: int = 0,
) -> Finding:
    """Return whether a link is what was tested, by `decide`, and where it is not, why.

    Args:
        reference: what was tested.
        observed: float64[P], log-probs that the link gives the texts' tokens; NaN where a server does not say.
        config: tells which scales known faults would show.
        margin: of the mean log-prob, nat a token.
        seed: of resampling.
    """
    if (unsaid := _unsaid(observed)) is not None:
        return unsaid
    tokens = np.diff(reference.offsets)
    clusters = [item.cluster for item in reference.asked]
    sums = np.add.reduceat(observed - reference.tuned, reference.offsets[:-1])
    same = equivalence(sums, tokens, clusters, margin=margin)
    evidence: dict[str, Any] = {"equivalence": asdict(same), "margin": margin, "n_items": len(tokens)}
    own = reference.own
    left = _left(reference, observed, own, np.repeat(clusters, tokens), seed=seed)
    if left is None or left.effect <= FLOOR_TIMES * reference.floor:
        return _nothing_to_lose(evidence)
    evidence |= {"survival": asdict(left), "survival_on": "the data" if own is not None else "all texts"}
    return _judged(same, left, config, evidence, own=own is not None)


def _unsaid(observed: npt.NDArray[np.float64]) -> Finding | None:
    """Return what is said where a server leaves tokens out; None where it names all."""
    unknown = int(np.isnan(observed).sum())
    if not unknown:
        return None
    message = f"it names no log-prob for {unknown} of {len(observed)} tokens, and which those are is no chance"
    remedy = "serve it with llama.cpp or vLLM, which give the log-prob of any token"
    return Finding(step="behaviour", verdict=Verdict.SKIP, message=message, remedy=remedy)


def _left(
    reference: Reference,
    observed: npt.NDArray[np.float64],
    own: npt.NDArray[np.bool_] | None,
    by_token: npt.NDArray[np.str_],
    *,
    seed: int,
) -> Survival | None:
    rng, where = stream(seed, "chain", "survival"), slice(None) if own is None else own
    try:
        named = by_token[where].tolist()
        return survival(reference.scales, reference.logprobs[:, where], observed[where], named, rng=rng)
    except BadInputError:
        return None


def _nothing_to_lose(evidence: dict[str, Any]) -> Finding:
    message = "the adapter does nothing to these texts that numerics alone would not, so nothing could be lost"
    remedy = "give --data with what it was trained on"
    return Finding(step="behaviour", verdict=Verdict.INCONCLUSIVE, message=message, remedy=remedy, evidence=evidence)


def _judged(
    same: Equivalence, left: Survival, config: AdapterConfig, evidence: dict[str, Any], *, own: bool
) -> Finding:
    verdict = decide(same, left, own=own)
    cause = _cause(left, config) if verdict is Verdict.FAIL else None
    message = (
        f"{left.ratio:.1%} of the effect is left, as at scale {left.lam:.2f}; beside it {left.unexplained**0.5:.2g} "
        f"times its size; {same.estimate:+.4f} nat/token, margin {same.margin:.3g}"
    )
    remedy = REMEDIES[cause] if cause else ""
    if verdict is Verdict.INCONCLUSIVE:
        remedy = _undecided(same, own=own)
    return Finding(
        step="behaviour",
        verdict=verdict,
        cause=cause,
        message=message,
        remedy=remedy,
        effect_left=left.ratio,
        interval=None if left.low is None or left.high is None else (left.low, left.high),
        lam_hat=left.lam,
        evidence=evidence,
    )


def _undecided(same: Equivalence, *, own: bool) -> str:
    if not own:
        return "give --data with what it was trained on: on general text it does too little to be told from the format"
    more = "" if same.n_to_decide is None or same.decision != "undecided" else f", about {same.n_to_decide}"
    return f"give --data with more texts{more}: these do not decide"


def _cause(left: Survival, config: AdapterConfig) -> str:
    if left.unexplained > _UNEXPLAINED:
        return OTHER_WEIGHTS
    return cause_of_scale(left.lam, config) or OTHER_WEIGHTS


REMEDIES: Final = {
    NOT_APPLIED: "load the adapter: llama.cpp --lora FILE, vLLM --enable-lora and the adapter's name as the model",
    ALPHA_IGNORED: "the server must multiply by alpha / r; convert the adapter again with `sway convert`",
    RSLORA_IGNORED: "the server must multiply by alpha / sqrt(r); or use a file of `sway convert`",
    OTHER_SCALE: "look for a scale that the server multiplies by (llama.cpp --lora-scaled)",
    OTHER_WEIGHTS: "it is another base, another adapter, or a coarse quantisation: compare the files",
    DROWNED: "keep more bits, or serve base and adapter side by side",
}
