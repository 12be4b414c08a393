"""docs/cli.md is what the commands' help says now, and every option can be set by the environment."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from dlm_sway.cli.app import app

_OF_TYPER = {"--help", "--version", "--install-completion", "--show-completion"}


def _commands(group: Any, name: str = "sway") -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def test_the_page_is_what_the_help_says(root: Path, pages: dict[str, str]) -> None:
    written = runpy.run_path(str(root / "docs" / "build.py"))["cli"]()
    assert pages["docs/cli.md"] == written, "run: python docs/build.py"


def test_every_command_and_option_has_its_place(pages: dict[str, str]) -> None:
    for name, command in _commands(typer.main.get_command(app)):
        section = pages["docs/cli.md"].partition(f"# `{name}`\n")[2].partition("\n#")[0]
        assert section, name
        for parameter in command.params:
            assert all(option in section for option in parameter.opts if option.startswith("--")), parameter.opts


def test_every_option_can_be_set_by_the_environment() -> None:
    for name, command in _commands(typer.main.get_command(app)):
        for parameter in command.params:
            if parameter.param_type_name != "option" or set(parameter.opts) & _OF_TYPER:
                continue
            assert str(parameter.envvar or "").startswith("SWAY_"), f"{name} {parameter.opts}"
