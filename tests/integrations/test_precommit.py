"""The hooks, started as pre-commit starts them: in the root of a repository, with its files as words."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from dlm_sway.core.result import SuiteResult

ROOT = Path(__file__).parents[2]
HOOKS: dict[str, dict[str, Any]] = {
    hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
}
Hook = Callable[..., "subprocess.CompletedProcess[str]"]


def _write_adapter(folder: Path, *, nan: bool = False, config: bool = True) -> list[str]:
    folder.mkdir(parents=True)
    module, rng = "base_model.model.model.layers.0.self_attn.q_proj", np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype("f4") * 0.1 for shape in ((4, 16), (16, 4)))
    if nan:
        b[3, 1] = np.nan
    save_file({f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    if config:
        (folder / "adapter_config.json").write_text(json.dumps(said))
    return [str(path.relative_to(folder.parent)) for path in sorted(folder.iterdir())]


@pytest.fixture
def hook(tmp_path: Path) -> Hook:
    """Return what starts a hook where importing torch ends the program."""
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    (tmp_path / "repo").mkdir()

    def start(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        program, *rest = shlex.split(HOOKS[name]["entry"])
        place = {"python": sys.executable}.get(program, str(Path(sys.executable).with_name(program)))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SWAY_")}
        return subprocess.run(
            [place, *rest, *words],
            cwd=tmp_path / "repo",
            env={**environment, "PYTHONPATH": str(trap), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return start


def test_each_hook_says_what_pre_commit_needs() -> None:
    assert set(HOOKS) == {"sway-inspect", "sway-gate"}
    assert all({"id", "name", "entry", "language"} <= set(hook) for hook in HOOKS.values())


def test_inspect_is_started_by_the_files_that_peft_saves_and_by_no_others() -> None:
    wanted = re.compile(HOOKS["sway-inspect"]["files"])
    saved = ("out/adapter_config.json", "adapter_model.safetensors", "a/b/adapter_model.bin")
    assert all(wanted.search(name) for name in saved)
    assert not any(wanted.search(name) for name in ("out/model.safetensors", "config.json", "my_adapter_config.json"))


def test_a_sound_adapter_is_committed_once_inspected_without_torch(tmp_path: Path, hook: Hook) -> None:
    files = _write_adapter(tmp_path / "repo" / "good")
    found = hook("sway-inspect", *files)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count("good:") == 1


def test_a_broken_adapter_stops_the_commit_and_the_sound_one_beside_it_changes_nothing(
    tmp_path: Path, hook: Hook
) -> None:
    files = _write_adapter(tmp_path / "repo" / "bad", nan=True) + _write_adapter(tmp_path / "repo" / "good")
    found = hook("sway-inspect", *files)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "NaN" in found.stdout or "finite" in found.stdout


def test_without_its_base_an_adapter_is_undecided_which_strict_makes_a_fault(tmp_path: Path, hook: Hook) -> None:
    files = _write_adapter(tmp_path / "repo" / "good")
    assert hook("sway-inspect", "--strict", *files).returncode == 4


def test_weights_without_their_config_stop_the_commit(tmp_path: Path, hook: Hook) -> None:
    files = _write_adapter(tmp_path / "repo" / "half", config=False)
    found = hook("sway-inspect", *files)
    assert found.returncode == 2
    assert "commit the two together" in found.stdout


def test_a_name_that_is_not_there_does_not_pass(hook: Hook) -> None:
    assert hook("sway-inspect", "gone/adapter_config.json").returncode == 2


def test_the_gate_judges_a_result_and_says_what_broke_it(
    tmp_path: Path, hook: Hook, result: SuiteResult, noise_result: SuiteResult
) -> None:
    for name, found in (("good", result), ("noise", noise_result)):
        (tmp_path / "repo" / f"{name}.json").write_text(found.model_dump_json())
    assert hook("sway-gate", "good.json").returncode == 0
    closed = hook("sway-gate", "noise.json")
    assert closed.returncode == 1
    assert "learned" in closed.stdout


def test_the_gate_looks_for_the_suite_that_its_words_name(hook: Hook) -> None:
    found = hook("sway-gate", *HOOKS["sway-gate"]["args"])
    assert found.returncode == 2
    assert "sway.yaml" in found.stderr
