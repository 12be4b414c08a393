"""What each kind of backend can do, read off its class: for `sway doctor` and the page about backends."""

from __future__ import annotations

from typing import Any, Final

from dlm_sway.backends.registry import CUSTOM, backend_class, backend_kinds

COLUMNS: Final = ("scales", "nulls", "divergences", "writes text", "keeps results")
_AS_WRITTEN: Final = "as its class does"


def capabilities(kind: str) -> dict[str, str]:
    """Return what a kind can do, by column; imports it.

    Raises:
        BadInputError: the kind is unknown.
        MissingExtraError: a package that it needs is not installed.
    """
    if kind == CUSTOM:
        return dict.fromkeys(COLUMNS, _AS_WRITTEN)
    cls = backend_class(kind)
    classes: tuple[type[Any], ...] = getattr(cls, "opens", (cls,))
    return {
        "scales": _offered(classes, "as_scaled_adapter"),
        "nulls": _offered(classes, "as_null_adapter"),
        "divergences": _divergences(classes),
        "writes text": "itself" if _has(classes, "write") else "by the engine",
        "keeps results": _offered(classes, "fingerprint"),
    }


def table() -> dict[str, dict[str, str]]:
    """Return the capabilities of every kind that this project ships, sorted."""
    own = [k for k in backend_kinds() if k == CUSTOM or backend_class(k).__module__.startswith("dlm_sway.")]
    return {kind: capabilities(kind) for kind in own}


def _divergences(classes: tuple[type[Any], ...]) -> str:
    if not _has(classes, "scalars"):
        return "exact"
    none = "; none where a server gives text alone" if _has(classes, "scores_refusal") else ""
    return f"lower bounds from the top of the vocabulary{none}"


def _has(classes: tuple[type[Any], ...], name: str) -> bool:
    return any(hasattr(cls, name) for cls in classes)


def _offered(classes: tuple[type[Any], ...], name: str) -> str:
    count = sum(hasattr(cls, name) for cls in classes)
    return "yes" if count == len(classes) else "with a LoRA on llama.cpp" if count else "no"
