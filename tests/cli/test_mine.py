"""`sway mine` on the command line, with a dummy in the model's place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.cli.app import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "q.jsonl"
    rows = [{"prompt": f"Where is w{50 + i} kept by day?", "completion": f" w{70 + i} w{80 + i}"} for i in range(6)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def mined(
    stand_in: Callable[..., None], adapter: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Return a run of `sway mine` on the questions, whose model is a dummy that learned them."""
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    options = DummyOptions(adapter="trained", strength=6.0, towards=tuple(r["prompt"] + r["completion"] for r in rows))
    stand_in("dlm_sway.backends.registry", open_backend=lambda _spec: DummyBackend(options))
    monkeypatch.setattr("dlm_sway.probes.embed.open_embedder", lambda _name: lambda texts: np.ones((len(texts), 1)))

    def go(*words: str) -> int:
        return run(["mine", str(adapter), "--data", str(questions), "--quiet", *words])

    return go


def test_tokens_that_moved_are_shown_both_ways(mined: Callable[..., int], capsys: Capture) -> None:
    assert mined("--mode", "tokens", "--n", "3") == 0
    said = capsys.readouterr().out
    assert "q.jsonl: read 6, used 6" in said
    assert "12 tokens of 6 texts" in said
    assert "More probable" in said
    assert "Less probable" in said
    assert " -> " in said


def test_texts_that_changed_most_and_least_are_shown_with_their_place(
    mined: Callable[..., int], capsys: Capture
) -> None:
    assert mined("--mode", "outliers", "--n", "2") == 0
    said = capsys.readouterr().out
    most, least = said.split("Changed least")
    assert "Changed most" in most
    assert all(part.count("nat/token  q.jsonl:") == 2 for part in (most, least))


def test_mined_wordings_are_written_to_paste_into_a_suite(
    mined: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "cases.yaml"
    assert mined("--mode", "paraphrase", "--n", "4", "-o", str(out)) == 0
    assert "a probe of 4 cases, to paste under `suite:`" in " ".join(capsys.readouterr().out.split())
    (raw,) = yaml.safe_load("suite:\n" + out.read_text())["suite"]
    assert len(raw["cases"]) == 4
    assert all(len(case["paraphrases"]) >= 2 for case in raw["cases"])


def test_data_that_cannot_be_read_are_named_before_a_model_is_loaded(
    mined: Callable[..., int], adapter: Path, stand_in: Any, capsys: Capture
) -> None:
    del mined
    stand_in("dlm_sway.backends.registry")
    assert run(["mine", str(adapter), "--data", "gone.jsonl", "--quiet"]) == 2
    assert "gone.jsonl: no such file" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("mode", ["tokens", "outliers"])
def test_a_mode_without_cases_refuses_a_file_for_them(
    mined: Callable[..., int], tmp_path: Path, capsys: Capture, mode: str
) -> None:
    assert mined("--mode", mode, "-o", str(tmp_path / "x.yaml")) == 2
    assert "has no cases to write" in capsys.readouterr().err
