"""How each link is looked at: steps in order, each a finding; a later one may use what an earlier one found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from dlm_sway.adapters.base_location import locate_base
from dlm_sway.adapters.checks import inspect_adapter
from dlm_sway.adapters.gguf_lora import open_gguf
from dlm_sway.chain.behaviour import REMEDIES, judge
from dlm_sway.chain.given import Given, tokenizer_in
from dlm_sway.chain.margins import FLOOR_TIMES, bits_of, bits_served, margin_of
from dlm_sway.chain.metadata import GgufReads, judge_metadata
from dlm_sway.chain.model_files import HEAD, GgufWeights, SafetensorsWeights
from dlm_sway.chain.reference import Observed, observe
from dlm_sway.chain.result import Finding, Step
from dlm_sway.chain.static import (
    DROWNED,
    ENOUGH,
    NOT_APPLIED,
    OTHER_WEIGHTS,
    RENAMED,
    judge_fit,
    not_compared,
    packed,
    retied,
)
from dlm_sway.chain.stop import judge_stop
from dlm_sway.chain.tokens import HFReads, ServerReads, compare_tokens
from dlm_sway.chain.weights import fit_merged, predicted_survival
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import Verdict

Steps: TypeAlias = Iterator[tuple[Step, Callable[[], Finding]]]
_UNPACKED_BASE = "name the base in 16 bits as --base to have them compared"
_RENAMED_CODES = frozenset({"missing_tensor", "unexpected_tensor", "unrecognised_tensor", "wrapped_module"})


class AdapterLink:
    """The adapter as it was saved: its files, what a merge would keep of it, and whether it works when loaded anew."""

    def __init__(self, given: Given) -> None:
        """Look at what is given."""
        self.given = given

    def steps(self) -> Steps:
        """Yield the steps."""
        yield "static", self._files
        yield "static", self._forecast
        yield "behaviour", self._works

    def _files(self) -> Finding:
        found = inspect_adapter(self.given.request.adapter, str(self.given.directory))
        faults = [f for f in found.faults if f.severity == "fail"]
        if not faults:
            return Finding(step="static", verdict=Verdict.PASS, message="every tensor lands on a module of the base")
        first = faults[0]
        cause = RENAMED if first.code in _RENAMED_CODES else first.code
        remedy = first.remedy or f"run: sway inspect {self.given.request.adapter}"
        return Finding(step="static", verdict=Verdict.FAIL, cause=cause, message=first.message, remedy=remedy)

    def _forecast(self) -> Finding:
        lora = self.given.lora
        if isinstance(lora, str):
            message = f"what a merge would keep cannot be told from the file: {lora}"
            return Finding(step="static", verdict=Verdict.SKIP, message=message)
        if self.given.weights.packed:
            return packed(_UNPACKED_BASE)
        bf16, fp16 = (predicted_survival(self.given.weights, lora, dtype=name) for name in ("bf16", "fp16"))
        if bf16 is None or fp16 is None:
            message = "what a merge would keep cannot be told: the base has no module of these names and shapes"
            return Finding(step="static", verdict=Verdict.SKIP, message=message)
        evidence = {"predicted_survival": {"bf16": bf16, "fp16": fp16}}
        message = f"a merge in bf16 would keep {bf16:.1%} of the adapter, in fp16 {fp16:.1%}"
        if bf16 >= ENOUGH:
            return Finding(step="static", verdict=Verdict.PASS, message=message, evidence=evidence)
        remedy = "merge in fp32 and keep fp32, or serve base and adapter"
        return Finding(step="static", verdict=Verdict.WARN, message=message, remedy=remedy, evidence=evidence)

    def _works(self) -> Finding:
        taken = self.given.reference
        size = float(np.sqrt(((taken.tuned - taken.base) ** 2).mean()))
        evidence = {"effect": size, "numeric_floor": taken.floor, "n_items": len(taken.asked)}
        if size <= FLOOR_TIMES * taken.floor:
            return Finding(
                step="behaviour",
                verdict=Verdict.FAIL,
                cause=NOT_APPLIED,
                message="loaded anew it does nothing to these texts",
                remedy=f"run: sway inspect {self.given.request.adapter}",
                effect_left=0.0,
                evidence=evidence,
            )
        message = f"loaded anew it moves log-probs by {size:.3g} nat (root mean square), numerics by {taken.floor:.2g}"
        return Finding(
            step="behaviour", verdict=Verdict.PASS, message=message, effect_left=1.0, lam_hat=1.0, evidence=evidence
        )


class _Compared(ABC):
    """A link that is held against what was tested; it is read once, for behaviour and for stops.

    Attributes:
        given: what was tested.
        bits: of a stored weight, known when the link was opened; None where it is not said.
        drowned: whether its files say that their format moves more than the adapter does.
    """

    def __init__(self, given: Given) -> None:
        self.given = given
        self.bits: float | None = None
        self.drowned = False
        self._observed: Observed | None = None

    def steps(self) -> Steps:
        """Yield the steps: files where there are any, tokens, behaviour, stops."""
        yield "tokens", self.tokens
        yield "behaviour", self._behaves
        yield "stop", self._stops

    @abstractmethod
    def tokens(self) -> Finding:
        """Return whether it reads text as in training."""

    @abstractmethod
    def opened(self) -> AbstractContextManager[Any]:
        """Open it, to be read."""

    def _behaves(self) -> Finding:
        taken = self.given.reference
        with self.opened() as backend:
            self.bits = self.bits or bits_of(backend.dtype)
            self._observed = observe(backend, taken)
        margin = margin_of(self.bits, floor=taken.floor, effect=taken.mean_effect)
        found = judge(taken, self._observed.logprobs, self.given.config, margin=margin, seed=self.given.request.seed)
        if self.drowned and found.verdict is Verdict.FAIL and found.cause == OTHER_WEIGHTS:
            return found.model_copy(update={"cause": DROWNED, "remedy": REMEDIES[DROWNED]})
        return found

    def _stops(self) -> Finding:
        taken = self.given.reference
        if self._observed is None:
            message = "not looked at, since its log-probs could not be read"
            return Finding(step="stop", verdict=Verdict.SKIP, message=message, remedy="mend what is said above")
        both = taken.stops[[taken.scales.index(0.0), taken.scales.index(1.0)]]
        return judge_stop(both, self._observed.stops, taken.stop_clusters)

    def _same_tokens(self, candidate: Any) -> Finding:
        ours = self.given.tokenizer
        return compare_tokens(HFReads(ours), candidate, decode=ours.decode, bos=ours.bos_token_id)


class MergedLink(_Compared):
    """A directory with base and adapter merged."""

    def __init__(self, given: Given, folder: Path) -> None:
        """Look at `folder`."""
        super().__init__(given)
        self._folder = folder

    def steps(self) -> Steps:
        """Yield the steps, files first."""
        yield "static", self._files
        yield from super().steps()

    def opened(self) -> AbstractContextManager[Any]:
        """Open the model in the dtype that it is stored in."""
        return self.given.whole(self._folder)

    def tokens(self) -> Finding:
        """Return whether the tokenizer in the folder reads as the base's."""
        own = tokenizer_in(self._folder) if (self._folder / "tokenizer.json").is_file() else None
        return self._same_tokens(HFReads(own or self.given.tokenizer))

    def _files(self) -> Finding:
        folder = _merged_in(self._folder)
        weights, base, lora = SafetensorsWeights(folder), self.given.weights, self.given.lora
        if isinstance(lora, str):
            message = f"its weights are not compared with the adapter's: {lora}"
            return Finding(step="static", verdict=Verdict.SKIP, message=message)
        tied = weights.files.tied and HEAD not in weights.names()
        if tied and (not base.files.tied or "lm_head" in lora):
            return retied()
        if base.packed or weights.packed:
            return packed(_UNPACKED_BASE if base.packed else "give the 16-bit merge that it was made of as --merged")
        if base.files.is_renamed_on_load and not {f"{module}.weight" for module in lora} <= base.names():
            # Files that name a module otherwise than the loaded model does call what it became untouched, and changed.
            return not_compared("the base's files name its modules otherwise than the loaded model does")
        return judge_fit(fit_merged(base, weights, lora), self.given.config)


