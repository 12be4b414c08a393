"""`sway chain`: is what is merged, quantised and served still the adapter that was tested?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from dlm_sway.cli.options import (
    Adapter,
    Base,
    Data,
    Device,
    HtmlPath,
    JsonPath,
    JunitPath,
    MarkdownPath,
    Quiet,
    Seed,
    given,
    option,
)
from dlm_sway.cli.outputs import places
from dlm_sway.core.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlm_sway.chain.given import ChainRequest

Merged: TypeAlias = Annotated[Path | None, option("--merged", metavar="DIR", help="Directory of the merged model.")]
Gguf: TypeAlias = Annotated[Path | None, option("--gguf", metavar="FILE", help="GGUF file of the merged model.")]
Endpoint: TypeAlias = Annotated[
    str | None, option("--endpoint", metavar="URL", help="Address of the server, such as http://host:8080.")
]
Name: TypeAlias = Annotated[str | None, option("--model", metavar="NAME", help="The model's name on it.")]
Key: TypeAlias = Annotated[
    str | None, option("--api-key-env", metavar="NAME", help="Environment variable that holds its key.")
]
Timeout: TypeAlias = Annotated[
    float, option("--timeout", metavar="SECONDS", min=0.1, help="Longest wait for an answer of the server.")
]
_OF_SERVER: Final = ("model", "api_key_env")
Every: TypeAlias = Annotated[bool, option("--all", help="Go on behind a broken link.")]


def chain(
    ctx: typer.Context,
    adapter: Adapter,
    *,
    base: Base = None,
    merged: Merged = None,
    gguf: Gguf = None,
    endpoint: Endpoint = None,
    model: Name = None,
    api_key_env: Key = None,
    timeout: Timeout = 60.0,
    data: Data = None,
    every: Every = False,
    json_path: JsonPath = None,
    markdown: MarkdownPath = None,
    html: HtmlPath = None,
    junit: JunitPath = None,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Walk from the trained adapter to the server and name the first link that broke, and why.

    Each link is compared by its files, by the tokens that it makes, by
    log-probs (is at least 0.9 of the adapter's effect left?) and by how
    probable it is to stop where an answer of the data ends.
    """
    endpoint = endpoint or None  # an empty variable of the environment names no server
    if endpoint is None and (names := given(ctx, _OF_SERVER)):
        what = f"{', '.join(names)} says how to ask a server, and none is named"
        raise BadInputError(what, remedy="name it with --endpoint")
    if not (merged or gguf or endpoint):
        what = "there is no link to compare the adapter with"
        raise BadInputError(what, remedy="name one with --merged, --gguf or --endpoint")
    files = {"json": json_path, "markdown": markdown, "html": html, "junit": junit}
    wanted = places(reads=[data, gguf, merged, base], adapters=[adapter], **files)
    from dlm_sway.chain.given import ChainRequest

    request = ChainRequest(
        adapter=adapter.expanduser(),
        base=base,
        merged=_expanded(merged),
        gguf=_expanded(gguf),
        endpoint=endpoint,
        model=model,
        api_key_env=api_key_env,
        data=_expanded(data),
        every=every,
        device=device,
        seed=seed,
        timeout_s=timeout,
    )
    _walk(request, wanted, quiet=quiet)


def _walk(request: ChainRequest, files: Mapping[str, Path], *, quiet: bool) -> None:
    """Walk, write each report that has a path, print it and end with the verdict's exit code."""
    from dlm_sway.chain.walk import walk
    from dlm_sway.cli.deliver import deliver_reports
    from dlm_sway.cli.faults import ctrl_c_explained, pass_on_warnings
    from dlm_sway.cli.progress import show_progress
    from dlm_sway.report.chain_terminal import print_chain
    from dlm_sway.suite.result import exit_code_of

    pass_on_warnings()
    with ctrl_c_explained(), show_progress(quiet=quiet) as progress:
        result = walk(request, progress=progress)
    deliver_reports(result, files, lambda console: print_chain(result, console))
    raise typer.Exit(int(exit_code_of(result.verdict)))


def _expanded(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser()
