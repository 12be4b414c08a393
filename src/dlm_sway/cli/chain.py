"""`sway chain`: is what is merged, quantised and served still the adapter that was tested?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlm_sway.cli.options import Adapter, Base, Data, Device, JsonPath, Quiet, Seed, option, ready_to_write


def chain(
    adapter: Adapter,
    *,
    base: Base = None,
    merged: Annotated[
        Path | None,
        option("--merged", metavar="DIR", help="Directory of the merged model."),
    ] = None,
    gguf: Annotated[
        Path | None,
        option("--gguf", metavar="FILE", help="GGUF file of the merged model."),
    ] = None,
    endpoint: Annotated[
        str | None,
        option("--endpoint", metavar="URL", help="Address of the server, such as http://host:8080."),
    ] = None,
    model: Annotated[
        str | None,
        option("--model", metavar="NAME", help="The model's name on it."),
    ] = None,
    api_key_env: Annotated[
        str | None,
        option("--api-key-env", metavar="NAME", help="Environment variable that holds its key."),
    ] = None,
    data: Data = None,
    every: Annotated[
        bool,
        option("--all", help="Go on behind a broken link."),
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
    from dlm_sway.report.chain_terminal import print_chain
    from dlm_sway.report.json import dumps
    from dlm_sway.suite.result import exit_code_of

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
    raise typer.Exit(int(exit_code_of(result.verdict)))
