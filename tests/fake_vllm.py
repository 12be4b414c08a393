"""What sway uses of vLLM's public interface, over a tiny model: `LLM`, `SamplingParams`, `LoRARequest`, log-probs.

It is as strict as vLLM where that matters: one rank and one alpha an adapter (patterns are ignored), a largest rank, a
largest number of log-probs, a window, and an adapter that is known by its number, whatever its folder holds later.
"""

from __future__ import annotations

import json
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass(frozen=True)
class SamplingParams:
    """The options of one request that sway sets."""

    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None


@dataclass(frozen=True)
class LoRARequest:
    """An adapter by name, number and folder."""

    lora_name: str
    lora_int_id: int
    lora_path: str

    def __post_init__(self) -> None:
        """Refuse a number that vLLM refuses."""
        if self.lora_int_id < 1:
            raise ValueError(f"id must be > 0, got {self.lora_int_id}")


@dataclass(frozen=True)
class Logprob:
    """One token's log-prob."""

    logprob: float
    rank: int
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    """One continuation."""

    text: str
    token_ids: list[int]
    finish_reason: str
    logprobs: list[dict[int, Logprob]] | None


@dataclass
class RequestOutput:
    """The answer to one request."""

    prompt_logprobs: list[dict[int, Logprob] | None] | None
    outputs: list[CompletionOutput]


@dataclass
class Seen:
    """What was asked of all engines: how they were made, and each request."""

    made: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[list[int], SamplingParams, LoRARequest | None]] = field(default_factory=list)
    shut: int = 0


class LLM:
    """An engine on one base; the class is made anew for each test."""

    seen: Seen

    def __init__(self, *, model: str, max_lora_rank: int = 16, max_logprobs: int = 20, **options: Any) -> None:
        self.seen.made.append({"model": model, "max_lora_rank": max_lora_rank, "max_logprobs": max_logprobs, **options})
        self._rank, self._most, self._window = max_lora_rank, max_logprobs, options["max_model_len"]
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._plain = {name: p.detach().clone() for name, p in self._model.named_parameters()}
        self._deltas: dict[int, dict[str, torch.Tensor]] = {}
        core = types.SimpleNamespace(shutdown=self._shutdown)
        self.llm_engine = types.SimpleNamespace(engine_core=core)

    def generate(
        self, prompts: list[Any], sampling_params: list[SamplingParams], *, use_tqdm: bool, lora_request: Any = None
    ) -> list[RequestOutput]:
        """Answer all requests."""
        assert not use_tqdm
        assert len(prompts) == len(sampling_params)
        if lora_request and len(prompts) > 1 and any(p.prompt_logprobs for p in sampling_params):
            raise RuntimeError("the engine died")
        self._show(lora_request)
        return [self._one(p["prompt_token_ids"], how, lora_request) for p, how in zip(prompts, sampling_params,
                                                                                    strict=True)]  # fmt: skip

    def _shutdown(self) -> None:
        self.seen.shut += 1

    def _show(self, request: LoRARequest | None) -> None:
        delta = {} if request is None else self._deltas.setdefault(request.lora_int_id, self._read(request))
        with torch.no_grad():
            for name, p in self._model.named_parameters():
                p.copy_(self._plain[name] + delta.get(name, 0.0))

    def _read(self, request: LoRARequest) -> dict[str, torch.Tensor]:
        folder = Path(request.lora_path)
        config = json.loads((folder / "adapter_config.json").read_text())
        if config["r"] > self._rank:
            raise ValueError(f"LoRA rank {config['r']} is greater than max_lora_rank {self._rank}")
        tensors, out = load_file(folder / "adapter_model.safetensors"), {}
        for name, a in tensors.items():
            if ".lora_A." not in name:
                continue
            b = tensors[name.replace(".lora_A.", ".lora_B.")]
            assert a.shape[0] == b.shape[1] == config["r"]
            out[name.removeprefix("base_model.model.").replace(".lora_A.", ".")] = (
                config["lora_alpha"] / config["r"] * (b @ a)
            )
        assert set(out) <= set(self._plain)
        return out

    @torch.inference_mode()
    def _logp(self, ids: list[int]) -> torch.Tensor:
        return torch.log_softmax(self._model(torch.tensor([ids])).logits[0].double(), dim=-1)

    def _one(self, ids: list[int], how: SamplingParams, request: LoRARequest | None) -> RequestOutput:
        self.seen.requests.append((ids, how, request))
        if len(ids) + 1 > self._window:
            raise ValueError(f"the prompt has {len(ids)} tokens, and max_model_len is {self._window}")
        logp = self._logp(ids)
        asked = None
        if how.prompt_logprobs is not None:
            asked = [None, *(self._named(logp[i - 1], how.prompt_logprobs, ids[i]) for i in range(1, len(ids)))]
        return RequestOutput(asked, [self._written(ids, how)])

    def _written(self, ids: list[int], how: SamplingParams) -> CompletionOutput:
        draw, written, places, finish = np.random.default_rng(how.seed), list(ids), [], "length"
        for _ in range(how.max_tokens):
            logp = self._logp(written)[-1]
            probs = np.exp(logp.numpy() / max(how.temperature, 1e-9)) if how.temperature > 0 else None
            token = int(logp.argmax()) if probs is None else int(draw.choice(len(probs), p=probs / probs.sum()))
            if how.logprobs is not None:
                places.append(self._named(logp, how.logprobs, token))
            written.append(token)
            if token == self._tokenizer.eos_token_id:
                finish = "stop"
                break
        new = written[len(ids) :]
        text = self._tokenizer.decode(new, skip_special_tokens=True)
        return CompletionOutput(text, new, finish, places if how.logprobs is not None else None)

    def _named(self, logp: torch.Tensor, k: int, token: int) -> dict[int, Logprob]:
        if k > self._most:
            raise ValueError(f"Requested {k} logprobs, which is greater than max allowed: {self._most}")
        top = torch.topk(logp, min(k, logp.numel())).indices.tolist()
        rank = int((logp > logp[token]).sum()) + 1
        found = {token: Logprob(float(logp[token]), rank)}
        return found | {int(t): Logprob(float(logp[t]), i + 1) for i, t in enumerate(top)}


def install(patch: pytest.MonkeyPatch) -> Seen:
    """Put the fake in the place of vLLM, and return what will be asked of it."""
    seen = Seen()
    package, lora, request = (types.ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request"))
    package.LLM = type("LLM", (LLM,), {"seen": seen})  # type: ignore[attr-defined]
    package.SamplingParams = SamplingParams  # type: ignore[attr-defined]
    request.LoRARequest = LoRARequest  # type: ignore[attr-defined]
    for module in (package, lora, request):
        patch.setitem(sys.modules, module.__name__, module)
    return seen
