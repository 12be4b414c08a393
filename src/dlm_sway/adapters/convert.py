"""From one format of a LoRA adapter to another: PEFT's directory, and llama.cpp's GGUF file."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from dlm_sway.adapters.base_location import locate_base
from dlm_sway.adapters.config import CONFIG_NAME, load_config
from dlm_sway.adapters.gguf_lora import read_gguf_lora, write_gguf_lora
from dlm_sway.adapters.gguf_names import GgufNames, names_of
from dlm_sway.adapters.lora import Lora, read_peft_lora
from dlm_sway.adapters.naming import PREFIX
from dlm_sway.core.errors import AdapterError, BadInputError

To: TypeAlias = Literal["gguf", "peft"]
WEIGHTS: Final = "adapter_model.safetensors"


def convert(adapter: Path, *, to: To, out: Path, base: str | None = None) -> Lora:
    """Write `adapter` in another format and return its factors.

    Args:
        adapter: a PEFT directory, or a GGUF LoRA file.
        to: `gguf` writes a file, `peft` a directory.
        out: what to write; must not exist.
        base: directory or Hub id of the base; by default what the adapter records.

    Raises:
        BadInputError: an input cannot be used, the formats are the same, or `out` exists.
    """
    if out.exists():
        raise BadInputError("is there already", where=out, remedy="name another path, or remove it")
    if not out.parent.is_dir():
        raise BadInputError(f"cannot be written, since {out.parent} is no directory that exists", where=out)
    is_file = adapter.is_file()
    if is_file == (to == "gguf"):
        what = "is a GGUF file already" if is_file else "is a PEFT directory already"
        raise BadInputError(what, where=adapter, remedy=f"give --to {'peft' if is_file else 'gguf'}")
    return _to_peft(adapter, out, base) if is_file else _to_gguf(adapter, out, base)


def _to_gguf(adapter: Path, out: Path, base: str | None) -> Lora:
    lora, config = read_peft_lora(adapter)
    names = base_names(base or config.base_model_name_or_path, revision=config.revision, recorded=base is None)
    with _written(out) as part:
        write_gguf_lora(lora, names, part, alpha=config.lora_alpha or 1.0, name=adapter.name)
    return lora


def _to_peft(adapter: Path, out: Path, base: str | None) -> Lora:
    if base is None:
        raise BadInputError("a GGUF adapter does not record its base", where=adapter, remedy="name it with --base")
    lora, alpha = read_gguf_lora(adapter, base_names(base))
    with _written(out) as part:
        write_peft_lora(lora, part, base=base, alpha=alpha)
    return lora


def base_names(base: str | None, *, revision: str | None = None, recorded: bool = False) -> GgufNames:
    """Return what llama.cpp calls the modules of a base, given as a directory or Hub id.

    Raises:
        BadInputError: the base is not named or not here.
    """
    if base is None:
        raise BadInputError("the adapter records no base", remedy="name it with --base")
    location = locate_base(base, revision=revision, must_exist=not recorded)
    if location.directory is None:
        raise BadInputError(location.reason, remedy=location.remedy)
    return names_of(location.directory)


def write_peft_lora(lora: Lora, out: Path, *, base: str, alpha: float) -> None:
    """Write factors as the directory that PEFT loads.

    The most common rank and alpha stand in the config; modules that differ get patterns, which keep every scale.

    Args:
        lora: factors by module.
        out: the directory to write.
        base: what the config records as its base.
        alpha: as which alpha the scales are written where that is right.
    """
    from safetensors.numpy import save_file

    if not lora:
        raise AdapterError("holds no factors", where=out)
    ranks = {module: f.rank for module, f in lora.items()}
    alphas = {module: f.scale * f.rank for module, f in lora.items()}
    r = Counter(ranks.values()).most_common(1)[0][0]
    usual = alpha or Counter(alphas.values()).most_common(1)[0][0]
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": r,
        "lora_alpha": _number(usual),
        "target_modules": sorted(lora),
        "rank_pattern": {_pattern(m): n for m, n in ranks.items() if n != r},
        "alpha_pattern": {_pattern(m): _number(x) for m, x in alphas.items() if not math.isclose(x, usual)},
        "bias": "none",
        "inference_mode": True,
    }
    out.mkdir()
    (out / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {f"{PREFIX}{m}.lora_A.weight": f.a for m, f in lora.items()}
    tensors |= {f"{PREFIX}{m}.lora_B.weight": f.b for m, f in lora.items()}
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    load_config(out)


def _pattern(module: str) -> str:
    # PEFT reads a key as a regular expression for the end of a name.
    return "^" + module.replace(".", r"\.")


def _number(x: float) -> float | int:
    return int(x) if float(x).is_integer() else float(x)


@contextmanager
def _written(out: Path) -> Iterator[Path]:
    """Yield a place to write to, which becomes `out` when the block ends well, and nothing when it does not."""
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".sway-") as folder:
        part = Path(folder) / out.name
        yield part
        shutil.move(part, out)
