"""What the pages say exists: links, commands, options, make targets, tests, files and imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from dlm_sway.cli.app import app

Code = list[tuple[str, str]]
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"^sway ([a-z][a-z-]*)(.*)$")


@pytest.fixture(scope="module")
def commands() -> dict[str, set[str]]:
    """The options of every command, as `sway --help` has them."""
    group: Any = typer.main.get_command(app)
    return {name: {o for p in found.params for o in p.opts} | {"--help"} for name, found in group.commands.items()}


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_file_and_a_heading_that_exist(root: Path, pages: dict[str, str]) -> None:
    broken: list[str] = []
    for page, text in pages.items():
        for link in _LINK.findall(text):
            target, _, anchor = link.partition("#")
            if target.startswith(("http://", "https://", "mailto:")):
                continue
            path = (root / page).parent / target if target else root / page
            if not path.exists() or (anchor and anchor not in _anchors(path.read_text(encoding="utf-8"))):
                broken.append(f"{page}: {link}")
    assert broken == []


def test_every_page_under_docs_can_be_reached_from_the_readme(root: Path, pages: dict[str, str]) -> None:
    seen: set[str] = set()
    ahead = ["README.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        linked = [((root / page).parent / x.partition("#")[0]).resolve() for x in _LINK.findall(pages[page])]
        names = [str(path.relative_to(root)) for path in linked if path.is_relative_to(root)]
        ahead += [name for name in names if name in pages and name not in seen]
    assert {page for page in pages if page.startswith("docs")} <= seen


def test_every_command_and_option_in_the_pages_exists(code: Code, commands: dict[str, set[str]]) -> None:
    unknown: list[str] = []
    for page, piece in code:
        if (match := _COMMAND.match(piece)) is None:
            continue
        options = set(re.findall(r"(?<!\S)--[a-z-]+", match[2]))
        unknown += [f"{page}: {piece}"] if match[1] not in commands or not options <= commands[match[1]] else []
    assert unknown == []


def test_every_option_in_the_readme_exists(code: Code, commands: dict[str, set[str]]) -> None:
    every = set().union(*commands.values())
    named = {piece.split()[0] for page, piece in code if page == "README.md" and piece.startswith("--")}
    assert named
    assert named <= every


def test_the_readme_names_every_command(pages: dict[str, str], commands: dict[str, set[str]]) -> None:
    assert [name for name in commands if f"`sway {name}" not in pages["README.md"]] == []


def test_every_make_target_in_the_pages_exists(root: Path, code: Code) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {match[1] for _, piece in code if (match := re.match(r"make ([a-z-]+)", piece))}
    assert named
    assert named <= targets


def test_every_test_that_a_page_names_exists(root: Path, code: Code) -> None:
    defined = {name for path in (root / "tests").rglob("test_*.py") for name in _defined(path)}
    named = {piece for _, piece in code if re.fullmatch(r"test_\w+", piece)}
    assert named
    assert named <= defined


def test_every_source_file_that_a_page_names_exists(root: Path, code: Code) -> None:
    bases = (root, root / "src" / "dlm_sway")
    named = {(page, piece) for page, piece in code if re.fullmatch(r"[\w/]+/\w+\.py", piece)}
    assert [f"{page}: {name}" for page, name in named if not any((base / name).is_file() for base in bases)] == []


def test_every_name_that_an_example_imports_exists(
    root: Path, pages: dict[str, str], blocks: Callable[[str, str], list[str]]
) -> None:
    # By reading, not by importing: what runs a model would load torch.
    missing: list[str] = []
    for page in pages:
        for node in (n for block in blocks(page, "python") for n in ast.walk(ast.parse(block))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dlm_sway."):
                path = (root / "src" / (node.module or "").replace(".", "/")).with_suffix(".py")
                known = _defined(path) if path.is_file() else set()
                missing += [f"{page}: {node.module}.{a.name}" for a in node.names if a.name not in known]
    assert missing == []


def _defined(path: Path) -> set[str]:
    """Return the names that a module binds at its top level."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.ImportFrom(names=names):
                found |= {alias.asname or alias.name for alias in names}
            case ast.Assign(targets=targets):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found
