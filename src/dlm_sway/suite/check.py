"""`sway check`: the six questions about one adapter, from files to answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from dlm_sway.adapters.checks import inspect_adapter
from dlm_sway.adapters.inspection import Inspection
from dlm_sway.adapters.recorded_base import at_recorded_revision
from dlm_sway.backends.registry import open_backend
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.progress import Progress, Silent
from dlm_sway.suite.advice import next_steps
from dlm_sway.suite.base_files import base_files
from dlm_sway.suite.examine import Examined, examine
from dlm_sway.suite.provenance import provenance
from dlm_sway.suite.questions import findings, is_blocked, not_asked, sound, verdict_of
from dlm_sway.suite.request import Request, read_request
from dlm_sway.suite.result import QUESTIONS, CheckResult


def check(  # the arguments are the options of the command
    adapter: Path,
    *,
    base: str | None = None,
    backend: str = "hf",
    data: Path | None = None,
    held_out: Path | None = None,
    n_draws: int = 39,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    quick: bool = False,
    batch_tokens: int | None = None,
    cache: Path | None = None,
    trace: Path | None = None,
    progress: Progress | None = None,
) -> CheckResult:
    """Answer whether an adapter is sound, applied, learned, on target, general and harmless.

    An adapter that cannot be loaded, or whose numbers would mean nothing, is answered without a model (and without
    torch).

    Args:
        adapter: a PEFT directory.
        base: model directory or Hub id; the one recorded in the adapter's config when not given.
        backend: the kind of backend that loads base and adapter: `hf`, or `mlx`.
        data: what the fine-tune was trained on; without it nothing is said about the target.
        held_out: data of the same source that it was not trained on; it needs `data`.
        n_draws: number of rotation nulls, at least 19.
        device: `auto`, or what the backend calls its devices.
        dtype: `auto`, `fp32`, `bf16` or `fp16`.
        seed: of the nulls and of all resampling.
        quick: 19 draws, 128 tokens a null, the first 32 tokens of at most 32 texts a file, and one look at 32 control
            passages.
        batch_tokens: view-tokens a chunk.
        cache: folder where results outlive the run, so that it goes on where it stopped; None keeps nothing.
        trace: file that gets a JSON line a chunk, or None.
        progress: who listens.

    Raises:
        BadInputError: something that was named cannot be read or used.
        MissingExtraError: the model is needed, and a package to load it with is not installed.
        CannotRunError: the model could not do the work.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    request = read_request(
        Path(adapter),
        data=_path(data),
        held_out=_path(held_out),
        n_draws=n_draws,
        seed=seed,
        quick=quick,
        batch_tokens=batch_tokens,
    )
    progress.phase("inspecting the adapter")
    inspection = inspect_adapter(request.adapter, base)
    base_name = base or inspection.facts.base_recorded
    if base_name is None:
        raise BadInputError("the adapter does not record its base", where=adapter, remedy="name it with --base")
    inspected = time.perf_counter()
    spec = _spec(base_name, request.adapter, kind=backend, device=device, dtype=dtype)
    examined = None
    if not is_blocked(inspection):
        examined = _loaded_and_examined(request, spec, cache=cache, trace=trace, progress=progress)
    timing = {"total_s": time.perf_counter() - began, "inspect_s": inspected - began}
    return _assembled(request, inspection, examined, spec=spec, timing=timing)


def _assembled(
    request: Request,
    inspection: Inspection,
    examined: Examined | None,
    *,
    spec: ModelSpec,
    timing: Mapping[str, float],
) -> CheckResult:
    """Return the result of a check from its parts; `examined` is None when the adapter is too unsound for a model."""
    driven = examined.driven if examined else None
    found = examined.questions if examined else not_asked("not asked, because the adapter is not sound")
    every = {"sound": sound(inspection), **found}
    ordered, more = {name: every[name] for name in QUESTIONS}, findings(every)
    return CheckResult(
        adapter=str(request.adapter),
        base=spec.base,
        verdict=verdict_of(ordered, more),
        questions=ordered,
        findings=more,
        next_steps=next_steps(ordered | more, adapter=str(request.adapter), base=spec.base, quick=request.quick),
        probes=driven.results if driven else (),
        provenance=provenance(
            request,
            model={"kind": spec.kind, **base_files(spec.base, revision=spec.revision)},
            driven=driven,
            facts=examined.facts if examined else {},
        ),
        timing={name: round(seconds, 3) for name, seconds in timing.items()}
        | (driven.engine.work() if driven else {"view_tokens": 0.0}),
    )


def _loaded_and_examined(
    request: Request, spec: ModelSpec, *, cache: Path | None, trace: Path | None, progress: Progress
) -> Examined:
    progress.phase("loading the base")
    backend = open_backend(spec)
    try:
        return examine(backend, request, cache=cache, trace=trace, progress=progress)
    finally:
        backend.close()


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)


def _spec(base: str, adapter: Path, **how: str) -> ModelSpec:
    try:
        return at_recorded_revision(ModelSpec.model_validate({"base": base, "adapter": adapter, **how}))
    except ValidationError as e:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in e.errors())
        raise BadInputError(faults, remedy="see `sway check --help`") from None
