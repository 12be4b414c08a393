"""A base and a LoRA in vLLM: fast where long texts are generated.

    kind: vllm
    base: org/base
    adapter: runs/adapter
    options:
      engine: {gpu_memory_utilization: 0.5}     # further arguments of vllm.LLM

Scales, nulls and cuts are written as PEFT folders into a temporary directory and loaded as LoRA requests; their draws
are those of the other backends. vLLM gives the top of each distribution (`prompt_logprobs`) and no logits, so
divergences are lower bounds; gains are exact. It takes plain LoRA on linear modules; anything else is refused.

Tests run it against a fake of vLLM's public interface; `make test-vllm` compares it with `hf` on a real one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from dlm_sway.adapters.lora import read_peft_lora
from dlm_sway.adapters.spectra import input_factor, output_factor, spectrum
from dlm_sway.backends.api_view import ApiView, Asked
from dlm_sway.backends.base import Format, Messages, RankedModule, Reply, Scored, Tools
from dlm_sway.backends.differential import Nulled, Scaled
from dlm_sway.backends.encoding import TextEncoder, context_window
from dlm_sway.backends.registry import register
from dlm_sway.backends.seeds import text_seeds
from dlm_sway.backends.top_k import Top, Values, side_by_side
from dlm_sway.backends.vllm_folders import Folders
from dlm_sway.backends.vllm_options import VllmOptions, options_of
from dlm_sway.core.errors import BadInputError, CannotRunError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import BASE, View

_DTYPES: Final = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `max_lora_rank`."""
_REMEDY: Final = "use a backend of kind hf"


@register("vllm")
class VllmBackend(Scaled[ApiView], Nulled[ApiView]):
    """A base and its LoRA in vLLM.

    Attributes:
        options: what it was told.
        top_k: most probable tokens asked for at each position.
    """

    kind: ClassVar[str]
    device: Any = "vllm"

    def __init__(self, *, spec: ModelSpec, options: VllmOptions) -> None:
        """Load the base, and read the adapter.

        Raises:
            AdapterError: it is no plain LoRA on linear modules.
            BadInputError: the adapter's rank is beyond what vLLM takes, or the tokenizer cannot be read.
            CannotRunError: vLLM cannot load the base.
        """
        assert spec.adapter is not None  # noqa: S101 (`options_of` refuses it)
        self.id = f"{spec.base} + {spec.adapter.name}"
        self.options, self.top_k, self.dtype = options, options.top_k, spec.dtype
        self._lora, _ = read_peft_lora(spec.adapter, base=spec.base)
        rank = max(factors.rank for factors in self._lora.values())
        if rank > _RANKS[-1]:
            raise BadInputError(f"rank {rank} is more than vLLM takes ({_RANKS[-1]})", where=self.id, remedy=_REMEDY)
        tokenizer, config = _tokenizer_and_config(spec, spec.adapter)
        window = min(options.max_length, context_window(config, tokenizer))
        # One token is left for the answer, without which nothing is scored.
        self.codec = TextEncoder(tokenizer, max_length=window - 1)
        self.vocab_size = int(config.get_text_config().vocab_size)
        self._llm: Any = _loaded(spec, options, rank=next(r for r in _RANKS if r >= rank), window=window)
        self._folders = Folders(self._lora, base=spec.base)

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> VllmBackend:
        """Load `spec.base` and read `spec.adapter`.

        Raises:
            BadInputError: as the constructor does, or an option is wrong.
        """
        return cls(spec=spec, options=options_of(spec))

    @property
    def source_name(self) -> str:
        """How numbers are made, for reports: a label that says what is a bound."""
        return f"vLLM; divergences are lower bounds from the top {self.top_k}"

    def null_refusal(self) -> str | None:
        """Return None: a plain LoRA on linear modules is all that is loaded, and it has nulls."""
        return None

    def scale_refusal(self) -> str | None:
        """Return None: a folder is written for each scale."""
        return None

    def cut_refusal(self) -> str | None:
        """Return None: a folder is written for each cut."""
        return None

    def spectra(self) -> dict[str, RankedModule]:
        """Return the spectrum of delta W by module."""
        return {
            module: RankedModule(spectrum(output_factor(f.b), input_factor(f.a), scale=f.scale), int(f.b.shape[0]))
            for module, f in self._lora.items()
        }

    def scalars(self, rows: Sequence[Scored], views: Sequence[View], reducers: Sequence[str]) -> Values:
        """Return per-position scalars of rows; see `ScalarBackend`.

        Raises:
            CannotRunError: vLLM gave no log-prob where there must be one.
        """
        base, *found = ([top for tops in self.tops(rows, v, self.top_k) for top in tops] for v in (BASE, *views))
        return side_by_side(base, found, reducers)

    def repeat(self, rows: Sequence[Scored]) -> Values:
        """Return `kl` and `gain`, float32[P], of the base against itself: asked for twice."""
        return {name: grid[0] for name, grid in self.scalars(rows, (BASE,), ("kl", "gain")).items()}

    def tops(self, rows: Sequence[Scored], view: View, top_k: int) -> list[list[Top]]:
        """Return the tops of each row, one request after the other.

        Prompt log-probs of several requests with a LoRA at once were seen to end vLLM 0.32.
        """
        return [self._row(row, view, min(top_k, self.vocab_size)) for row in rows]

    def write(
        self,
        prompts: Sequence[str | Messages],
        view: View,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        format: Format = "auto",  # noqa: A002 (DESIGN 5's word)
        tools: Tools | None = None,
    ) -> Sequence[Reply]:
        """Return a reply a prompt; vLLM reads and writes them side by side."""
        given = [tuple(self._encoded(p, format=format, tools=tools)) for p in prompts]
        drawing = {"temperature": temperature, "top_p": top_p} if temperature > 0 else {"temperature": 0.0}
        how = [{"max_tokens": max_new_tokens, "seed": s, **drawing} for s in text_seeds(seed, given)]
        return [_reply(found.outputs[0]) for found in self._asked(given, how, view)]

    def close(self) -> None:
        """Release the model and remove the folders; calling it twice is harmless."""
        super().close()
        core = getattr(getattr(self._llm, "llm_engine", None), "engine_core", None)
        if (shutdown := getattr(core, "shutdown", None)) is not None:
            shutdown()
        self._llm = None
        self._folders.close()

    def _handle(self, label: str, view: View) -> ApiView:
        return ApiView(f"{self.id} [{label}]", self.codec, self._is_open, Asked(self, view))

    def _encoded(self, prompt: str | Messages, *, format: Format, tools: Tools | None) -> list[int]:  # noqa: A002
        if isinstance(prompt, str) and tools is None:
            return list(self.codec.encode_prompt(prompt, format=format).tolist())
        turns: Messages = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
        return list(self.codec.encode_messages(turns, tools).tolist())

    def _row(self, row: Scored, view: View, top_k: int) -> list[Top]:
        ids, targets = row.ids.tolist(), row.targets.tolist()
        ends = targets[-1] < 0  # nothing follows the last token, so what could follow is what vLLM would write
        prompt = tuple(ids if ends else [*ids, targets[-1]])
        how = {"max_tokens": 1, "temperature": 0.0, "logprobs": top_k if ends else None}
        if len(targets) > ends:
            how["prompt_logprobs"] = top_k
        (found,) = self._asked([prompt], [how], view)
        places = list(found.prompt_logprobs or [])[row.first + 1 : len(prompt)]
        if ends:
            places += list(found.outputs[0].logprobs or [])[:1]
        if len(places) != len(targets):
            what = f"vLLM gives log-probs at {len(places)} of {len(targets)} places"
            raise CannotRunError(what, where=self.id, remedy=_REMEDY)
        return [_top(place, target, top_k, where=self.id) for place, target in zip(places, targets, strict=True)]

    def _asked(self, prompts: Sequence[tuple[int, ...]], how: Sequence[Mapping[str, Any]], view: View) -> list[Any]:
        from vllm import SamplingParams

        request = self._request(view)
        return list(
            self._llm.generate(
                [{"prompt_token_ids": list(ids)} for ids in prompts],
                [SamplingParams(**options) for options in how],
                use_tqdm=False,
                lora_request=request,
            )
        )

    def _request(self, view: View) -> Any:
        if view.lam == 0.0:
            return None
        from vllm.lora.request import LoRARequest

        number, folder = self._folders.of(view)
        return LoRARequest(f"view-{number}", number, str(folder))


