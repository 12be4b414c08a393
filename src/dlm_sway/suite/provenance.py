"""What a result came from: enough to run it again and to tell two runs apart."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm_sway.data.control import corpus_hash
from dlm_sway.probes.base import Env
from dlm_sway.suite.request import Request

if TYPE_CHECKING:
    from dlm_sway.probes.drive import Driven

_PACKAGES = ("dlm-sway", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "scipy")
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def provenance(
    request: Request, *, model: Mapping[str, Any], driven: Driven | None, facts: Mapping[str, str]
) -> dict[str, Any]:
    """Return versions, hashes, seed and options, device and dtype, and the numeric floor.

    Args:
        request: the check.
        model: what is known of the base.
        driven: what the probes found, None where no model was asked.
        facts: device and dtype.
    """
    as_always = Env(seed=request.seed)
    return {
        **machine(),
        "model": dict(model),
        "adapter_sha256": adapter_hashes(request.adapter),
        "data_sha256": sha256_of(request.data),
        "held_out_sha256": sha256_of(request.held_out),
        "control_corpus_sha256": corpus_hash(),
        "seed": request.seed,
        "alpha": as_always.alpha,
        "format": as_always.format,
        "n_draws": request.n_draws,
        "quick": request.quick,
        **how_computed(driven),
        **facts,
    }


def machine() -> dict[str, Any]:
    """Return the versions of what computes, and the platform."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": f"{platform.system()} {platform.machine()}",
    }


def adapter_hashes(adapter: Path) -> dict[str, str | None]:
    """Return the SHA-256 of the adapter's files, None for one that is not there."""
    return {name: sha256_of(adapter / name) for name in _ADAPTER_FILES}


def how_computed(driven: Driven | None) -> dict[str, Any]:
    """Return the path of the engine and the numeric floor N0, None where no model was asked."""
    if driven is None:
        return {"engine": None, "numeric_floor": None}
    if driven.floor is None:
        return {"engine": driven.engine.path, "numeric_floor": None}
    floor = {
        "median_kl": driven.floor.median_kl,
        "max_kl": driven.floor.max_kl,
        "max_logprob": driven.floor.max_logprob,
        "against_fp32": None if driven.floor.rounding is None else asdict(driven.floor.rounding),
    }
    return {"engine": driven.engine.path, "numeric_floor": floor}


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def sha256_of(path: Path | None) -> str | None:
    """Return the SHA-256 of a file, or None where there is none."""
    if path is None or not path.is_file():
        return None
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
