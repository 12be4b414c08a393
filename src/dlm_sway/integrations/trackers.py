"""Results where a team keeps its runs: one small protocol, and MLflow, Trackio and Weights & Biases behind it."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, runtime_checkable

from dlm_sway.chain.result import ChainResult, Link
from dlm_sway.core.extras import needs_extra
from dlm_sway.core.result import Interval, SuiteResult, Verdict
from dlm_sway.report.document import Result
from dlm_sway.report.text import clean

if TYPE_CHECKING:
    from dlm_sway.report.write import ReportFormat

_Answer: TypeAlias = tuple[str, Verdict, float | None, Interval | None]
Module: TypeAlias = Literal["trackio", "wandb"]

_PREFIX: Final = "sway"
_DECIDED: Final = {Verdict.PASS: 1.0, Verdict.WARN: 1.0, Verdict.FAIL: 0.0, Verdict.ERROR: 0.0}
_NAME: Final = 100  # the strictest of the three takes 250 characters for a whole key
_VALUE: Final = 500
_ENDINGS: Final[Mapping[ReportFormat, str]] = {"json": "json", "markdown": "md", "html": "html", "junit": "xml"}


@runtime_checkable
class Tracker(Protocol):
    """A place for one run's numbers, words and files."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Keep finite numbers by name."""

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Keep words by name; a later word replaces an earlier one."""

    def log_file(self, path: Path) -> None:
        """Keep a copy of a file."""


def log_result(
    result: Result, tracker: Tracker, *, step: int | None = None, reports: Sequence[ReportFormat] = ("json",)
) -> None:
    """Put a result where a team keeps its runs.

    Args:
        result: of a suite, a check or a walk along the chain.
        tracker: where to.
        step: of the training, where the result is of a checkpoint.
        reports: formats that are kept as files.

    Raises:
        BadInputError: there is no such format.
    """
    from dlm_sway.report.write import write_report

    tracker.log_tags(tags_of(result))  # first: Trackio keeps a run's words with its first numbers, and no later ones
    tracker.log_metrics(metrics_of(result), step=step)
    with tempfile.TemporaryDirectory(prefix="sway-") as folder:
        for name in reports:
            path = Path(folder) / f"sway.{_ENDINGS.get(name, name)}"
            write_report(result, path, name)
            tracker.log_file(path)


def metrics_of(result: Result) -> dict[str, float]:
    """Return what can be drawn over steps: `sway/score`, and `effect`, `low`, `high`, `passed` of `sway/probe/NAME`.

    `passed` is 1 or 0, and is left out where nothing was decided: a line has a gap there, and no false zero. Of a check
    it is `sway/question/NAME`, of a chain `sway/link/NAME`, whose effect is the share that is left. No key is the
    beginning of another: MLflow keeps them as files in folders.
    """
    found: dict[str, float | None] = {}
    if isinstance(result, SuiteResult):
        found |= {"score": result.score, "coverage": result.coverage}
        found |= {f"category/{category}": value for category, value in result.components.items()}
    kind, rows = _answers(result)
    for name, row in zip(_safe([name for name, *_ in rows]), rows, strict=True):
        found |= {f"{kind}/{name}/{key}": value for key, value in _numbers(*row[1:]).items()}
    return {f"{_PREFIX}/{key}": float(v) for key, v in found.items() if v is not None and math.isfinite(v)}


def tags_of(result: Result) -> dict[str, str]:
    """Return the words of a result: `sway.verdict`, `sway.adapter`, and `sway.verdict.NAME` of each probe."""
    own = {"verdict": str(result.verdict), "adapter": result.adapter, "base": result.base}
    if isinstance(result, SuiteResult):
        own |= {"suite": result.name, "band": result.band}
    _, rows = _answers(result)
    names = _safe([name for name, *_ in rows])
    own |= {f"verdict.{name}": str(verdict) for name, (_, verdict, *_) in zip(names, rows, strict=True)}
    return {f"{_PREFIX}.{key}": clean(value, limit=_VALUE) for key, value in own.items() if value}


def _answers(result: Result) -> tuple[str, list[_Answer]]:
    """Return what the answers of a result are called, and name, verdict, effect and interval of each."""
    if isinstance(result, SuiteResult):
        return "probe", [(p.name, p.verdict, p.raw, p.ci_95) for p in result.probes]
    if isinstance(result, ChainResult):
        return "link", [_link(link) for link in result.links]
    return "question", [(name, q.verdict, q.effect, q.interval) for name, q in result.questions.items()]


def _link(link: Link) -> _Answer:
    found = next((f for f in link.findings if f.step == "behaviour"), None)
    return link.name, link.verdict, found.effect_left if found else None, found.interval if found else None


def _numbers(verdict: Verdict, effect: float | None, ends: Interval | None) -> dict[str, float | None]:
    low, high = ends or (None, None)
    return {"effect": effect, "low": low, "high": high, "passed": _DECIDED.get(verdict)}


def _safe(names: Sequence[str]) -> list[str]:
    """Return names that every tracker takes as one part of a key, each once."""
    plain = [re.sub(r"[^\w. -]|^[. ]+", "_", clean(name, limit=_NAME)) or "_" for name in names]
    found: list[str] = []
    for name in plain:
        tries = chain([name], (f"{name}-{n}" for n in count(1)))  # `a-1` may be the name of another
        found.append(next(each for each in tries if each not in found))
    return found


class MlflowTracker:
    """A run of MLflow.

    Args:
        client: an `MlflowClient`.
        run_id: the run's.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Keep numbers."""
        for name, value in metrics.items():
            self._client.log_metric(self.run_id, name, value, step=step)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Keep words as tags, which can change; MLflow's params cannot."""
        for name, value in tags.items():
            self._client.set_tag(self.run_id, name, value)

    def log_file(self, path: Path) -> None:
        """Keep a file as an artifact under `sway`."""
        self._client.log_artifact(self.run_id, str(path), _PREFIX)


