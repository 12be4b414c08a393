from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.probes.base import Env, RunContext, build_probe


def losses(n: int = 120, *, fall: float = 0.8, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    t = np.linspace(0, 1, n)
    return np.exp(1.0 - fall * (1 - np.exp(-5 * t)) + noise * np.random.default_rng(seed).standard_normal(n))


def jsonl(path: Path, values: Any, **more: Any) -> Path:
    rows = [{"step": 10 * (i + 1), "loss": float(v)} for i, v in enumerate(values)]
    rows += [{"step": 100 * (i + 1), "eval_loss": v} for i, v in enumerate(more.get("evals", []))]
    file = path / "log.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def judged(log: Path, **spec: Any) -> ProbeResult:
    probe, built = build_probe({"name": "x", "kind": "training_drift", "log": str(log), **spec})
    assert probe.plan(built, Env(), ()) == ()
    return probe.run(built, RunContext(backend=None))


def claim(result: ProbeResult, name: str) -> str:
    return str(result.evidence["claims"][name]["verdict"])


@pytest.mark.healthy_pair
def test_a_training_that_converges_passes(tmp_path: Path) -> None:
    result = judged(jsonl(tmp_path, losses(), evals=[2.0, 1.6, 1.5]))
    assert (result.verdict, result.score) == (Verdict.PASS, 1.0)
    assert result.evidence["convergence_ratio"] == pytest.approx(np.exp(-0.8), rel=0.25)
    assert [c["name"] for c in result.evidence["curves"]] == ["training loss", "held-out loss"]
    assert "fell and stayed down" in result.message


@pytest.mark.planted_fault
def test_a_training_that_diverges_fails(tmp_path: Path) -> None:
    rising = judged(jsonl(tmp_path, losses()[::-1]))
    assert (rising.verdict, rising.score) == (Verdict.FAIL, 0.0)
    assert "it rose" in rising.message
    broken = losses()
    broken[90:] = 2.6
    assert "gave back more than half" in judged(jsonl(tmp_path, broken)).message


def test_a_rise_in_the_last_third_is_a_warning(tmp_path: Path) -> None:
    late = losses(200, fall=1.2, noise=0.02)
    late[130:] *= np.exp(np.linspace(0, 0.25, 70))
    result = judged(jsonl(tmp_path, late))
    assert (result.verdict, result.score) == (Verdict.WARN, 0.5)
    assert "over the last third" in result.message


def test_a_rise_is_told_in_the_unit_of_the_loss(tmp_path: Path) -> None:
    doubled = losses(200, fall=2.5, noise=0.02)  # and by 0.58 in logarithms over the last third, 79 %
    doubled[130:] *= np.exp(np.linspace(0, np.log(2), 70))
    assert re.search(r"rises by (7\d|8\d)%", judged(jsonl(tmp_path, doubled)).message)
    below = doubled - 2.0
    assert re.search(r"rises by 0\.\d+ over", judged(jsonl(tmp_path, below)).message)


def test_a_held_out_loss_that_stays_is_not_said_to_follow(tmp_path: Path) -> None:
    result = judged(jsonl(tmp_path, losses(), evals=[2.0, 2.0, 2.0]))
    assert "hardly fell" in result.evidence["claims"]["held_out"]["message"]


def test_spikes_are_a_warning_where_there_are_many_and_named_where_there_are_few(tmp_path: Path) -> None:
    one, many = losses(), losses()
    one[60] *= 10
    many[20:100:20] *= 10
    few = judged(jsonl(tmp_path, one))
    assert few.verdict is Verdict.PASS
    assert few.evidence["spike_steps"] == [610]
    result = judged(jsonl(tmp_path, many))
    assert (result.verdict, claim(result, "steady")) == (Verdict.WARN, "warn")
    assert "steps 210, 410" in result.message


@pytest.mark.parametrize(
    ("evals", "verdict"),
    [([2.0, 1.5, 1.52], "pass"), ([2.0, 1.4, 1.6], "warn"), ([2.0, 1.7, 2.4], "fail"), ([2.0], "inconclusive")],
)
def test_a_held_out_loss_that_turns_up_is_named(tmp_path: Path, evals: list[float], verdict: str) -> None:
    assert claim(judged(jsonl(tmp_path, losses(), evals=evals)), "held_out") == verdict


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_fails(tmp_path: Path, bad: float) -> None:
    values = losses()
    values[40] = bad
    result = judged(jsonl(tmp_path, values))
    assert (result.verdict, claim(result, "finite")) == (Verdict.FAIL, "fail")
    assert "not finite at step 410" in result.message
    assert json.dumps(result.model_dump(mode="json"), allow_nan=False)


def test_losses_of_exactly_zero_are_a_warning(tmp_path: Path) -> None:
    values = losses()
    values[100:] = 0.0
    assert claim(judged(jsonl(tmp_path, values)), "finite") == "warn"


def test_noise_without_a_fall_decides_nothing(tmp_path: Path) -> None:
    result = judged(jsonl(tmp_path, losses(fall=0.0)))
    assert (result.verdict, result.score) == (Verdict.INCONCLUSIVE, None)
    short = judged(jsonl(tmp_path, losses(6)))
    assert short.verdict is Verdict.INCONCLUSIVE
    assert "log at least 15" in short.message


def test_ordinary_noise_seldom_warns(tmp_path: Path) -> None:
    verdicts = [judged(jsonl(tmp_path, losses(200, noise=0.2, seed=s))).verdict for s in range(60)]
    assert sum(v is not Verdict.PASS for v in verdicts) <= 3


def test_the_state_of_a_trainer_is_read_without_its_summary(tmp_path: Path) -> None:
    history = [{"step": i + 1, "loss": float(v), "grad_norm": 1.0} for i, v in enumerate(losses(40))]
    history += [{"step": 40, "train_loss": 9.0, "train_runtime": 3.0}, {"step": 5, "loss": history[4]["loss"]}]
    for number, rows in ((2, history[:20]), (10, history)):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": rows, "global_step": 40}))
    result = judged(tmp_path)
    assert result.evidence["counts"]["n_items"] == 40
    assert result.evidence["repeated_steps"] == 1
    assert result.evidence["end"] < 2


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.jsonl", "", "no line with both `step` and `loss`"),
        ("a.jsonl", '{"step": 1, "loss": true}', "no line with both"),
        ("a.jsonl", "[1]", "a.jsonl:1: is no JSON object"),
        ("a.jsonl", "{", "a.jsonl:1: is no JSON"),
        ("a.jsonl", "\xff", "not UTF-8"),
        ("trainer_state.json", "{}", "holds no `log_history`"),
        ("trainer_state.json", "{", "not valid JSON"),
    ],
)
def test_a_file_that_is_no_log_is_an_error(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    result = judged(tmp_path / name)
    assert (result.verdict, result.score) == (Verdict.ERROR, 0.0)
    assert why in result.message


def test_a_directory_has_one_log(tmp_path: Path) -> None:
    assert "holds no training log" in judged(tmp_path).message
    assert "no such file" in judged(tmp_path / "nowhere").message
    jsonl(tmp_path, losses())
    assert judged(tmp_path).verdict is Verdict.PASS
    (tmp_path / "other.jsonl").write_text("{}")
    assert "holds 2 logs: log.jsonl, other.jsonl" in judged(tmp_path).message


def test_long_curves_are_drawn_with_few_points(tmp_path: Path) -> None:
    result = judged(jsonl(tmp_path, losses(3000)))
    assert len(result.evidence["curves"][0]["x"]) == 200


def test_it_runs_without_torch(tmp_path: Path) -> None:
    log = jsonl(tmp_path, losses())
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from dlm_sway.probes.base import RunContext, build_probe\n"
        f"probe, spec = build_probe({{'name': 'x', 'kind': 'training_drift', 'log': {str(log)!r}}})\n"
        "print(probe.run(spec, RunContext(backend=None)).verdict)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "pass", done.stderr


def test_the_same_run_gives_the_same_result(tmp_path: Path) -> None:
    log = jsonl(tmp_path, losses())
    assert judged(log).model_dump(exclude={"duration_s"}) == judged(log).model_dump(exclude={"duration_s"})
