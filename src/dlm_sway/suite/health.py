"""What of sway works on this machine, what would be slow, and the command that mends what does not."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from dlm_sway.backends.registry import backend_class, backend_kinds
from dlm_sway.core.errors import SwayError
from dlm_sway.core.extras import install_command, packages_by_extra
from dlm_sway.core.paths import cache_dir, results_dir

_BACKENDS: Final = {
    "hf": ("torch", "transformers", "peft"),
    "mlx": ("mlx", "mlx-lm", "torch"),
    "vllm": ("vllm",),
    "api": ("httpx", "tenacity"),
}
"""What a kind of backend imports only when it is opened; what others need is found by importing them."""
_FOR_DEVELOPERS: Final = frozenset({"dev"})
_TIMEOUT_S: Final = 2.0
_LITTLE_DISK: Final = 2**30
_YES: Final = frozenset({"1", "true", "yes", "on"})


def health(*, ask_hub: bool = True) -> dict[str, Any]:
    """Return versions, devices, extras, backends, cache, the Hub's answer, and what would be slow; JSON values."""
    devices = _devices()
    cache = _cache()
    return {
        "versions": _versions(),
        "machine": {"platform": f"{platform.system()} {platform.machine()}", "cores": _cores()},
        "devices": devices,
        "backends": {kind: _backend(kind) for kind in backend_kinds()},
        "extras": {name: _extra(packages) for name, packages in _extras_for_users().items()},
        "cache": cache,
        "hub": _hub(ask=ask_hub),
        "slow": _slow(devices, cache),
    }


def _versions() -> dict[str, str]:
    found = {"dlm-sway": _version("dlm-sway") or "not installed", "python": platform.python_version()}
    return found | {name: v for name in ("torch", "transformers", "peft", "numpy", "scipy") if (v := _version(name))}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    try:
        import torch
    except ImportError as e:
        return {"found": [], "auto": None, "why": f"torch is not installed: {install_command(e.name or 'torch')}"}
    found = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    auto = "cuda" if torch.cuda.is_available() else "mps" if "mps" in found else "cpu"
    return {"found": [*found, "cpu"], "auto": auto, "threads": torch.get_num_threads()}


def _backend(kind: str) -> dict[str, Any]:
    missing = [name for name in _BACKENDS.get(kind, ()) if _version(name) is None]
    if not missing:
        try:
            backend_class(kind)
        except ImportError as e:
            missing = [(e.name or kind).partition(".")[0]]
        except SwayError as e:
            return {"ready": False, "needs": [e.what], "install": e.remedy}
    return {"ready": not missing, "needs": missing, "install": install_command(missing[0]) if missing else None}


def _extras_for_users() -> dict[str, tuple[str, ...]]:
    return {name: packages for name, packages in packages_by_extra().items() if name not in _FOR_DEVELOPERS}


def _extra(packages: tuple[str, ...]) -> dict[str, Any]:
    missing = [name for name in packages if _version(name) is None]
    return {"installed": not missing, "missing": missing, "install": install_command(missing[0]) if missing else None}


def _cache() -> dict[str, Any]:
    folder = cache_dir()
    there = next((p for p in (folder, *folder.parents) if p.exists()), Path("/"))
    size = (
        sum(file.stat().st_size for file in results_dir().glob("*") if file.is_file()) if results_dir().is_dir() else 0
    )
    return {
        "path": str(folder),
        "writable": os.access(there, os.W_OK),
        "results_bytes": size,
        "free_bytes": shutil.disk_usage(there).free,
    }


def _hub(*, ask: bool) -> dict[str, Any]:
    """Return whether the Hub answers, asked once and briefly; never where the user wants to be offline."""
    offline = next(
        (n for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(n, "").lower() in _YES), None
    )
    if offline or not ask:
        return {"reachable": None, "why": f"{offline} is set" if offline else "not asked"}
    try:
        from huggingface_hub.constants import ENDPOINT
    except ImportError:
        return {"reachable": None, "why": f"huggingface-hub is not installed: {install_command('huggingface-hub')}"}
    if not str(ENDPOINT).startswith(("https://", "http://")):
        return {"reachable": None, "why": "its address is no web address"}
    try:
        with urlopen(Request(ENDPOINT, method="HEAD"), timeout=_TIMEOUT_S):  # noqa: S310 (the scheme was looked at)
            return {"reachable": True, "why": "it answers"}
    except HTTPError as e:
        return {"reachable": True, "why": f"it answers with status {e.code}"}
    except (OSError, ValueError) as e:
        return {"reachable": False, "why": f"no answer in {_TIMEOUT_S:.0f} s: {getattr(e, 'reason', e)}"}


def _slow(devices: dict[str, Any], cache: dict[str, Any]) -> list[str]:
    found: list[str] = []
    if devices["auto"] == "cpu":
        found.append("no GPU that torch can use: models beyond about a billion parameters take minutes a probe")
        if shutil.which("nvidia-smi"):
            found.append("a NVIDIA driver is here, and this torch does not use it: install a build of torch with CUDA")
    threads, cores = devices.get("threads"), _cores()
    if threads is not None and threads * 2 <= cores and devices["auto"] == "cpu":
        found.append(f"torch has {threads} threads on {cores} cores: see OMP_NUM_THREADS")
    if not cache["writable"]:
        found.append(f"nothing can be kept in {cache['path']}: a run that is stopped begins anew")
    elif cache["free_bytes"] < _LITTLE_DISK:
        found.append("less than 1 GiB is free where results are kept")
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
