from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import typer

from dlm_sway.cli.app import app, run

_HEAVY = {"torch", "transformers", "peft", "scipy", "numpy", "safetensors", "yaml", "jsonschema"}
_GROUP = typer.main.get_command(app)


def test_the_help_of_no_command_loads_anything_heavy() -> None:
    names = list(_GROUP.commands)  # type: ignore[attr-defined]
    script = (
        f"import sys, json\nfrom dlm_sway.cli.app import run\n[run([name, '--help']) for name in {names!r}]\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stderr)) & _HEAVY


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete(shell: str) -> None:
    words = {"COMP_WORDS": "sway ga", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "sway ga"}
    environment = {
        **os.environ,
        **words,
        "_SWAY_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    script = "from dlm_sway.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gate" in done.stdout
    assert "check" not in done.stdout


def test_the_help_names_the_exit_codes_of_what_decides(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("check", "run", "gate"):
        assert run([command, "--help"]) == 0
        assert "Exit codes: 0 pass, 1 fail" in capsys.readouterr().out
