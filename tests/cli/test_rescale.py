from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dlm_sway.cli.app import run
from dlm_sway.core.errors import ExitCode


@pytest.fixture
def small(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 16}))
    owner = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {
        f"{owner}.lora_A.weight": np.ones((2, 4), np.float32),
        f"{owner}.lora_B.weight": np.ones((4, 2), np.float32),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    return folder


def test_it_writes_the_adapter_and_says_how_to_check_it(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = small.parent / "half of it"
    assert run(["rescale", str(small), "--lam", "0.5", "-o", str(out)]) == ExitCode.PASS
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"wrote {out}: 0.5 times the effect (lora_alpha 16 -> 8)",
        f"check it with: sway check '{out}'",
    ]
    assert run(["rescale", str(out), "--lam", "0.5", "-o", str(out.with_name("q"))]) == ExitCode.PASS
    assert "was rescaled before: this is 0.25 times the effect as trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lam", "message"), [("0", "at 0 nothing"), ("-1", "positive"), ("nan", "positive"), ("much", "valid number")]
)
def test_a_bad_scale_is_a_usage_error(small: Path, capsys: pytest.CaptureFixture[str], lam: str, message: str) -> None:
    assert run(["rescale", str(small), "--lam", lam, "-o", str(small.parent / "x")]) == ExitCode.USAGE
    assert message in capsys.readouterr().err
    assert not (small.parent / "x").exists()


def test_an_adapter_that_is_not_there_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rescale", str(tmp_path / "no"), "--lam", "0.5", "-o", str(tmp_path / "x")]) == ExitCode.USAGE
    assert "no such directory" in capsys.readouterr().err


def test_another_adapter_needs_force(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["rescale", str(small), "--lam", "0.5", "-o", str(small.parent / "x")]
    assert run(args) == ExitCode.PASS
    assert run(args) == ExitCode.USAGE
    assert "give --force to replace it" in capsys.readouterr().err
    assert run([*args, "--force"]) == ExitCode.PASS


@pytest.mark.parametrize("lam", ["1e308", "1e-323"])
def test_a_scale_beyond_all_numbers_is_a_usage_error(small: Path, capsys: pytest.CaptureFixture[str], lam: str) -> None:
    config = small / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 16 if lam == "1e308" else 0.01}))
    assert run(["rescale", str(small), "--lam", lam, "-o", str(small.parent / "x")]) == ExitCode.USAGE
    assert "for a number; use one nearer to 1" in capsys.readouterr().err
    assert not (small.parent / "x").exists()
