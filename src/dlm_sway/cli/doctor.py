"""`sway doctor`: what works on this machine, and how to mend what does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


def doctor(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", envvar="SWAY_DOCTOR_JSON", show_envvar=False, help="Print JSON.")
    ] = False,
    hub: Annotated[
        bool, typer.Option("--hub/--no-hub", envvar="SWAY_DOCTOR_HUB", show_envvar=False, help="Ask the Hub, briefly.")
    ] = True,
) -> None:
    """Say which versions, devices, extras and backends are here, what would be slow, and what installs the rest."""
    from dlm_sway.report.json import dumps
    from dlm_sway.suite.health import health

    found = health(ask_hub=hub)
    if as_json:
        typer.echo(dumps(found), nl=False)
        return
    from dlm_sway.cli.console import stdout_console

    _print(found, stdout_console())


def _print(found: Mapping[str, Any], console: Console) -> None:
    from rich.text import Text

    from dlm_sway.report.text import clean

    for title, lines in _sections(found).items():
        console.print(Text(title, style="bold"))
        for line in lines:
            console.print(Text(f"  {clean(line)}"), soft_wrap=True)


def _sections(found: Mapping[str, Any]) -> dict[str, list[str]]:
    devices, cache, hub = found["devices"], found["cache"], found["hub"]
    return {
        "Versions": [", ".join(f"{name} {value}" for name, value in found["versions"].items())],
        "Machine": [f"{found['machine']['platform']}, {found['machine']['cores']} cores"],
        "Devices": [devices.get("why") or f"{', '.join(devices['found'])}; auto is {devices['auto']}"],
        "Backends": [f"{kind}: {_ready(state)}" for kind, state in found["backends"].items()],
        "Extras": [f"{name}: {_installed(state)}" for name, state in found["extras"].items()],
        "Cache": [f"{cache['path']}, {cache['results_bytes']:,} bytes of results, {_room(cache)}"],
        "Hub": [f"{ {True: 'reachable', False: 'not reachable', None: 'not asked'}[hub['reachable']] }: {hub['why']}"],
        "Slow": found["slow"] or ["nothing that sway knows of"],
    }


def _ready(state: Mapping[str, Any]) -> str:
    return "ready" if state["ready"] else f"needs {', '.join(state['needs'])}: {state['install']}"


def _installed(state: Mapping[str, Any]) -> str:
    return "installed" if state["installed"] else f"{', '.join(state['missing'])} missing: {state['install']}"


def _room(cache: Mapping[str, Any]) -> str:
    return f"{cache['free_bytes'] / 2**30:.0f} GiB free" if cache["writable"] else "not writable"
