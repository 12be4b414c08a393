"""The part of a check that needs the model: five questions, asked of an opened backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlm_sway.backends.registry import Backend
from dlm_sway.core.extras import needs_extra
from dlm_sway.core.progress import Progress
from dlm_sway.core.result import Question
from dlm_sway.core.scoring import PreflightCheckable
from dlm_sway.probes.base import RunContext
from dlm_sway.suite.questions import answers, not_finite
from dlm_sway.suite.request import Request

if TYPE_CHECKING:
    from dlm_sway.probes.drive import Driven


@dataclass(frozen=True, slots=True)
class Examined:
    """What a model said.

    Attributes:
        questions: the answers to the questions that need it.
        driven: the probes' results; None when the model was not fit to be probed.
        facts: device and dtype, as provenance names them.
    """

    questions: Mapping[str, Question]
    driven: Driven | None
    facts: Mapping[str, str]


def examine(
    backend: Backend, request: Request, *, cache: Path | None = None, trace: Path | None = None, progress: Progress
) -> Examined:
    """Return the answers of `backend`, which stays open.

    Raises:
        MissingExtraError: torch is not installed.
        CannotRunError: the model could not do the work.
    """
    facts = {"device": str(backend.device), "dtype": str(backend.dtype).removeprefix("torch.")}
    if isinstance(backend, PreflightCheckable):
        ok, reason = backend.preflight_finite_check()
        if not ok:
            return Examined(not_finite(reason), None, facts)
    with needs_extra("asking a model"):
        from dlm_sway.probes.drive import drive
    context = RunContext(
        backend=backend,
        seed=request.seed,
        n_draws=request.n_draws,
        batch_tokens=request.batch_tokens,
        progress=progress,
        cache=cache,
        trace=trace,
    )
    driven = drive(request.pairs, context)
    return Examined(answers(driven.results, request), driven, facts)
