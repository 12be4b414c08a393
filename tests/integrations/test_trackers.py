"""Results in trackers: what is written, and that real ones can be read again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dlm_sway.core.errors import BadInputError, MissingExtraError
from dlm_sway.core.result import ProbeResult, Question, SuiteResult, Verdict
from dlm_sway.integrations import trackers
from dlm_sway.integrations.trackers import Tracker, log_result, metrics_of, mlflow_tracker, tags_of, wandb_tracker
from dlm_sway.suite.result import CheckResult


class Kept:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.steps: list[int | None] = []
        self.tags: dict[str, str] = {}
        self.files: dict[str, str] = {}

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        self.metrics |= metrics
        self.steps.append(step)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self.tags |= tags

    def log_file(self, path: Path) -> None:
        self.files[path.name] = path.read_text()


def _probe(name: str, verdict: Verdict = Verdict.PASS, **fields: Any) -> ProbeResult:
    return ProbeResult(name=name, kind="delta_kl", verdict=verdict, **fields)


def test_a_result_is_kept_as_numbers_words_and_a_report_that_reads_back(result: SuiteResult) -> None:
    kept = Kept()
    assert isinstance(kept, Tracker)
    log_result(result, kept, step=40, reports=("json", "markdown"))
    learned = next(p for p in result.probes if p.name == "learned")
    assert kept.metrics["sway/score"] == result.score
    assert kept.metrics["sway/probe/learned/effect"] == learned.raw
    assert kept.metrics["sway/probe/learned/passed"] == 1.0
    assert kept.steps == [40]
    assert (kept.tags["sway.verdict"], kept.tags["sway.verdict.learned"]) == ("pass", "pass")
    assert SuiteResult.model_validate_json(kept.files["sway.json"]) == result
    assert kept.files["sway.md"].startswith("## ")


def test_a_check_is_kept_by_its_questions() -> None:
    questions = {"learned": Question(verdict=Verdict.FAIL, effect=0.5, interval=(0.25, 1.0), unit="nat/token")}
    found = CheckResult(adapter="a", base=None, verdict=Verdict.FAIL, questions=questions)
    assert metrics_of(found) == {
        "sway/question/learned/effect": 0.5,
        "sway/question/learned/low": 0.25,
        "sway/question/learned/high": 1.0,
        "sway/question/learned/passed": 0.0,
    }
    assert tags_of(found) == {"sway.verdict": "fail", "sway.adapter": "a", "sway.verdict.learned": "fail"}


def test_names_that_are_alike_for_a_tracker_stay_apart() -> None:
    probes = tuple(_probe(name, raw=float(i)) for i, name in enumerate(("a/b", "a:b", "a_b-1")))
    found = metrics_of(SuiteResult(probes=probes))
    effects = {key: value for key, value in found.items() if key.endswith("/effect")}
    assert effects == {
        "sway/probe/a_b/effect": 0.0,
        "sway/probe/a_b-1/effect": 1.0,
        "sway/probe/a_b-1-1/effect": 2.0,
    }


def test_what_was_not_decided_is_no_zero_and_what_is_not_finite_is_left_out() -> None:
    probes = (
        _probe("open", Verdict.INCONCLUSIVE, raw=float("nan"), ci_95=(float("-inf"), 2.0)),
        _probe("skipped", Verdict.SKIP),
        _probe("broken", Verdict.ERROR, score=0.0),
    )
    assert metrics_of(SuiteResult(probes=probes)) == {
        "sway/coverage": 0.0,
        "sway/probe/open/high": 2.0,
        "sway/probe/broken/passed": 0.0,
    }


def test_hostile_names_stay_one_part_of_a_key_and_apart_from_each_other() -> None:
    names = ("a/../b", "a:..:b", "..", "x" * 999, "\x1b[31mred")
    found = metrics_of(SuiteResult(probes=tuple(_probe(name, raw=1.0) for name in names)))
    keys = [key.split("/") for key in found if key.endswith("/effect")]
    assert len(keys) == len(names)
    assert all(len(parts) == 4 and not parts[2].startswith(".") and len(parts[2]) < 120 for parts in keys)
    assert not any("\x1b" in key for key in found)


def test_no_key_begins_another_whatever_a_probe_is_called(result: SuiteResult) -> None:
    keys = metrics_of(result.model_copy(update={"probes": (_probe("score", raw=1.0), _probe("category", raw=1.0))}))
    assert [a for a in keys for b in keys if b.startswith(f"{a}/")] == []


def test_a_format_that_there_is_not_is_refused(result: SuiteResult) -> None:
    with pytest.raises(BadInputError, match="no format 'pdf'"):
        log_result(result, Kept(), reports=("pdf",))  # type: ignore[arg-type]


def test_a_tracker_that_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(trackers, "import_module", gone)
    with (
        pytest.raises(MissingExtraError, match=r"writing to wandb needs wandb.*pip install wandb"),
        wandb_tracker("wandb"),
    ):
        pass


@pytest.mark.filterwarnings("default")  # MLflow's own
def test_mlflow_keeps_a_result_in_files_and_gives_it_back(
    result: SuiteResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "runs").as_uri()
    for step in (1, 2):
        with mlflow_tracker(tracking_uri=uri, experiment="adapters", name=f"step-{step}") as tracker:
            log_result(result, tracker, step=step)
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["sway/score"] == result.score
    assert run.data.tags["sway.verdict"] == "pass"
    assert [file.path for file in client.list_artifacts(tracker.run_id, "sway")] == ["sway/sway.json"]
    assert [m.step for m in client.get_metric_history(tracker.run_id, "sway/score")] == [2]
    with mlflow_tracker(tracking_uri=uri, run_id=tracker.run_id) as again:
        log_result(result, again, step=3)
    assert client.get_run(tracker.run_id).data.tags["sway.verdict"] == "pass"
    assert len(client.get_metric_history(tracker.run_id, "sway/score")) == 2


@pytest.mark.filterwarnings("default")
def test_a_block_that_fails_leaves_a_failed_run_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "runs").as_uri()
    with pytest.raises(RuntimeError, match="stop"), mlflow_tracker(tracking_uri=uri) as tracker:
        raise RuntimeError("stop")
    assert mlflow.MlflowClient(tracking_uri=uri).get_run(tracker.run_id).info.status == "FAILED"


TRACKIO = """
import sys
from pathlib import Path
from dlm_sway.core.result import SuiteResult
from dlm_sway.integrations.trackers import log_result, wandb_tracker

