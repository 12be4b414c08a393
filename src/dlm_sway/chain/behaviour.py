"""Does a link behave as what was tested? Equivalence of log-probs, the effect left, and the scale that explains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dlm_sway.adapters.config import AdapterConfig
from dlm_sway.backends.base import BulkBackend
from dlm_sway.chain.result import Finding
from dlm_sway.chain.static import ENOUGH, NOT_APPLIED, OTHER_SCALE, OTHER_WEIGHTS, cause_of_scale, scale_faults
from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Verdict
from dlm_sway.core.views import scaled
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.floor import measure_floor
from dlm_sway.engine.run import Engine
from dlm_sway.stats.equivalence import equivalence
from dlm_sway.stats.survival import survival

_SCALES: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
_FLOOR_TIMES: Final = 10.0
_MARGINS: Final = {"float32": 0.005, "bfloat16": 0.02, "float16": 0.02}
_UNKNOWN_DTYPE_MARGIN: Final = 0.02
_UNEXPLAINED: Final = 0.5


@dataclass(frozen=True, slots=True)
class Reference:
    """What was tested: log-probs of some texts at several scales of the adapter.

    Attributes:
        items: the texts.
        scales: ascending, 0 and 1 among them.
        logprobs: float64[G, P], nats.
        offsets: int64[n_items + 1].
        floor: largest difference of a log-prob that numerics alone make, nats.
        dtype: what it was computed in.
    """

    items: tuple[TextItem, ...]
    scales: tuple[float, ...]
    logprobs: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64]
    floor: float
    dtype: str


def take_reference(backend: Any, items: Sequence[TextItem], config: AdapterConfig, *, max_tokens: int) -> Reference:
    """Return the reference of a differential backend; `config` adds the scales that known faults would show."""
    scales = tuple(sorted({*_SCALES, *(lam for lam in scale_faults(config).values() if lam <= 8.0)}))  # noqa: PLR2004 (beyond, a model says nothing)
    engine = Engine(backend)
    floor = measure_floor(engine)
    asked = Ask(tuple(items), tuple(scaled(x) for x in scales), frozenset({"gain"}), max_tokens=max_tokens)
    (scores,) = engine.answer([asked])
    logprobs = scores.base_logprob + scores.values["gain"]
    return Reference(tuple(items), scales, logprobs, scores.offsets, floor.max_logprob, floor.dtype)


def observe(backend: BulkBackend, reference: Reference, *, max_tokens: int) -> npt.NDArray[np.float64]:
    """Return the log-probs that a whole model, or a server as it stands, gives the reference's texts, float64[P]."""
    (scores,) = Engine(backend).answer([Ask(reference.items, (), frozenset(), max_tokens=max_tokens)])
    if not np.array_equal(scores.offsets, reference.offsets):
        raise BadInputError("it cuts these texts into other tokens", remedy="compare the tokens first")
    return scores.base_logprob


def margin_of(reference: Reference, dtype: str) -> float:
    """Return the margin of equivalence in nat a token: what the dtype makes, and ten times the numeric floor."""
    return max(_MARGINS.get(dtype, _UNKNOWN_DTYPE_MARGIN), _FLOOR_TIMES * reference.floor)


