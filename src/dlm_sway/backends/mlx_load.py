"""Loads a base with mlx_lm and puts an adapter into it: one copy of the weights, safetensors only, and no torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import mlx.core as mx
from mlx.utils import tree_flatten

from dlm_sway.adapters.base_location import locate_base
from dlm_sway.adapters.config import load_config, require_layers_of_base
from dlm_sway.adapters.lora import Lora, read_peft_lora
from dlm_sway.adapters.mlx_lora import read_mlx_lora
from dlm_sway.adapters.naming import Part, parse_name
from dlm_sway.adapters.other_formats import is_mlx_adapter
from dlm_sway.adapters.tensors import TensorFile
from dlm_sway.adapters.weights_file import WEIGHTS_NAME
from dlm_sway.backends.encoding import TextEncoder, context_window, token_ids
from dlm_sway.backends.mlx_config import complete, longest_alike, require_read
from dlm_sway.backends.mlx_layers import Net
from dlm_sway.backends.mlx_sites import Sites, put_in
from dlm_sway.backends.tokenizer import WHERE, first_line
from dlm_sway.backends.trained_tokenizer import load_trained_tokenizer
from dlm_sway.core.errors import AdapterError, BadInputError
from dlm_sway.core.model import ModelSpec

_DTYPES: Final = {"auto": "float32", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_METAL: Final = ("gpu", "metal", "mps")
_FILES: Final = ("*.json", "model*.safetensors", "*.jinja", "*.model", "*.txt")
_WINDOWS: Final = (
    "mlx_lm has no sliding windows for this base: of %s tokens, texts are read up to %s, where that is no difference"
)
_ALSO: Final = (Part.MAGNITUDE, Part.EMBEDDING_A, Part.EMBEDDING_B, Part.WHOLE)

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A base with the sites of its adapter.

    Attributes:
        net: the model.
        sites: where it differs from the base.
        codec: its tokenizer.
        device: where it computes.
        dtype: what it computes in, as mlx names it.
    """

    net: Net
    sites: Sites
    codec: TextEncoder
    device: Any
    dtype: str

    @property
    def device_name(self) -> str:
        """The device in a word, for reports."""
        return "cpu" if self.device == mx.cpu else "gpu"


def pick_device(name: str) -> Any:
    """Return the device named; `auto` is Metal on a Mac, and the CPU everywhere else.

    Raises:
        BadInputError: the device is unknown or not there.
    """
    if name == "cpu" or (name == "auto" and not mx.metal.is_available()):
        return mx.cpu
    if name in ("auto", *_METAL) and mx.metal.is_available():
        return mx.gpu
    if name.partition(":")[0] == "cuda" and mx.cuda.is_available():
        return mx.gpu
    raise BadInputError(f"device {name!r} is not available to mlx here", remedy="use --device auto or cpu")


def load(spec: ModelSpec, adapter: Path) -> Loaded:
    """Load base, tokenizer and adapter, ready to score.

    Raises:
        BadInputError: the base cannot be found or read, or mlx_lm does not know its architecture.
        AdapterError: the adapter cannot be read, holds what mlx has no form for, or does not fit the base.
        CannotRunError: mlx_lm would compute another model than the base's settings say.
    """
    device, dtype = pick_device(spec.device), _DTYPES[spec.dtype]
    lora, whole = _adapter(adapter)
    folder = _folder(spec)
    resolved = _resolved(spec, folder)
    with mx.stream(device):
        model, config, longest = _model(folder, resolved, where=spec.base)
        model.set_dtype(getattr(mx, dtype))
        mx.eval(model.parameters())
        _require_untouched(model, whole, where=adapter)
        sites = put_in(model, lora, device=device, where=str(adapter))
        net = Net(model, device)
    tokenizer = load_trained_tokenizer(spec, adapter)
    window = context_window(resolved or _plain(config), tokenizer)
    if longest is not None and longest < window:
        _log.warning(_WINDOWS, window, longest)
        window = longest
    codec = TextEncoder(tokenizer, max_length=window, stop_ids=token_ids(config.get("eos_token_id")))
    return Loaded(net, sites, codec, device, dtype)


