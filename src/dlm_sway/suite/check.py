"""`sway check`: the six questions about one adapter, from files to answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlm_sway.adapters.checks import inspect_adapter
from dlm_sway.adapters.inspection import Inspection
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.progress import Progress, Silent
from dlm_sway.core.result import ProbeResult, Question, Verdict, worst
from dlm_sway.data.readers import DataItem, read_items
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.base import Pairs, RunContext
from dlm_sway.probes.delta_kl import DeltaKL, DeltaKLSpec
from dlm_sway.probes.drive import Driven, drive
from dlm_sway.probes.external_perplexity import ExternalPerplexity, ExternalPerplexitySpec
from dlm_sway.probes.target_gain import TargetGain, TargetGainSpec
from dlm_sway.suite.advice import next_steps
from dlm_sway.suite.provenance import provenance
from dlm_sway.suite.result import QUESTIONS, CheckResult

QUICK_DRAWS = 19
QUICK_TOKENS = 128
# With these the model cannot be loaded, or every number it gives would be meaningless.
_BLOCKING = frozenset(
    {
        "empty_tensor",
        "empty_weights",
        "no_weights",
        "not_finite",
        "pickle_weights",
        "rank_mismatch",
        "swapped_factors",
        "unknown_peft_type",
        "unreadable_format",
        "wrong_shape",
    }
)


def check(  # the arguments are the options of the command
    adapter: Path,
    *,
    base: str | None = None,
    data: Path | None = None,
    held_out: Path | None = None,
    n_draws: int = 39,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    quick: bool = False,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> CheckResult:
    """Answer whether an adapter is sound, applied, learned, on target, general and harmless.

    Args:
        adapter: a PEFT directory.
        base: model directory or Hub id; the one recorded in the adapter's config when not given.
        data: what the fine-tune was trained on; without it nothing is said about the target.
        held_out: data of the same source that it was not trained on.
        n_draws: number of rotation nulls.
        device: `auto`, `cpu`, `cuda` or `mps`.
        dtype: `auto`, `fp32`, `bf16` or `fp16`.
        seed: of the nulls and of all resampling.
        quick: 19 draws and 128 tokens a null.
        batch_tokens: view-tokens a chunk.
        progress: who listens.

    Raises:
        BadInputError: something that was named cannot be read.
        CannotRunError: the model could not do the work.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    progress.phase("inspecting the adapter")
    inspection = inspect_adapter(Path(adapter), base)
    base_name = base or inspection.facts.base_recorded
    if base_name is None:
        raise BadInputError("the adapter does not record its base", where=adapter, remedy="name it with --base")
    items, unseen = _items(data), _items(held_out)
    questions = {"sound": _sound(inspection)}
    driven: Driven | None = None
    inspected = time.perf_counter()
    facts: dict[str, Any] = {}
    if not _blocked(inspection):
        ctx, facts = _open(adapter, base_name, device=device, dtype=dtype, progress=progress)
        ctx.seed, ctx.n_draws, ctx.batch_tokens = seed, QUICK_DRAWS if quick else n_draws, batch_tokens
        try:
            driven = _drive(ctx, items, unseen, quick=quick)
        finally:
            ctx.backend.close()
    questions |= _answers(driven, has_data=bool(items), has_held_out=bool(unseen))
    ordered = {name: questions[name] for name in QUESTIONS}
    return CheckResult(
        adapter=str(adapter),
        base=base_name,
        verdict=worst(q.verdict for q in ordered.values()),
        questions=ordered,
        next_steps=next_steps(ordered, adapter=str(adapter), base=base_name),
        probes=driven.results if driven else (),
        provenance=provenance(adapter, data=data, held_out=held_out, driven=driven, seed=seed, facts=facts),
        timing=_timing(began, inspected, driven),
    )


def _items(path: Path | None) -> tuple[TextItem, ...]:
    return () if path is None else tuple(_text_item(i) for i in read_items(path))


def _text_item(item: DataItem) -> TextItem:
    return TextItem(item.prompt, item.completion, item.cluster, f"{Path(item.source).name}:{item.line}")


def _sound(inspection: Inspection) -> Question:
    faults = [f for f in inspection.faults if f.severity in ("fail", "warn")]
    rows = len(inspection.modules)
    message = "; ".join(f.message for f in faults[:3]) or f"{rows} adapted modules, all finite and of the base's shapes"
    more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""  # noqa: PLR2004 (three are shown)
    return Question(
        verdict=inspection.verdict,
        effect=float(len(faults)) if faults else 0.0,
        unit="faults",
        null="static checks (Q0)",
        message=message + more,
    )


def _blocked(inspection: Inspection) -> bool:
    return any(f.code in _BLOCKING and f.severity == "fail" for f in inspection.faults)


def _open(
    adapter: Path, base: str, *, device: str, dtype: str, progress: Progress
) -> tuple[RunContext, dict[str, Any]]:
    from dlm_sway.backends.hf import HuggingFaceDifferentialBackend

    progress.phase("loading the base")
    spec = ModelSpec.model_validate({"base": base, "device": device, "dtype": dtype})
    backend = HuggingFaceDifferentialBackend(base_spec=spec, adapter_path=adapter)
    facts = {"device": str(backend.device), "dtype": str(backend.dtype).removeprefix("torch.")}
    return RunContext(backend=backend, progress=progress), facts


def _drive(ctx: RunContext, items: Sequence[TextItem], held_out: Sequence[TextItem], *, quick: bool) -> Driven:
    tokens = {"null_tokens": QUICK_TOKENS} if quick else {}
    pairs: Pairs = ((DeltaKL(), DeltaKLSpec.model_validate({"name": "delta_kl", "prompts": items, **tokens})),)
    if items:
        spec = {"name": "target_gain", "items": items, "held_out": held_out, **tokens}
        pairs = (*pairs, (TargetGain(), TargetGainSpec.model_validate(spec)))
    harm = ExternalPerplexitySpec(name="external_perplexity")
    return drive((*pairs, (ExternalPerplexity(), harm)), ctx)


def _answers(driven: Driven | None, *, has_data: bool, has_held_out: bool) -> dict[str, Question]:
    skipped = {name: _skip("not asked, because the adapter is not sound") for name in QUESTIONS[1:]}
    if driven is None:
        return skipped
    out: dict[str, Question] = {}
    for result in driven.results:
        claims = result.evidence.get("claims", {})
        out |= {name: Question.model_validate(claim) for name, claim in claims.items()}
        out |= {} if claims else {name: _failed(result) for name in _CLAIMS[result.kind]}
    if not has_data:
        out["on_target"] = _skip("give --data FILE with the text that it was trained on")
    if not has_held_out:
        out["generalises"] = _skip("give --held-out FILE with text of the same source that it was not trained on")
    return out


_CLAIMS = {
    "delta_kl": ("applied", "learned"),
    "target_gain": ("on_target", "generalises"),
    "external_perplexity": ("no_harm",),
}


def _skip(message: str) -> Question:
    return Question(verdict=Verdict.SKIP, message=message)


def _failed(result: ProbeResult) -> Question:
    return Question(verdict=Verdict.ERROR, message=result.message)


def _timing(began: float, inspected: float, driven: Driven | None) -> dict[str, float]:
    now = time.perf_counter()
    tokens = float(driven.engine.view_tokens_done) if driven else 0.0
    return {
        "total_s": round(now - began, 3),
        "inspect_s": round(inspected - began, 3),
        "view_tokens": tokens,
    }
