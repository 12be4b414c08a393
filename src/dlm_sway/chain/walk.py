"""Walks the chain: each link by its files, its tokens and its behaviour, until one is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from dlm_sway.adapters.base_location import locate_base
from dlm_sway.adapters.checks import inspect_adapter
from dlm_sway.adapters.config import AdapterConfig, load_config
from dlm_sway.adapters.lora import Lora, read_peft_lora
from dlm_sway.chain.behaviour import Reference, judge, margin_of, observe, take_reference
from dlm_sway.chain.metadata import GgufReads, judge_metadata
from dlm_sway.chain.result import ChainResult, Finding, Link, LinkName
from dlm_sway.chain.static import DROWNED, ENOUGH, NOT_APPLIED, RENAMED, RETIED, judge_fit
from dlm_sway.chain.tokens import HFReads, ServerReads, compare_tokens
from dlm_sway.chain.weights import GgufWeights, SafetensorsWeights, fit_merged, predicted_survival
from dlm_sway.core.errors import AdapterError, BadInputError, SwayError
from dlm_sway.core.progress import Progress, Silent
from dlm_sway.core.result import Verdict
from dlm_sway.data.control import control_passages
from dlm_sway.data.readers import read_items
from dlm_sway.engine.ask import TextItem

MAX_TOKENS: Final = 128
_N_DATA, _N_GENERAL = 64, 24
_FLOOR_TIMES: Final = 10.0
_RENAMED_CODES: Final = frozenset({"missing_tensor", "unexpected_tensor", "unrecognised_tensor", "wrapped_module"})

Steps: TypeAlias = Iterator[Callable[[], Finding]]


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


def walk(request: ChainRequest, *, progress: Progress | None = None) -> ChainResult:
    """Return what each link says, ending at the first broken one unless `every` is asked for.

    Raises:
        BadInputError: the adapter, its base or the data cannot be used.
    """
    return _Walk(request, progress or Silent()).result()


class _Walk:
    def __init__(self, request: ChainRequest, progress: Progress) -> None:
        self.request = request
        self.progress = progress
        self.config: AdapterConfig = load_config(request.adapter)
        name = request.base or self.config.base_model_name_or_path
        if name is None:
            raise BadInputError("the adapter records no base", where=request.adapter, remedy="name it with --base")
        self.base = name
        location = locate_base(name, revision=None if request.base else self.config.revision)
        if location.directory is None:
            raise BadInputError(location.reason, remedy=location.remedy)
        self.directory: Path = location.directory
        self.items = _items(request.data)

    def result(self) -> ChainResult:
        links: list[Link] = []
        plan = self._plan()
        for name, what, steps in plan:
            if links and links[-1].fault and not self.request.every:
                break
            links.append(Link(name=name, what=what, findings=tuple(self._taken(name, steps))))
        not_walked = tuple(name for name, _, _ in plan[len(links) :])
        return ChainResult(
            adapter=str(self.request.adapter),
            base=self.base,
            links=tuple(links),
            not_walked=not_walked,
            provenance=self._provenance(),
        )

    def _plan(self) -> list[tuple[LinkName, str, Steps]]:
        r = self.request
        plan: list[tuple[LinkName, str, Steps]] = [("adapter", str(r.adapter), self._adapter())]
        if r.merged is not None:
            plan.append(("merged", str(r.merged), self._merged(r.merged)))
        if r.gguf is not None:
            plan.append(("gguf", str(r.gguf), self._gguf(r.gguf)))
        if r.endpoint is not None:
            plan.append(("served", r.endpoint, self._served(r.endpoint)))
        return plan

    def _taken(self, name: LinkName, steps: Steps) -> Iterator[Finding]:
        for step in steps:
            self.progress.phase(f"{name}: looking")
            try:
                found = step()
            except SwayError as error:
                found = Finding(step="behaviour", verdict=Verdict.ERROR, message=error.one_line())
            yield found
            if found.verdict in (Verdict.FAIL, Verdict.ERROR) and not self.request.every:
                return

    @cached_property
    def _weights(self) -> SafetensorsWeights:
        return SafetensorsWeights(self.directory)

    @cached_property
    def _lora(self) -> Lora | str:
        """The factors, or why there are none to be had from the file."""
        try:
            return read_peft_lora(self.request.adapter)[0]
        except AdapterError as refusal:
            return refusal.what

    @cached_property
    def _tokenizer(self) -> Any:
        from dlm_sway.backends.tokenizer import load_tokenizer
        from dlm_sway.core.model import ModelSpec

        return load_tokenizer(ModelSpec(base=str(self.directory)))

    @cached_property
    def _reference(self) -> Reference:
        from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
        from dlm_sway.core.model import ModelSpec

        self.progress.phase("scoring base and adapter")
        spec = ModelSpec(base=str(self.directory), dtype="fp32", device=self.request.device)
        backend = HuggingFaceDifferentialBackend(base_spec=spec, adapter_path=self.request.adapter)
        try:
            return take_reference(backend, self.items, self.config, max_tokens=MAX_TOKENS)
        finally:
            backend.close()

    def _adapter(self) -> Steps:
        yield self._adapter_files
        yield self._forecast
        yield self._adapter_works

    def _adapter_files(self) -> Finding:
        found = inspect_adapter(self.request.adapter, str(self.directory))
        faults = [f for f in found.faults if f.severity == "fail"]
        if faults:
            first = faults[0]
            cause = RENAMED if first.code in _RENAMED_CODES else first.code
            return Finding(
                step="static", verdict=Verdict.FAIL, cause=cause, message=first.message, remedy=first.remedy or ""
            )
        return Finding(step="static", verdict=Verdict.PASS, message="every tensor lands on a module of the base")

    def _forecast(self) -> Finding:
        if isinstance(self._lora, str):
            message = f"what a merge would keep cannot be told from the file: {self._lora}"
            return Finding(step="static", verdict=Verdict.SKIP, message=message)
        kept = {name: predicted_survival(self._weights, self._lora, dtype=name) for name in ("bf16", "fp16")}
        evidence = {"predicted_survival": kept}
        message = f"a merge in bf16 would keep {kept['bf16']:.1%} of the adapter, in fp16 {kept['fp16']:.1%}"
        if kept["bf16"] >= ENOUGH:
            return Finding(step="static", verdict=Verdict.PASS, message=message, evidence=evidence)
        remedy = "merge in fp32 and keep fp32, or serve base and adapter"
        return Finding(step="static", verdict=Verdict.WARN, message=message, remedy=remedy, evidence=evidence)

    def _adapter_works(self) -> Finding:
        taken = self._reference
        effect = taken.logprobs[taken.scales.index(1.0)] - taken.logprobs[taken.scales.index(0.0)]
        size = float(np.sqrt((effect**2).mean()))
        evidence = {"effect": size, "numeric_floor": taken.floor, "n_items": len(taken.items)}
        if size > _FLOOR_TIMES * taken.floor:
            message = (
                f"loaded anew it moves log-probs by {size:.3g} nat (root mean square), numerics by {taken.floor:.2g}"
            )
            return Finding(
                step="behaviour", verdict=Verdict.PASS, message=message, effect_left=1.0, lam_hat=1.0, evidence=evidence
            )
        message = "loaded anew it does nothing to these texts"
        remedy = f"run: sway inspect {self.request.adapter}"
        return Finding(
            step="behaviour",
            verdict=Verdict.FAIL,
            cause=NOT_APPLIED,
            message=message,
            remedy=remedy,
            effect_left=0.0,
            evidence=evidence,
        )

    def _merged(self, merged: Path) -> Steps:
        yield lambda: self._merged_files(merged)
        yield lambda: self._same_tokens(HFReads(_tokenizer_in(merged) or self._tokenizer))
        yield lambda: self._same_behaviour(lambda: self._whole(merged))

    def _merged_files(self, merged: Path) -> Finding:
        location = locate_base(str(merged))
        if location.directory is None:
            raise BadInputError(location.reason, remedy=location.remedy)
        weights = SafetensorsWeights(location.directory)
        if isinstance(self._lora, str):
            message = f"its weights are not compared with the adapter's: {self._lora}"
            return Finding(step="static", verdict=Verdict.SKIP, message=message)
        tied = weights.files.tied and "lm_head.weight" not in weights.names()
        if tied and (not self._weights.files.tied or "lm_head" in self._lora):
            message = "its head is the embedding again, so what the head had of its own is lost"
            remedy = "set tie_word_embeddings to false in the config before saving, and save both tensors"
            return Finding(step="static", verdict=Verdict.FAIL, cause=RETIED, message=message, remedy=remedy)
        return judge_fit(fit_merged(self._weights, weights, self._lora), self.config)

    def _gguf(self, path: Path) -> Steps:
        files: list[Finding] = []

        def look() -> Finding:
            files.append(self._gguf_files(path))
            return files[0]

        yield look
        yield lambda: self._same_tokens(GgufReads(_gguf_reader(path), self._tokenizer))
        drowned = any(found.cause == DROWNED for found in files)
        yield lambda: self._same_behaviour(lambda: self._whole(path), drowned=drowned)

    def _gguf_files(self, path: Path) -> Finding:
        weights = GgufWeights(path, self.directory)
        if (wrong := judge_metadata(weights.reader, self._tokenizer)) is not None:
            return wrong
        if isinstance(self._lora, str):
            return Finding(step="static", verdict=Verdict.SKIP, message=f"its weights are not compared: {self._lora}")
        return judge_fit(fit_merged(self._weights, weights, self._lora), self.config)

    def _served(self, endpoint: str) -> Steps:
        yield lambda: self._served_tokens(endpoint)
        yield lambda: self._same_behaviour(lambda: self._server(endpoint))

    def _served_tokens(self, endpoint: str) -> Finding:
        with self._server(endpoint) as server:
            return self._same_tokens(ServerReads(server.wires[0].client))

    @contextmanager
    def _server(self, endpoint: str) -> Iterator[Any]:
        from dlm_sway.backends.api import open_api
        from dlm_sway.backends.api_options import options_of
        from dlm_sway.core.extras import needs_extra
        from dlm_sway.core.model import ModelSpec

        named = {"url": endpoint, "model": self.request.model, "api_key_env": self.request.api_key_env}
        options = options_of(ModelSpec(base=str(self.directory), kind="api", options=named))
        with needs_extra("asking a server"), closing(open_api(options, name=str(self.directory))) as server:
            yield server

    @contextmanager
    def _whole(self, path: Path) -> Iterator[Any]:
        from dlm_sway.backends.whole import open_whole

        whole = open_whole(path, tokenizer_of=str(self.directory), device=self.request.device)
        with closing(whole):
            yield whole

    def _same_tokens(self, candidate: Any) -> Finding:
        return compare_tokens(
            HFReads(self._tokenizer), candidate, decode=self._tokenizer.decode, bos=self._tokenizer.bos_token_id
        )

    def _same_behaviour(self, opened: Callable[[], AbstractContextManager[Any]], *, drowned: bool = False) -> Finding:
        taken = self._reference
        with opened() as backend:
            dtype = str(backend.dtype).removeprefix("torch.")
            observed = observe(backend, taken, max_tokens=MAX_TOKENS)
        found = judge(taken, observed, self.config, margin=margin_of(taken, dtype), seed=self.request.seed)
        if drowned and found.verdict is Verdict.FAIL:
            return found.model_copy(update={"cause": DROWNED, "remedy": "keep more bits, or serve base and adapter"})
        return found

    def _provenance(self) -> dict[str, Any]:
        texts = {"n_items": len(self.items), "max_tokens": MAX_TOKENS, "seed": self.request.seed}
        return texts | {"data": None if self.request.data is None else str(self.request.data)}


def _items(data: Path | None) -> tuple[TextItem, ...]:
    own = () if data is None else read_items(data)[:_N_DATA]
    items = [TextItem(i.prompt, i.completion, i.cluster, f"data:{i.line}", "data") for i in own]
    general = control_passages()[:_N_GENERAL]
    return (*items, *(TextItem("", p.text, p.id, p.id, "general") for p in general))


def _tokenizer_in(folder: Path) -> Any:
    from dlm_sway.backends.tokenizer import load_tokenizer
    from dlm_sway.core.model import ModelSpec

    return load_tokenizer(ModelSpec(base=str(folder))) if (folder / "tokenizer.json").is_file() else None


def _gguf_reader(path: Path) -> Any:
    from dlm_sway.adapters.gguf_lora import open_gguf

    return open_gguf(path)