def judge(
    reference: Reference,
    observed: npt.NDArray[np.float64],
    config: AdapterConfig | None = None,
    *,
    margin: float,
    seed: int = 0,
) -> Finding:
    """Return whether `observed` is what was tested: within the margin, and with at least 0.9 of the effect left."""
    tokens = np.diff(reference.offsets)
    clusters = [item.cluster for item in reference.items]
    by_token = [c for c, n in zip(clusters, tokens.tolist(), strict=True) for _ in range(n)]
    tuned = reference.logprobs[reference.scales.index(1.0)]
    if not np.isfinite(observed).all():
        return Finding(step="behaviour", verdict=Verdict.ERROR, message="it gives log-probs that are no numbers")
    sums = np.add.reduceat(observed - tuned, reference.offsets[:-1])
    same = equivalence(sums, tokens, clusters, margin=margin)
    try:
        left = survival(reference.scales, reference.logprobs, observed, by_token, rng=stream(seed, "chain", "survival"))
    except BadInputError:
        left = None
    evidence: dict[str, Any] = {"equivalence": asdict(same), "margin": margin, "n_items": len(tokens)}
    if left is None or left.effect <= _FLOOR_TIMES * reference.floor:
        message = "the adapter does nothing to these texts that numerics alone would not, so nothing could be lost"
        remedy = "give --data with what it was trained on"
        return Finding(
            step="behaviour", verdict=Verdict.INCONCLUSIVE, message=message, remedy=remedy, evidence=evidence
        )
    evidence["survival"] = asdict(left)
    verdict = _verdict(same.decision, left.low, left.high)
    cause = _cause(left, config) if verdict is Verdict.FAIL else None
    lam = f"{left.lam:.2f}"
    message = (
        f"{left.ratio:.1%} of the effect is left, as at scale {lam}; {same.estimate:+.4f} nat/token, margin {margin:g}"
    )
    interval = None if left.low is None or left.high is None else (left.low, left.high)
    remedy = _REMEDIES.get(cause or "", "") if cause else ""
    if verdict is Verdict.INCONCLUSIVE:
        more = "" if same.n_to_decide is None else f", about {same.n_to_decide}"
        remedy = f"give more texts{more}: these do not decide"
    return Finding(
        step="behaviour",
        verdict=verdict,
        cause=cause,
        message=message,
        remedy=remedy,
        effect_left=left.ratio,
        interval=interval,
        lam_hat=left.lam,
        evidence=evidence,
    )


def assert_equivalent(
    reference: Any, candidate: BulkBackend, texts: Sequence[str], *, margin: float | None = None
) -> Finding:
    """Raise AssertionError unless `candidate`, read as it stands, is the fine-tune of `reference`; else say how near.

    Args:
        reference: a differential backend with scales, such as kind hf.
        candidate: a whole model or a server.
        texts: what both read; at least two.
        margin: nat a token; None for what dtype and numeric floor make.
    """
    items = tuple(TextItem("", text, str(i), str(i)) for i, text in enumerate(texts))
    config = AdapterConfig(peft_type="LORA", r=1, lora_alpha=1)
    taken = take_reference(reference, items, config, max_tokens=10**6)
    observed = observe(candidate, taken, max_tokens=10**6)
    dtype = str(getattr(candidate, "dtype", "")).removeprefix("torch.")
    found = judge(taken, observed, margin=margin_of(taken, dtype) if margin is None else margin)
    if found.verdict is not Verdict.PASS:
        raise AssertionError(f"{found.verdict.value}: {found.message}{'; ' + found.cause if found.cause else ''}")
    return found


def _verdict(decision: str, low: float | None, high: float | None) -> Verdict:
    if low is None or high is None:
        return Verdict.INCONCLUSIVE
    if decision == "outside" or high < ENOUGH:
        return Verdict.FAIL
    return Verdict.PASS if decision == "within" and low >= ENOUGH else Verdict.INCONCLUSIVE


def _cause(left: Any, config: AdapterConfig | None) -> str:
    if left.unexplained > _UNEXPLAINED:
        return OTHER_WEIGHTS
    found = cause_of_scale(left.lam, config or AdapterConfig(peft_type="LORA", r=1, lora_alpha=1))
    return found or OTHER_WEIGHTS


_REMEDIES: Final = {
    NOT_APPLIED: "load the adapter: llama.cpp --lora FILE, vLLM --enable-lora and the adapter's name as the model",
    "alpha ignored": "the server must multiply by alpha / r; convert the adapter again",
    "rsLoRA ignored": "the server must multiply by alpha / sqrt(r); or use a file of `sway convert`",
    OTHER_SCALE: "look for a scale that the server multiplies by (llama.cpp --lora-scaled)",
    OTHER_WEIGHTS: "it is another base, another adapter, or a coarse quantisation: compare the files",
}
