"""One quick case of every slow proof, on the real model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.core.result import Verdict
from dlm_sway.demo.noise import write_noise
from dlm_sway.demo.run import demo_text
from dlm_sway.probes.base import RunContext, build_probe
from dlm_sway.suite.result import QUESTIONS, CheckResult

pytestmark = pytest.mark.real

# VmHWM starts anew with the program; ru_maxrss would carry over the peak of the process that runs the tests.
_MEASURED = """
import sys
from dlm_sway.cli.app import run
code = run(sys.argv[1:])
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0], file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def noise(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(model_dir, tmp_path_factory.mktemp("noise"), b_std=0.05)


def test_a_noise_adapter_is_sound_and_applied_but_learned_nothing_in_bounded_memory(
    model_dir: Path, noise: Path, tmp_path: Path
) -> None:
    data, report = tmp_path / "data.txt", tmp_path / "report.json"
    data.write_text("\n".join(demo_text("tidal-bell.txt").splitlines()[:12]), encoding="utf-8")
    command = [sys.executable, "-c", _MEASURED, "check", str(noise), "--base", str(model_dir), "--data", str(data)]
    options = ["--json", str(report), "--quick", "--device", "cpu", "--quiet"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    found = CheckResult.model_validate_json(report.read_text(encoding="utf-8"))
    assert tuple(json.loads(report.read_text(encoding="utf-8"))["questions"]) == QUESTIONS
    verdicts = {name: q.verdict for name, q in found.questions.items()}
    assert verdicts["sound"] is Verdict.PASS
    assert verdicts["applied"] is Verdict.PASS
    assert verdicts["learned"] is Verdict.FAIL
    assert verdicts["generalises"] is Verdict.SKIP
    weights = (model_dir / "model.safetensors").stat().st_size + (noise / "adapter_model.safetensors").stat().st_size
    peak = 1024 * int(done.stderr.strip().splitlines()[-1])
    print(f"peak {peak / 1e6:.0f} MB, bound {(1.35 * weights + 700e6) / 1e6:.0f} MB")
    assert peak <= 1.35 * weights + 700e6


def test_three_rank_multipliers_never_load_the_base_again(
    noise: Path,
    open_backend: Callable[[Path], AbstractContextManager[HuggingFaceDifferentialBackend]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import AutoModelForCausalLM

    def run(backend: HuggingFaceDifferentialBackend, multipliers: list[float]) -> float:
        raw = {"name": "null", "kind": "null_adapter", "runs": 2, "calibrate_kinds": ["delta_kl"], "cache": False}
        probe, spec = build_probe(raw | {"rank_multipliers": multipliers})
        began = time.perf_counter()
        result = probe.run(spec, RunContext(backend=backend))
        assert result.verdict is Verdict.PASS
        assert len(result.evidence["null_stats_by_rank"]) == len(multipliers)
        return time.perf_counter() - began

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("the base was loaded again")

    with open_backend(noise) as backend:
        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
        run(backend, [1.0])
        single, triple = run(backend, [1.0]), run(backend, [0.5, 1.0, 2.0])
    print(f"multi-rank ratio {triple / single:.2f} (three multipliers {triple:.2f} s, one {single:.2f} s)")