result = SuiteResult.model_validate_json(Path(sys.argv[1]).read_text())
with wandb_tracker("trackio", project="adapters", name="one", embed=False, auto_log_cpu=False) as tracker:
    log_result(result, tracker, step=3)
"""


def test_trackio_keeps_a_result_on_this_machine(result: SuiteResult, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    import sqlite3
    from contextlib import closing

    (tmp_path / "result.json").write_text(result.model_dump_json())
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", TRACKIO, str(tmp_path / "result.json")]
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=120)
    with closing(sqlite3.connect(tmp_path / "trackio" / "adapters.db")) as db:
        rows = db.execute("SELECT step, metrics FROM metrics").fetchall()
        (config,) = db.execute("SELECT config FROM configs").fetchone()
    assert [(step, json.loads(metrics)["sway/score"]) for step, metrics in rows] == [(3, result.score)]
    assert json.loads(config)["sway.verdict"] == "pass"


class Wandb:
    """What is used of wandb, with the rules that it has and Trackio has not."""

    __name__ = "wandb"

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.said: list[Any] = []

    def init(self, **words: Any) -> Any:
        self.said.append(words)
        return SimpleNamespace(
            log=lambda metrics, step: self.said.append((metrics, step)),
            config=SimpleNamespace(update=self.update),
            log_artifact=lambda artifact: self.said.append(artifact.content),
            finish=lambda: self.said.append("finish"),
        )

    def update(self, words: dict[str, str], *, allow_val_change: bool = False) -> None:
        assert allow_val_change or not set(words) & set(self.config)
        self.config |= words

    class Artifact:  # noqa: D106 (as wandb has it)
        def __init__(self, name: str, type: str) -> None:  # noqa: A002 (as wandb has it)
            assert (name, type) == ("sway.json", "sway")

        def add_file(self, path: str) -> None:
            self.content = Path(path).read_text()


def test_wandb_takes_the_same_calls_offline_and_a_second_result(
    result: SuiteResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    with wandb_tracker("wandb", project="p", mode="offline") as tracker:
        for step in (1, 2):
            log_result(result, tracker, step=step)
    opened, (metrics, step), artifact, *_, last = fake.said
    assert (opened, step, last) == ({"project": "p", "mode": "offline"}, 1, "finish")
    assert metrics["sway/score"] == result.score
    assert SuiteResult.model_validate_json(artifact) == result
    assert fake.config["sway.verdict"] == "pass"
