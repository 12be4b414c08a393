"""sway: did the fine-tune do what was meant, and nothing else?

The few names that a notebook needs. Each is imported when it is first used, so `import dlm_sway` is instant and
needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dlm_sway.adapters.checks import inspect_adapter
    from dlm_sway.core.model import ModelSpec
    from dlm_sway.core.result import SuiteResult, Verdict
    from dlm_sway.suite.check import check
    from dlm_sway.suite.compare import compare
    from dlm_sway.suite.loader import load_spec
    from dlm_sway.suite.result import CheckResult
    from dlm_sway.suite.run import run

    __version__: str

__all__ = [
    "CheckResult",
    "ModelSpec",
    "SuiteResult",
    "Verdict",
    "__version__",
    "check",
    "compare",
    "inspect_adapter",
    "load_spec",
    "run",
]

_HOME: Final = {
    "CheckResult": "dlm_sway.suite.result",
    "ModelSpec": "dlm_sway.core.model",
    "SuiteResult": "dlm_sway.core.result",
    "Verdict": "dlm_sway.core.result",
    "check": "dlm_sway.suite.check",
    "compare": "dlm_sway.suite.compare",
    "inspect_adapter": "dlm_sway.adapters.checks",
    "load_spec": "dlm_sway.suite.loader",
    "run": "dlm_sway.suite.run",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("dlm-sway")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
