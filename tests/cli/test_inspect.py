from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file
from typer.testing import CliRunner

from dlm_sway.cli.inspect import inspect
from dlm_sway.core.errors import AdapterError, SwayError

app = typer.Typer()
app.command()(inspect)

WIDTH, RANK = 8, 2


def _modules(n_layers: int) -> list[str]:
    return [f"model.layers.{layer}.self_attn.{name}" for layer in range(n_layers) for name in ("q_proj", "v_proj")]


def _base(root: Path, *, n_layers: int = 2) -> Path:
    rng = np.random.default_rng(0)
    (root / "base").mkdir()
    weights = {f"{module}.weight": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32) for module in _modules(n_layers)}
    weights["model.embed_tokens.weight"] = np.ones((16, WIDTH), np.float32)
    save_file(weights, root / "base" / "model.safetensors")
    (root / "base" / "config.json").write_text('{"model_type": "llama", "tie_word_embeddings": false}')
    return root / "base"


def _adapter(root: Path, *, n_layers: int = 2, factor: dict[str, float] | None = None, **config: Any) -> Path:
    rng = np.random.default_rng(1)
    (root / "adapter").mkdir()
    tensors = {}
    for module in _modules(n_layers):
        size = (factor or {}).get(module, 1.0)
        tensors[f"base_model.model.{module}.lora_A.weight"] = rng.normal(size=(RANK, WIDTH)).astype(np.float32)
        b = rng.normal(size=(WIDTH, RANK)) * 0.01 * size
        tensors[f"base_model.model.{module}.lora_B.weight"] = b.astype(np.float32)
    save_file(tensors, root / "adapter" / "adapter_model.safetensors")
    facts = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": RANK,
        "base_model_name_or_path": "someone/base",
        "target_modules": ["q_proj", "v_proj"],
    }
    (root / "adapter" / "adapter_config.json").write_text(json.dumps(facts | config))
    return root / "adapter"


def _run(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_a_sound_adapter_ends_with_0_and_shows_each_module(tmp_path: Path) -> None:
    result = _run(_adapter(tmp_path), "--base", _base(tmp_path))
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert "PASS" in lines[0]
    assert "no fault found" in lines[0]
    for module in _modules(2):
        assert module in result.output
    header = next(line for line in lines if "eff. rank" in line)
    assert all(word in header for word in ("rank", "scale", "B", "W"))


def test_the_verdict_stands_first_and_each_fault_is_followed_by_its_remedy(tmp_path: Path) -> None:
    result = _run(_adapter(tmp_path, lora_alpha=600, base_model_name_or_path="x/y"), "--base", _base(tmp_path))
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert "FAIL" in lines[0]
    at = {code: next(n for n, line in enumerate(lines) if code in line) for code in ("scale_absurd", "base_mismatch")}
    assert at["scale_absurd"] < at["base_mismatch"]
    assert "lora_alpha" in lines[at["scale_absurd"] + 1]


def test_a_warning_ends_with_0(tmp_path: Path) -> None:
    result = _run(_adapter(tmp_path, base_model_name_or_path="x/y"), "--base", _base(tmp_path))
    assert result.exit_code == 0
    assert "WARN" in result.output.splitlines()[0]


def test_without_its_base_it_ends_with_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    result = _run(_adapter(tmp_path))
    assert result.exit_code == 4
    assert "hf download someone/base" in result.output


@pytest.mark.parametrize("make", ["missing", "file", "no adapter", "bad json", "truncated"])
def test_bad_input_is_an_error_of_exit_code_2(tmp_path: Path, make: str) -> None:
    adapter = _adapter(tmp_path)
    weights = adapter / "adapter_model.safetensors"
    if make == "missing":
        adapter = tmp_path / "nothing"
    elif make == "file":
        adapter = weights
    elif make == "no adapter":
        (adapter / "adapter_config.json").unlink()
    elif make == "bad json":
        (adapter / "adapter_config.json").write_text("{")
    else:
        weights.write_bytes(weights.read_bytes()[:50])
    result = _run(adapter)
    assert isinstance(result.exception, AdapterError)
    assert result.exception.exit_code == 2
    assert result.exception.remedy


def test_more_than_twenty_modules_are_summed_up_by_type_with_the_outliers(tmp_path: Path) -> None:
    odd = "model.layers.3.self_attn.v_proj"
    adapter = _adapter(tmp_path, n_layers=12, factor={odd: 30.0})
    result = _run(adapter, "--base", _base(tmp_path, n_layers=12))
    assert "model.layers.*.self_attn.q_proj (12)" in result.output
    assert "1 far from the others" in result.output
    assert odd in result.output
    assert "model.layers.4.self_attn.v_proj" not in result.output


def test_the_json_holds_everything_and_is_strict(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    adapter = _adapter(tmp_path)
    result = _run(adapter, "--base", _base(tmp_path), "--json", out)
    assert result.exit_code == 0

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(out.read_text(encoding="utf-8"), parse_constant=refuse)
    assert found["schema_version"] == 1
    assert found["verdict"] == "pass"
    assert found["adapter"] == str(adapter)
    assert found["faults"] == []
    assert len(found["modules"]) == 4
    assert {"rank", "scale", "norm_a", "norm_b", "norm_delta", "ratio", "spectral"} <= set(found["modules"][0])
    assert len(found["facts"]["sha256"]) == 64


def test_the_json_of_a_nan_adapter_is_strict_too(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = _run(
        _adapter(tmp_path, factor={"model.layers.0.self_attn.q_proj": float("nan")}),
        "--base",
        _base(tmp_path),
        "--json",
        out,
    )
    assert result.exit_code == 1
    found = json.loads(out.read_text())
    assert found["faults"][0]["code"] == "not_finite"
    assert "NaN" not in out.read_text().replace("16 NaN", "")


def test_a_place_that_cannot_be_written_is_bad_input_before_the_work(tmp_path: Path) -> None:
    result = _run(_adapter(tmp_path), "--base", _base(tmp_path), "--json", tmp_path / "no" / "out.json")
    assert isinstance(result.exception, SwayError)
    assert result.output == ""


def test_text_from_files_cannot_move_the_cursor_or_use_markup(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path, base_model_name_or_path="evil\x1b[2J\x1b]0;title\x07[bold]base")
    result = _run(adapter, "--base", _base(tmp_path))
    assert "\x1b" not in result.output
    assert "\x07" not in result.output
    assert "[bold]base" in result.output


def test_a_lone_surrogate_in_a_name_neither_breaks_the_report_nor_the_json(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    adapter = _adapter(tmp_path, base_model_name_or_path="bad\ud800name")
    result = _run(adapter, "--base", _base(tmp_path), "--json", out)
    assert result.exit_code == 0
    assert json.loads(out.read_text(encoding="utf-8"))["verdict"] == "warn"


def test_the_command_imports_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys, typer\n"
        "from dlm_sway.cli.inspect import inspect\n"
        "app = typer.Typer(); app.command()(inspect)\n"
        "try:\n"
        "    app(sys.argv[1:])\n"
        "finally:\n"
        "    print(*(name for name in ('torch', 'transformers', 'peft') if name in sys.modules), file=sys.stderr)\n"
    )
    args = [sys.executable, "-c", program, str(_adapter(tmp_path)), "--base", str(_base(tmp_path))]
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""
