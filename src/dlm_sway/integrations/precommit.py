"""pre-commit hook `sway-inspect`: the adapters among the files of a commit, inspected without torch.

pre-commit hands over file names, `sway inspect` takes a directory; so this finds the directories, each once.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from dlm_sway.core.errors import AdapterError, ExitCode, SwayError
from dlm_sway.core.result import Verdict
from dlm_sway.report.text import clean

_CONFIG: Final = "adapter_config.json"
_WIDTH: Final = 120
_WORST_FIRST: Final = (ExitCode.ERROR, ExitCode.USAGE, ExitCode.FAIL, ExitCode.INCONCLUSIVE)


def adapters_of(files: Iterable[Path]) -> tuple[Path, ...]:
    """Return the adapter directories that files lie in, each once, in the order met."""
    return tuple(dict.fromkeys(file.parent for file in files))


def inspect_all(folders: Iterable[Path], base: str | None, *, strict: bool, console: Console) -> ExitCode:
    """Print what is wrong with adapters, and return the exit code that a commit should see.

    Args:
        folders: adapter directories.
        base: directory or Hub id of the base; the one that each adapter records when None.
        strict: whether an adapter fails that shows no fault, but whose base is not here to compare it with.
        console: where to print.
    """
    codes = {_inspected(folder, base, strict=strict, console=console) for folder in folders}
    return next((code for code in _WORST_FIRST if code in codes), ExitCode.PASS)


def _inspected(folder: Path, base: str | None, *, strict: bool, console: Console) -> ExitCode:
    from dlm_sway.adapters.checks import inspect_adapter
    from dlm_sway.report.inspect_terminal import print_inspection

    try:
        if folder.is_dir() and not (folder / _CONFIG).is_file():
            raise AdapterError(f"has weights and no {_CONFIG}", where=folder, remedy="commit the two together")
        found = inspect_adapter(folder, base)
    except SwayError as fault:
        console.print(f"sway: {clean(fault.one_line())}", soft_wrap=True)
        return fault.exit_code
    if found.verdict in (Verdict.PASS, Verdict.WARN) or (found.verdict == Verdict.INCONCLUSIVE and not strict):
        console.print(f"{clean(folder)}: {clean(found.summary)}", soft_wrap=True)
        return ExitCode.PASS
    print_inspection(found, console)
    return ExitCode.FAIL if found.verdict == Verdict.FAIL else ExitCode.INCONCLUSIVE


def main(words: Sequence[str] | None = None) -> int:
    """Inspect the adapters that the files of a commit belong to."""
    parser = ArgumentParser(prog="sway-inspect", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--base", help="directory or Hub id of the base; default: as each adapter records it")
    parser.add_argument("--strict", action="store_true", help="fail also where the base is not here to compare with")
    parser.add_argument("files", nargs="*", type=Path, help="files of adapters, as pre-commit names them")
    given = parser.parse_args(words)
    console = Console(markup=False, emoji=False, highlight=False)
    console.width = max(console.width, _WIDTH)
    return int(inspect_all(adapters_of(given.files), given.base, strict=given.strict, console=console))


if __name__ == "__main__":
    sys.exit(main())
