"""Causes by name from what files say of a merged or quantised model."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from dlm_sway.adapters.config import AdapterConfig
from dlm_sway.chain.result import Finding
from dlm_sway.chain.weights import Fit
from dlm_sway.core.result import Verdict

ENOUGH: Final = 0.9
NEAR: Final = 0.07
GONE: Final = 0.1

NOT_APPLIED: Final = "adapter not applied"
ALPHA_IGNORED: Final = "alpha ignored"
RSLORA_IGNORED: Final = "rsLoRA ignored"
ROUNDED_AWAY: Final = "rounded away"
DROWNED: Final = "drowned in quantisation"
OTHER_BASE: Final = "another base"
RENAMED: Final = "renamed keys"
MISSING: Final = "missing parameters"
RETIED: Final = "re-tied head"
OTHER_SCALE: Final = "another scale"
OTHER_WEIGHTS: Final = "other weights"


def judge_fit(fit: Fit, config: AdapterConfig) -> Finding:
    """Return what the weights of a merged model say."""
    return _untouched(fit) or _nothing_compared(fit) or _rounding(fit) or _scale(fit, config)


def packed(remedy: str) -> Finding:
    """Return what is said where files hold packed weights."""
    message = "packed weights are not compared; behaviour decides"
    return Finding(step="static", verdict=Verdict.SKIP, message=message, remedy=remedy)


def not_compared(why: str, evidence: dict[str, Any] | None = None) -> Finding:
    """Return what is said where the weights that the adapter changes are not found among the base's."""
    message = f"no weight that the adapter changes could be compared: {why}"
    return Finding(
        step="static", verdict=Verdict.SKIP, message=message, remedy="behaviour decides", evidence=evidence or {}
    )


def retied() -> Finding:
    """Return what is said of a model that has its embedding for a head where the base or the adapter has another."""
    message = "its head is the embedding again, so what the head had of its own is lost"
    remedy = "set tie_word_embeddings to false in the config before saving or converting, and save both tensors"
    return Finding(step="static", verdict=Verdict.FAIL, cause=RETIED, message=message, remedy=remedy)


def _untouched(fit: Fit) -> Finding | None:
    """Return what is wrong beside the adapted modules, or None."""
    evidence = _evidence(fit)
    if fit.renamed:
        return _failed(
            RENAMED,
            f"{len(fit.renamed)} of the base's parameters are missing under their names, such as {fit.renamed[0]}",
            "save the merged model with save_pretrained of the class that loaded the base, and convert that",
            fit,
            evidence,
        )
    if fit.missing:
        return _failed(
            MISSING,
            f"{len(fit.missing)} of the base's parameters are in no file of it, such as {fit.missing[0]}",
            "look whether a shard is missing, or save the merged model again, and convert that",
            fit,
            evidence,
        )
    if fit.changed:
        name, apart = max(fit.changed.items(), key=lambda pair: pair[1])
        how = "has another shape" if np.isinf(apart) else f"is off by {apart:.1%}"
        return _failed(
            OTHER_BASE,
            f"{len(fit.changed)} parameters that the adapter does not touch are not the base's: {name} {how}",
            "merge into the base that the adapter was trained on",
            fit,
            evidence,
        )
    return None


def _nothing_compared(fit: Fit) -> Finding | None:
    """Return that no weight was compared, or None."""
    return None if fit.n_elements else not_compared("none has the base's name and shape", _evidence(fit))


def _rounding(fit: Fit) -> Finding | None:
    """Return what the format of the weights did, or None."""
    evidence = _evidence(fit)
    foreseen = fit.predicted is not None and abs(fit.lam - fit.predicted) < NEAR
    if foreseen and (fit.predicted or 0.0) < ENOUGH:
        what = f"{fit.dtype.lower()} keeps {fit.lam:.1%} of what the adapter adds: its steps are larger than the change"
        return _failed(
            ROUNDED_AWAY, what, "keep more bits, or serve the base with the adapter beside it", fit, evidence
        )
    # A coarse format can also hold more of the adapter than there was; that is no other scale of a merge.
    if fit.lam_error > NEAR / 3 or (foreseen and abs(fit.lam - 1.0) > NEAR):
        times = fit.residual**0.5
        return Finding(
            step="static",
            verdict=Verdict.WARN,
            cause=DROWNED,
            message=f"{fit.dtype.lower()} moves the weights by {times:.3g} times what the adapter adds to them",
            remedy="behaviour decides; more bits, or base and adapter side by side, keep it for sure",
            evidence=evidence,
        )
    return None


def _scale(fit: Fit, config: AdapterConfig) -> Finding:
    """Return at which scale the weights hold the adapter."""
    evidence = _evidence(fit)
    if fit.nf4_residual is not None and fit.nf4_residual < 0.5 * fit.residual and fit.residual > GONE:
        what = "the weights are the 4-bit base's, dequantised, plus the adapter"
        return Finding(
            step="static",
            verdict=Verdict.WARN,
            cause="merged into the dequantised 4-bit base",
            message=what,
            remedy="merge into the 16-bit base unless the adapter was trained on the 4-bit one",
            lam_hat=fit.lam,
            effect_left=fit.lam,
            evidence=evidence,
        )
    if cause := cause_of_scale(fit.lam, config):
        remedy = "merge again with PEFT's merge_and_unload"
        return _failed(cause, f"the weights hold the adapter at {fit.lam:.3g} of its scale", remedy, fit, evidence)
    return Finding(
        step="static",
        verdict=Verdict.PASS,
        message=f"the weights are the base plus {fit.lam:.4g} of the adapter",
        lam_hat=fit.lam,
        effect_left=fit.lam,
        evidence=evidence,
    )


def cause_of_scale(lam: float, config: AdapterConfig) -> str | None:
    """Return why an adapter would be held at scale `lam`, or None where that is as trained."""
    if abs(lam - 1.0) <= NEAR:
        return None
    if abs(lam) < GONE:
        return NOT_APPLIED
    for cause, expected in scale_faults(config).items():
        if abs(lam / expected - 1.0) < NEAR:
            return cause
    return OTHER_SCALE


def scale_faults(config: AdapterConfig) -> dict[str, float]:
    """Return by which scale each way to misread a config shows."""
    faults: dict[str, float] = {}
    if config.use_rslora and config.r > 1:
        faults[RSLORA_IGNORED] = config.r**-0.5
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    if scale > 0 and abs(scale - 1.0) > NEAR:
        faults[ALPHA_IGNORED] = 1.0 / scale
    return faults


def _failed(cause: str, message: str, remedy: str, fit: Fit, evidence: dict[str, Any]) -> Finding:
    return Finding(
        step="static",
        verdict=Verdict.FAIL,
        cause=cause,
        message=message,
        remedy=remedy,
        lam_hat=fit.known_lam,
        effect_left=fit.known_lam,
        evidence=evidence,
    )


def _evidence(fit: Fit) -> dict[str, Any]:
    return {
        "scale": fit.known_lam,
        "residual": fit.residual,
        "residual_against_4_bit": fit.nf4_residual,
        "predicted_survival": fit.predicted,
        "dtype": fit.dtype,
        "missing": list(fit.missing[:10]),
        "changed": dict(list(fit.changed.items())[:10]),
        "modules": dict(list(fit.modules.items())[:200]),
    }