def release() -> None:
    """Give back the memory that mlx keeps for its next arrays."""
    mx.clear_cache()


def _adapter(adapter: Path) -> tuple[Lora, TensorFile | None]:
    """Return the factors of an adapter, and the file of its whole tensors if it may hold some."""
    if is_mlx_adapter(adapter):
        return read_mlx_lora(adapter)[0], None
    require_layers_of_base(load_config(adapter), where=adapter)  # the kind hf refuses it too
    try:
        return read_peft_lora(adapter, also=_ALSO)[0], TensorFile(adapter / WEIGHTS_NAME)
    except AdapterError as e:
        raise AdapterError(e.what, where=e.where, remedy=f"{_HF}; {e.remedy}" if e.remedy else _HF) from e


_HF: Final = "use a backend of kind hf for it"


def _folder(spec: ModelSpec) -> Path:
    location = locate_base(spec.base, revision=spec.revision)
    if location.directory is not None:
        return location.directory
    if Path(spec.base).exists():
        raise BadInputError(location.reason, remedy=location.remedy)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(spec.base, revision=spec.revision, allow_patterns=list(_FILES)))
    except (OSError, ValueError) as e:
        raise BadInputError(f"the base cannot be loaded: {first_line(e)}", where=spec.base, remedy=WHERE) from e


def _resolved(spec: ModelSpec, folder: Path) -> Any:
    """Return the config as transformers reads it, or None for one that is only mlx_lm's."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, KeyError):
        return None


def _model(folder: Path, resolved: Any, *, where: str) -> tuple[Any, dict[str, Any], int | None]:
    """Return the model, its settings, and the longest text that it reads as the base does."""
    utils = load_library()
    try:
        raw = utils.load_config(folder)
        asked = frozenset(signature(utils._get_classes(raw)[1]).parameters)  # noqa: SLF001 (load_model asks the same)
        settings = resolved.get_text_config().to_dict() if resolved is not None else {}
        model, config = utils.load_model(folder, lazy=True, model_config=complete(raw, settings, asked))
    except (OSError, ValueError, KeyError, TypeError, IndexError, json.JSONDecodeError) as e:
        raise BadInputError(f"mlx_lm cannot load the base: {first_line(e)}", where=where, remedy=WHERE) from e
    heads = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in ("lm_head", "output", "embed_out")]
    require_read(settings, asked, tied=not heads, where=where)
    return model, config, longest_alike(settings, asked)


def load_library() -> Any:
    """Return mlx_lm's module that loads models."""
    with _limits_kept():
        from mlx_lm import utils

    return utils


@contextmanager
def _limits_kept() -> Iterator[None]:
    """Keep the process's limit of open files: importing mlx_lm lowers it, and nobody but root can raise it again."""
    try:
        import resource
    except ModuleNotFoundError:  # where there are none
        yield
        return
    real = resource.setrlimit
    resource.setrlimit = lambda *_: None
    try:
        yield
    finally:
        resource.setrlimit = real


def _require_untouched(model: Any, file: TensorFile | None, *, where: Path) -> None:
    """Return if whole tensors that PEFT saved along are the base's own: then they change nothing.

    Raises:
        AdapterError: one was trained, or is not in the model.
    """
    if file is None:
        return
    keys = [k for k in map(parse_name, file.infos) if k.part is Part.WHOLE]
    own = dict(tree_flatten(model.parameters())) if keys else {}
    for key in keys:
        value = own.get(key.parameter, own.get("model.embed_tokens.weight") if key.module == "lm_head" else None)
        saved = mx.array(file.read(key.name))
        if value is None or value.shape != saved.shape or not mx.array_equal(value, saved.astype(value.dtype)).item():
            raise AdapterError(f"{key.parameter} was trained whole, which has no form here", where=where, remedy=_HF)


def _plain(config: dict[str, Any]) -> Any:
    found = SimpleNamespace(**config)
    found.get_text_config = lambda: found
    return found
