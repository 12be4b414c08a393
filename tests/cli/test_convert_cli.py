from __future__ import annotations

from pathlib import Path

import pytest
from tests.models import adapter_of, base_of

from dlm_sway.cli.app import run


def test_it_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.gguf"
    adapter = str(adapter_of("llama", "ranks"))
    assert run(["convert", adapter, "--to", "gguf", "-o", str(out), "--base", str(base_of("llama"))]) == 0
    assert capsys.readouterr().out == f"{out}: 14 modules, rank 4 to 7\n"
    assert out.read_bytes()[:4] == b"GGUF"
    assert run(["convert", str(out), "--to", "peft", "-o", str(tmp_path / "b"), "--base", str(base_of("llama"))]) == 0
    assert (tmp_path / "b" / "adapter_config.json").is_file()
    assert run(["convert", adapter, "--to", "mlx", "-o", str(tmp_path / "m"), "--base", str(base_of("llama"))]) == 0
    assert (tmp_path / "m" / "adapters.safetensors").is_file()


def test_a_fault_is_one_line_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", str(tmp_path / "absent"), "--to", "gguf", "-o", str(tmp_path / "a.gguf")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "no such directory" in err