def _tokenizer_and_config(spec: ModelSpec, adapter: Path) -> tuple[Any, Any]:
    from transformers import AutoConfig

    from dlm_sway.backends.trained_tokenizer import load_trained_tokenizer

    tokenizer = load_trained_tokenizer(spec, adapter)
    try:
        config = AutoConfig.from_pretrained(spec.base, revision=spec.revision, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError) as e:
        first = " ".join(str(e).split())[:200]
        raise BadInputError(f"its config cannot be read: {first}", where=spec.base) from None
    return tokenizer, config


def _loaded(spec: ModelSpec, options: VllmOptions, *, rank: int, window: int) -> Any:
    from vllm import LLM

    try:
        return LLM(
            model=spec.base,
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            dtype=_DTYPES[spec.dtype],
            max_model_len=window,
            enable_lora=True,
            max_loras=1,
            max_lora_rank=rank,
            max_logprobs=options.top_k,
            **{"enable_prefix_caching": False, **options.engine},
        )
    except (OSError, RuntimeError, TypeError, ValueError) as e:
        first = " ".join(str(e).split())[:300]
        raise CannotRunError(f"vLLM cannot load the base: {first}", where=spec.base, remedy=_REMEDY) from None


def _reply(out: Any) -> Reply:
    return Reply(str(out.text), len(out.token_ids), out.finish_reason != "length")


def _top(place: Any, target: int, top_k: int, *, where: str) -> Top:
    """Return the top at one place, a mapping from token to what has `logprob`; it holds the token that follows too."""
    try:
        logprobs = {int(token): float(entry.logprob) for token, entry in place.items()}
    except (AttributeError, TypeError, ValueError):
        raise CannotRunError("vLLM gives log-probs in a form that is not known", where=where) from None
    if not logprobs or any(math.isnan(x) or x > 1e-3 for x in logprobs.values()):  # noqa: PLR2004 (rounding, of log 1)
        raise CannotRunError("vLLM gives what is no log-prob", where=where, remedy="run `sway inspect`")
    if target >= 0 and target not in logprobs:
        raise CannotRunError(f"vLLM names no log-prob of token {target}", where=where, remedy=_REMEDY)
    order = sorted(logprobs, key=lambda token: -logprobs[token])[:top_k]
    values: npt.NDArray[np.float64] = np.array([max(logprobs[token], -1e4) for token in order])
    if target < 0:
        return Top(tuple(order), values, math.nan)
    return Top(tuple(order), values, max(logprobs[target], -1e4), target)
