"""Two hand-built results: an adapter that is healthy as far as it was asked, and its noise twin."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import pytest
from rich.console import Console

from dlm_sway.core.result import ProbeResult, Question, Verdict
from dlm_sway.suite.result import CheckResult

_ROTATION = "rotation (N1), 39 draws"
_UNIT = "nat/token"


def _probe(real: float, median: float) -> ProbeResult:
    draws = [median * (0.8 + 0.01 * i) for i in range(39)]
    evidence = {"null_draws": draws, "statistic": real, "b": 1, "a": {"z": 1, "y": [2.5]}}
    return ProbeResult(name="delta_kl", kind="delta_kl", verdict=Verdict.PASS, raw=3.0, evidence=evidence)


@pytest.fixture
def healthy() -> CheckResult:
    """Passes what was decided, leaves `no_harm` open, and was given no held-out text."""
    return CheckResult(
        adapter="runs/my-adapter",
        base="org/small-base",
        verdict=Verdict.INCONCLUSIVE,
        questions={
            "sound": Question(verdict="pass", effect=210, unit="tensors", message="All tensors land at scale 2."),
            "applied": Question(
                verdict="pass", effect=0.4213, unit=_UNIT, interval=(0.38, 0.46), null="10 x N0", message="It is on."
            ),
            "learned": Question(
                verdict="pass", effect=7.7, unit="x median null", p=0.025, null=_ROTATION, message="L."
            ),
            "on_target": Question(
                verdict="pass", effect=0.531, unit=_UNIT, interval=(0.48, 0.602), p=0.025, null=_ROTATION, message="T."
            ),
            "generalises": Question(verdict="skip", message="Give --held-out FILE with text that was not trained on."),
            "no_harm": Question(
                verdict="inconclusive",
                effect=0.031,
                unit=_UNIT,
                interval=(-math.inf, 0.061),
                null="margin 0.05 nat/token",
                message="The bound is beyond the margin; about 340 passages would decide it.",
            ),
        },
        next_steps=("Score more control text.", "Give --held-out FILE."),
        probes=(_probe(0.39, 0.05),),
        provenance={"seed": 0, "adapter_sha256": "ab"},
        timing={"total": 1.5},
    )


@pytest.fixture
def twin(healthy: CheckResult) -> CheckResult:
    """Random weights of the same size: applied, and nothing more."""
    learned = Question(
        verdict="fail", effect=1.04, unit="x median null", p=0.62, null=_ROTATION, message="Any weights do as much."
    )
    target = Question(
        verdict="fail", effect=-0.01, unit=_UNIT, interval=(-0.03, 0.012), p=0.4, null=_ROTATION, message="No gain."
    )
    questions = {**healthy.questions, "learned": learned, "on_target": target}
    update = {"adapter": "runs/twin", "verdict": Verdict.FAIL, "questions": questions, "probes": (_probe(0.062, 0.06),)}
    return healthy.model_copy(update=update)


@pytest.fixture
def printed() -> Callable[..., str]:
    """Return what a printing function puts on a console that is no terminal."""

    def capture(show: Callable[[Console], None], *, width: int = 80, encoding: str = "utf-8", **options: object) -> str:
        raw = io.BytesIO()
        file = io.TextIOWrapper(raw, encoding=encoding, errors="replace")
        show(Console(file=file, width=width, markup=False, highlight=False, _environ={}, **options))  # type: ignore[arg-type]
        file.flush()
        return raw.getvalue().decode(encoding)

    return capture
