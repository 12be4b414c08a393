"""From one format of a LoRA adapter to another: PEFT's directory, mlx_lm's, and llama.cpp's GGUF file."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from dlm_sway.adapters.base_location import locate_base
from dlm_sway.adapters.config import CONFIG_NAME, load_config
from dlm_sway.adapters.gguf_lora import read_gguf_lora, write_gguf_lora
from dlm_sway.adapters.gguf_names import GgufNames, names_of
from dlm_sway.adapters.json_file import read_json_object
from dlm_sway.adapters.lora import Lora, read_peft_lora
from dlm_sway.adapters.mlx_lora import read_mlx_lora, write_mlx_lora
from dlm_sway.adapters.naming import PREFIX
from dlm_sway.adapters.other_formats import is_mlx_adapter
from dlm_sway.core.errors import AdapterError, BadInputError

To: TypeAlias = Literal["gguf", "mlx", "peft"]
WEIGHTS: Final = "adapter_model.safetensors"
_CALLED: Final = {"gguf": "a GGUF file", "mlx": "an MLX directory", "peft": "a PEFT directory"}


@dataclass(frozen=True, slots=True)
class _Found:
    """What an adapter says, whatever its format.

    Attributes:
        lora: factors by module name in the base.
        alpha: as which its scales are written where that is right; 0 where it does not say.
        base: directory or Hub id of the base; None where neither the user nor the adapter names one.
        revision: of the Hub id.
        recorded: whether the adapter and not the user named the base.
    """

    lora: Lora
    alpha: float
    base: str | None
    revision: str | None
    recorded: bool


def convert(adapter: Path, *, to: To, out: Path, base: str | None = None) -> Lora:
    """Write `adapter` in another format and return its factors.

    Args:
        adapter: a PEFT or MLX directory, or a GGUF LoRA file.
        to: `gguf` writes a file, `mlx` and `peft` a directory.
        out: what to write; must not exist.
        base: directory or Hub id of the base; by default what the adapter records.

    Raises:
        BadInputError: an input cannot be used, the formats are the same, or `out` exists.
    """
    if out.exists():
        raise BadInputError("is there already", where=out, remedy="name another path, or remove it")
    if not out.parent.is_dir():
        raise BadInputError(f"cannot be written, since {out.parent} is no directory that exists", where=out)
    form: To = "gguf" if adapter.is_file() else "mlx" if is_mlx_adapter(adapter) else "peft"
    if form == to:
        others = " or ".join(other for other in get_args(To) if other != to)
        raise BadInputError(f"is {_CALLED[form]} already", where=adapter, remedy=f"give --to {others}")
    found = _read(adapter, form, base)
    with _written(out) as part:
        _write(found, to, part, name=adapter.name)
    return found.lora


def _read(adapter: Path, form: To, base: str | None) -> _Found:
    if form == "gguf":
        if base is None:
            raise BadInputError("a GGUF adapter does not record its base", where=adapter, remedy="name it with --base")
        lora, alpha = read_gguf_lora(adapter, base_names(base))
        return _Found(lora, alpha, base, None, recorded=False)
    if form == "mlx":
        lora, recorded = read_mlx_lora(adapter)
        known = _Found(lora, 0.0, base or recorded, None, recorded=base is None)
        swapped = {"model.": "transformer."} if _config_of(known).get("model_type") == "gpt2" else {}
        return _Found(_renamed(lora, swapped), 0.0, known.base, None, recorded=known.recorded)
    lora, config = read_peft_lora(adapter, base=base)
    alpha, named = config.lora_alpha or 1.0, base or config.base_model_name_or_path
    return _Found(lora, alpha, named, config.base_revision(base), recorded=base is None)


def _write(found: _Found, to: To, out: Path, *, name: str) -> None:
    if to == "gguf":
        names = base_names(found.base, revision=found.revision, recorded=found.recorded)
        write_gguf_lora(found.lora, names, out, alpha=found.alpha or _usual(found.lora), name=name)
    elif to == "mlx":
        write_mlx_lora(_for_mlx(found), out, base=found.base)
    elif found.base is None:
        raise BadInputError("the adapter records no base", where=name, remedy="name it with --base")
    else:
        write_peft_lora(found.lora, out, base=found.base, alpha=found.alpha)


def _for_mlx(found: _Found) -> Lora:
    """Return factors by mlx_lm's names of the modules, which are the base's own for nearly all architectures."""
    config = _config_of(found)
    if "lm_head" in found.lora and config.get("tie_word_embeddings"):
        raise AdapterError(
            "lm_head is the embedding of this base, and mlx_lm has no LoRA for a head that is one",
            remedy="leave it out of target_modules, or merge the adapter into the base",
        )
    return _renamed(found.lora, {"transformer.": "model."} if config.get("model_type") == "gpt2" else {})


def _renamed(lora: Lora, prefixes: dict[str, str]) -> Lora:
    def name(module: str) -> str:
        old = next((prefix for prefix in prefixes if module.startswith(prefix)), None)
        return module if old is None else prefixes[old] + module.removeprefix(old)

    return {name(module): factors for module, factors in lora.items()}


def _config_of(found: _Found) -> dict[str, Any]:
    """Return the base's config, or an empty one where the base is not here: its names are then those of most."""
    if found.base is None:
        return {}
    folder = locate_base(found.base, revision=found.revision, must_exist=not found.recorded).directory
    path = None if folder is None else folder / "config.json"
    return read_json_object(path) if path is not None and path.is_file() else {}


def _usual(lora: Lora) -> float:
    return Counter(f.scale * f.rank for f in lora.values()).most_common(1)[0][0] or 1.0


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
        alpha: as which alpha the scales are written where that is right; 0 for the most common.
    """
    from safetensors.numpy import save_file

    if not lora:
        raise AdapterError("holds no factors", where=out)
    ranks = {module: f.rank for module, f in lora.items()}
    alphas = {module: f.scale * f.rank for module, f in lora.items()}
    r = Counter(ranks.values()).most_common(1)[0][0]
    usual = alpha or _usual(lora)
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