@contextmanager
def mlflow_tracker(
    *, run_id: str | None = None, tracking_uri: str | None = None, experiment: str = _PREFIX, name: str | None = None
) -> Iterator[MlflowTracker]:
    """Give a tracker for the run named, else for the active one, else for a new one, which ends with the block.

    Args:
        run_id: of a run that exists.
        tracking_uri: where MLflow keeps runs; as MLflow is configured when None.
        experiment: of a new run; made when it is not there.
        name: of a new run.

    Raises:
        MissingExtraError: MLflow is not installed.
    """
    with needs_extra("writing to MLflow"):
        import mlflow
        from mlflow import MlflowClient
    client = MlflowClient(tracking_uri=tracking_uri)
    active = mlflow.active_run()
    known = run_id or (active.info.run_id if active is not None and tracking_uri is None else None)
    if known is not None:
        yield MlflowTracker(client, known)
        return
    found = client.get_experiment_by_name(experiment)
    place = client.create_experiment(experiment) if found is None else found.experiment_id
    made = client.create_run(place, run_name=name).info.run_id
    status = "FAILED"
    try:
        yield MlflowTracker(client, made)
        status = "FINISHED"
    finally:
        client.set_terminated(made, status=status)


class WandbTracker:
    """A run of Weights & Biases, or of Trackio, which has the same API.

    Args:
        module: `wandb` or `trackio`, imported.
        run: what its `init` returned.
    """

    def __init__(self, module: Any, run: Any) -> None:
        self._module = module
        self.run = run

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Keep numbers."""
        self.run.log(dict(metrics), step=step)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Keep words in the run's config."""
        self.run.config.update(dict(tags), **_REPLACE.get(self._module.__name__, {}))

    def log_file(self, path: Path) -> None:
        """Keep a file as an artifact, which is copied at once."""
        artifact = self._module.Artifact(path.name, type=_PREFIX)
        artifact.add_file(str(path))
        self.run.log_artifact(artifact)


_REPLACE: Final[Mapping[str, Mapping[str, bool]]] = {"wandb": {"allow_val_change": True}}  # Trackio's is a plain dict


@contextmanager
def wandb_tracker(module: Module = "trackio", *, project: str = _PREFIX, **words: Any) -> Iterator[WandbTracker]:
    """Give a tracker for a new run, which ends with the block.

    Trackio keeps its runs on this machine. W&B sends them, unless `mode="offline"` or `WANDB_MODE=offline` says to keep
    them for `wandb sync`.

    Args:
        module: whose run.
        project: that the run belongs to.
        **words: anything else that the module's `init` takes, such as `name` or `mode`.

    Raises:
        MissingExtraError: the module is not installed.
    """
    with needs_extra(f"writing to {module}"):
        api = import_module(module)
    run = api.init(project=project, **words)
    try:
        yield WandbTracker(api, run)
    finally:
        run.finish()
