"""`sway chain`: is what is merged, quantised and served still the adapter that was tested?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlm_sway.cli.options import Adapter, Base, Data, Device, JsonPath, Quiet, Seed, ready_to_write
from dlm_sway.core.errors import ExitCode


def chain(
    adapter: Adapter,
    *,
    base: Base = None,
    merged: Annotated[
        Path | None,
        typer.Option(
            "--merged",
            metavar="DIR",
            envvar="SWAY_MERGED",
            show_envvar=False,
            help="Directory of the merged model.",
        ),
    ] = None,
    gguf: Annotated[
        Path | None,
        typer.Option(
            "--gguf",
            metavar="FILE",
            envvar="SWAY_GGUF",
            show_envvar=False,
            help="GGUF file of the merged model.",
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="URL",
            envvar="SWAY_ENDPOINT",
            show_envvar=False,
            help="Address of the server, such as http://host:8080.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            envvar="SWAY_MODEL",
            show_envvar=False,
            help="The model's name on it.",
        ),
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            "--api-key-env",
            metavar="NAME",
            envvar="SWAY_API_KEY_ENV",
            show_envvar=False,
            help="Environment variable that holds its key.",
        ),
    ] = None,
    data: Data = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            envvar="SWAY_ALL",
            show_envvar=False,
            help="Go on behind a broken link.",
        ),
    ] = False,
    json_path: JsonPath = None,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Walk from the trained adapter to the server and name the first link that broke, and why.

    Each link is compared by its files, by the tokens that it makes, and by
    log-probs: is at least 0.9 of the adapter's effect left?
    """
    json_path = ready_to_write(json_path)
    from dlm_sway.chain.walk import ChainRequest, walk
    from dlm_sway.cli.console import stdout_console
    from dlm_sway.cli.deliver import deliver
    from dlm_sway.cli.faults import ctrl_c_explained, pass_on_warnings
    from dlm_sway.cli.progress import show_progress
    from dlm_sway.core.result import Verdict
    from dlm_sway.report.chain_terminal import print_chain
    from dlm_sway.report.json import dumps

    request = ChainRequest(
        adapter=adapter.expanduser(),
        base=base,
        merged=None if merged is None else merged.expanduser(),
        gguf=None if gguf is None else gguf.expanduser(),
        endpoint=endpoint,
        model=model,
        api_key_env=api_key_env,
        data=None if data is None else data.expanduser(),
        every=every,
        device=device,
        seed=seed,
    )
    pass_on_warnings()
    with ctrl_c_explained(), show_progress(quiet=quiet) as progress:
        result = walk(request, progress=progress)
    deliver(json_path, lambda: dumps(result.model_dump()), lambda: print_chain(result, stdout_console()))
    codes = {
        Verdict.PASS: ExitCode.PASS,
        Verdict.WARN: ExitCode.PASS,
        Verdict.FAIL: ExitCode.FAIL,
        Verdict.ERROR: ExitCode.ERROR,
    }
    raise typer.Exit(int(codes.get(result.verdict, ExitCode.INCONCLUSIVE)))