def _merged_in(folder: Path) -> Path:
    """Return the directory of a merged model.

    Raises:
        BadInputError: there is none, or it holds no weights that sway reads.
    """
    if not folder.is_dir():
        what = "is a file, not a directory" if folder.exists() else "no such directory"
        raise BadInputError(what, where=folder, remedy="name the directory of the merged model as --merged")
    if locate_base(str(folder)).directory is None:
        remedy = "save the merged model with `model.save_pretrained`, and name its directory as --merged"
        raise BadInputError("holds no safetensors weights", where=folder, remedy=remedy)
    return folder


class GgufLink(_Compared):
    """A GGUF file of base and adapter merged."""

    def __init__(self, given: Given, path: Path) -> None:
        """Look at `path`."""
        super().__init__(given)
        self._path = path

    def steps(self) -> Steps:
        """Yield the steps, files first."""
        yield "static", self._files
        yield from super().steps()

    def opened(self) -> AbstractContextManager[Any]:
        """Open the file's weights, dequantised."""
        return self.given.whole(self._path)

    def tokens(self) -> Finding:
        """Return whether its metadata make a server read as the base's tokenizer does."""
        return self._same_tokens(GgufReads(open_gguf(self._path), self.given.tokenizer))

    def _files(self) -> Finding:
        if (wrong := judge_metadata(open_gguf(self._path), self.given.tokenizer)) is not None:
            return wrong
        lora = self.given.lora
        try:
            weights = GgufWeights(self._path, self.given.directory)
        except BadInputError as unknown:
            lora = unknown.what
        else:
            self.bits = weights.bits()
        if isinstance(lora, str):
            return Finding(step="static", verdict=Verdict.SKIP, message=f"its weights are not compared: {lora}")
        if HEAD not in weights.names() and not self.given.weights.files.tied:
            return retied()
        if self.given.weights.packed:
            return packed(_UNPACKED_BASE)
        found = judge_fit(fit_merged(self.given.weights, weights, lora), self.given.config)
        self.drowned = found.cause == DROWNED
        return found


class ServedLink(_Compared):
    """A server with the fine-tune."""

    def __init__(self, given: Given, endpoint: str) -> None:
        """Ask `endpoint`."""
        super().__init__(given)
        self._endpoint = endpoint

    def opened(self) -> AbstractContextManager[Any]:
        """Connect."""
        return self.given.server(self._endpoint)

    def tokens(self) -> Finding:
        """Return whether it reads as the base's tokenizer does; and hear in how many bits it keeps its weights."""
        with self.opened() as server:
            self.bits = bits_served(server.bits_per_weight())
            return self._same_tokens(ServerReads(server.wires[0].client))
