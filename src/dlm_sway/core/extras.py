"""What to say when an optional package is not there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from typing import Final

from dlm_sway.core.errors import MissingExtraError

UPDATE: Final = "update sway from where you installed it (in a clone: git pull, then pip install -e '.[hf]')"
REINSTALL: Final = "install sway again from where you have it (in a clone: pip install -e '.[hf]')"
"""Neither names the distribution to a registry, which may hold another project of that name."""
_DISTRIBUTION: Final = "dlm-sway"
_REQUIREMENT: Final = re.compile(r"([\w.-]+)(\[[\w,.-]+\])?.*\bextra == ['\"]([\w.-]+)['\"]")
_PLATFORM: Final = re.compile(r"sys_platform == ['\"](\w+)['\"]")


@contextmanager
def needs_extra(what: str) -> Iterator[None]:
    """Turn the absence of a package inside the block into the command that installs it.

    Args:
        what: what needs it, as the message begins, such as `loading a model`.

    Raises:
        MissingExtraError: an import inside the block found no such package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if not name or name == "dlm_sway":
            raise  # a file of ours that is gone is a broken installation, and no extra mends it
        raise MissingExtraError(f"{what} needs {name}, which is not installed", remedy=install_command(name)) from error


def install_command(package: str) -> str:
    """Return the command that installs `package` and all else of the extra that it belongs to.

    It names the packages and not `dlm-sway[extra]`: a registry may hold another project of that name.
    """
    extras = _extras()
    extra = extras.get(_normal(package))
    wanted = [name for name, group in extras.items() if group == extra] if extra else [package]
    return f"pip install {' '.join(map(_spelled, wanted))}"


def packages_by_extra() -> dict[str, tuple[str, ...]]:
    """Return the packages of each extra, as the installed distribution declares them."""
    found: dict[str, tuple[str, ...]] = {}
    for package, extra in _extras().items():
        found[extra] = (*found.get(extra, ()), package)
    return found


@cache
def _extras() -> dict[str, str]:
    """Return the extra that holds each optional package, as the installed distribution declares them."""
    return {_normal(match[1]): match[3] for match in map(_REQUIREMENT.match, _declared()) if match}


def _spelled(package: str) -> str:
    """Return how a package is asked for on this platform: mlx computes on Linux only as `mlx[cpu]`."""
    for line in _declared():
        match, platform = _REQUIREMENT.match(line), _PLATFORM.search(line)
        fits = platform is None or platform[1] == sys.platform
        if match and match[2] and fits and _normal(match[1]) == package:
            return f"'{package}{match[2]}'"
    return package


def _declared() -> list[str]:
    try:
        return requires(_DISTRIBUTION) or []
    except PackageNotFoundError:
        return []


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
