"""What a walk is given, read when it is first needed: files, tokenizer, texts, and what was tested as numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from dlm_sway.adapters.base_files import require_whole
from dlm_sway.adapters.base_location import locate_base
from dlm_sway.adapters.config import AdapterConfig, load_config
from dlm_sway.adapters.lora import Lora, read_peft_lora
from dlm_sway.chain.model_files import SafetensorsWeights
from dlm_sway.chain.reference import OWN, Reference, take_reference
from dlm_sway.core.errors import AdapterError, BadInputError, CannotRunError, SwayError
from dlm_sway.core.progress import Progress
from dlm_sway.data.control import control_passages
from dlm_sway.data.readers import items_of, read_sections
from dlm_sway.data.reading import Tally
from dlm_sway.engine.ask import TextItem

MAX_TOKENS: Final = 128
N_DATA, N_GENERAL = 64, 24
_LOGGER: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChainRequest:
    """What to walk.

    Attributes:
        adapter: directory of the adapter.
        base: directory or Hub id; None for what the adapter records.
        merged: directory of a merged model, or None.
        gguf: GGUF file of a whole model, or None.
        endpoint: address of a server, or None.
        model: the model's name on it.
        api_key_env: name of the environment variable with its key.
        data: file with what the adapter was trained on, or None.
        every: whether to go on behind a broken link.
        device: where models compute here.
        seed: of resampling.
        timeout_s: longest wait for an answer of the server.
    """

    adapter: Path
    base: str | None = None
    merged: Path | None = None
    gguf: Path | None = None
    endpoint: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    data: Path | None = None
    every: bool = False
    device: str = "auto"
    seed: int = 0
    timeout_s: float = 60.0


class Given:
    """The request with its files found.

    Attributes:
        request: what to walk.
        config: the adapter's.
        base: as it was named, or as the adapter records it.
        directory: where the base lies.
        own: texts of the data.
        general: control text.
    """

    def __init__(self, request: ChainRequest, progress: Progress) -> None:
        """Find the base and read the texts.

        Raises:
            BadInputError: the adapter, its base or the data cannot be used.
        """
        self.request = request
        self.progress = progress
        self.config: AdapterConfig = load_config(request.adapter)
        name = request.base or self.config.base_model_name_or_path
        if name is None:
            raise BadInputError("the adapter records no base", where=request.adapter, remedy="name it with --base")
        self.base = name
        location = locate_base(name, revision=self.config.base_revision(request.base))
        if location.directory is None:
            raise BadInputError(location.reason, remedy=location.remedy)
        require_whole(location.directory)
        self.directory: Path = location.directory
        self.own = () if request.data is None else texts_of(request.data)
        self.general = tuple(TextItem("", p.text, p.id, p.id, "general") for p in control_passages()[:N_GENERAL])

    @cached_property
    def weights(self) -> SafetensorsWeights:
        """The base's parameters."""
        return SafetensorsWeights(self.directory)

    @cached_property
    def lora(self) -> Lora | str:
        """The factors, or why there are none to be had from the file."""
        try:
            return read_peft_lora(self.request.adapter, base=str(self.directory))[0]
        except AdapterError as refusal:
            return refusal.what

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that the adapter was trained with."""
        from dlm_sway.backends.trained_tokenizer import load_trained_tokenizer
        from dlm_sway.core.model import ModelSpec

        return load_trained_tokenizer(ModelSpec(base=str(self.directory)), self.request.adapter)

    @cached_property
    def reference(self) -> Reference:
        """What was tested, computed once."""
        self.progress.phase("scoring base and adapter")
        items = (*self.own, *self.general)
        with self.adapted(self.request.adapter) as backend:
            return take_reference(backend, items, self.config, max_tokens=MAX_TOKENS, ending=len(self.own))

    @contextmanager
    def adapted(self, adapter: Path) -> Iterator[Any]:
        """Open the base in fp32 with an adapter on it."""
        from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
        from dlm_sway.core.model import ModelSpec

        spec = ModelSpec(base=str(self.directory), dtype="fp32", device=self.request.device)
        with closing(HuggingFaceDifferentialBackend(base_spec=spec, adapter_path=adapter)) as backend:
            yield backend

    @contextmanager
    def whole(self, path: Path) -> Iterator[Any]:
        """Open a merged model or a GGUF file."""
        from dlm_sway.backends.whole import open_whole

        self.progress.phase(f"scoring {path.name}")
        with closing(open_whole(path, tokenizer=self.tokenizer, device=self.request.device)) as whole:
            yield whole

    @contextmanager
    def server(self, endpoint: str) -> Iterator[Any]:
        """Connect to a server."""
        from dlm_sway.backends.api import open_api
        from dlm_sway.backends.api_options import options_of
        from dlm_sway.core.extras import needs_extra
        from dlm_sway.core.model import ModelSpec

        self.progress.phase("asking the server")
        r = self.request
        named = {"url": endpoint, "model": r.model, "api_key_env": r.api_key_env, "timeout_s": r.timeout_s}
        options = options_of(ModelSpec(base=str(self.directory), kind="api", options=named))
        try:
            with needs_extra("asking a server"):
                opened = open_api(options, name=str(self.directory), tokenizer=self.tokenizer)
            with closing(opened) as server:
                if refusal := server.scores_refusal():
                    raise CannotRunError(refusal, remedy="serve the model with llama.cpp or vLLM, or allow log-probs")
                yield server
        except SwayError as fault:
            fault.remedy = _as_options(fault.remedy)
            raise


def texts_of(data: Path) -> tuple[TextItem, ...]:
    """Return the first texts of a source, and warn of what is left out among them; the rest is not read.

    Raises:
        BadInputError: it cannot be read, or nothing in it can be used.
    """
    tally = Tally()
    items = chain.from_iterable(map(items_of, read_sections(data, tally)))
    found = tuple(TextItem(i.prompt, i.completion, i.cluster, i.label, OWN) for i in islice(items, N_DATA))
    if tally.skipped:
        _LOGGER.warning("%s: %s", data, tally.summary)
    return found


# What a spec of a server calls what is an option of the command here, or is none of it.
_AS_OPTIONS: Final = {
    "options.api_key_env": "--api-key-env",
    "options.model": "--model",
    "options.timeout_s": "--timeout",
    "raise options.attempts": "try again later",
    "lower options.top_k, or see": "see",
    "raise options.top_k, or use": "use",
}


def _as_options(remedy: str | None) -> str | None:
    """Return a remedy for the spec of a server in the words of this command."""
    for said, option in _AS_OPTIONS.items():
        remedy = remedy and remedy.replace(said, option)
    return remedy


def tokenizer_in(folder: Path) -> Any:
    """Return the tokenizer that lies in a folder."""
    from dlm_sway.backends.tokenizer import load_tokenizer
    from dlm_sway.core.model import ModelSpec

    return load_tokenizer(ModelSpec(base=str(folder)))
