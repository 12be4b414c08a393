"""A tiny base with an adapter, makers of the links that follow, and the faults that a merge can have."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from tests.models import CHAT, byte_tokenizer, lora, open_backend, save_adapter, save_base

from dlm_sway.chain.result import ChainResult, Finding, Link
from dlm_sway.chain.walk import ChainRequest, walk
from dlm_sway.core.result import Verdict

READS = partial(byte_tokenizer, merges=(("Ġ", "t"),))  # llama.cpp wants at least one merge
TARGETS: Final = {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4, "lora_alpha": 12}


@dataclass
class Made:
    """A base with an adapter, and makers of what follows."""

    base: Path
    adapter: Path
    folder: Path

    def merged(self, dtype: torch.dtype = torch.float32, *, onto: Path | None = None, scale: float = 1.0) -> Path:
        """Merge into a base, in a dtype, at a scale."""
        out = self.folder / "merged"
        backend = open_backend(onto or self.base, self.adapter, dtype={torch.float32: "fp32"}.get(dtype, "bf16"))
        for layer in backend.sites.layers:
            layer.scaling["default"] *= scale
        backend.model.merge_and_unload().save_pretrained(out)
        backend.codec.tokenizer.save_pretrained(out)
        backend.close()
        return out

    def misread(self, **config: Any) -> Path:
        """Return a copy of the adapter whose config says something else, as a server that misreads it would."""
        out = Path(shutil.copytree(self.adapter, self.folder / "misread"))
        said = json.loads((out / "adapter_config.json").read_text())
        (out / "adapter_config.json").write_text(json.dumps(said | config))
        return out

    def walk(self, **links: Any) -> ChainResult:
        """Walk."""
        return walk(ChainRequest(adapter=self.adapter, base=str(self.base), device="cpu", **links))


def make(folder: Path, *, std: float = 0.1, template: str | None = CHAT, options: Any = TARGETS, **base: Any) -> Made:
    """Make a base and an adapter whose factors have this standard deviation."""
    made = save_base(folder / "base", tokenizer=READS(template=template), **base)
    return Made(made, save_adapter(made, folder / "adapter", lora(**options), std=std), folder)


def answers(folder: Path, n: int = 12) -> Path:
    """Write prompts with their answers as JSONL and return the file."""
    rows = [{"prompt": f"what is {i}?", "completion": f"{i} is the bell of line {7 * i}."} for i in range(n)]
    path = folder / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def broken(result: ChainResult) -> tuple[Link, Finding]:
    """Return the link that broke, the only one and the last, and its fault, which says what to do."""
    assert result.verdict is Verdict.FAIL, [f for link in result.links for f in link.findings]
    assert not any(link.fault for link in result.links[:-1])
    fault = result.links[-1].fault
    assert fault is not None
    assert fault.remedy
    return result.links[-1], fault


def found(link: Link, step: str) -> Finding:
    """Return what the last step of this kind says of a link."""
    return [f for f in link.findings if f.step == step][-1]


def other_base(made: Made) -> Path:
    """Return a copy of the base with all weights a little off."""
    out = Path(shutil.copytree(made.base, made.folder / "other"))
    weights = load_file(out / "model.safetensors")
    for name, value in weights.items():
        weights[name] = value + 0.02 * torch.randn_like(value)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


def retied(made: Made) -> Path:
    """Return a merged model whose head was thrown away for the embedding."""
    merged = made.merged()
    config = json.loads((merged / "config.json").read_text())
    (merged / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    weights = load_file(merged / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    return merged


def renamed(made: Made) -> Path:
    """Return a merged model with other names in its file."""
    merged = made.merged()
    weights = load_file(merged / "model.safetensors")
    moved = {n.replace("self_attn", "attention"): v for n, v in weights.items()}
    save_file(moved, merged / "model.safetensors", metadata={"format": "pt"})
    return merged


def read_with(made: Made, template: str) -> Path:
    """Return a merged model whose tokenizer has another chat template."""
    merged = made.merged()
    READS(template=template).save_pretrained(merged)
    return merged


FAULTS: Final[dict[str, tuple[Callable[[Made], Path], str, str]]] = {
    "wrong base": (lambda m: m.merged(onto=other_base(m)), "static", "another base"),
    "alpha ignored": (lambda m: m.merged(scale=1 / 3), "static", "alpha ignored"),
    "not merged": (lambda m: m.merged(scale=0.0), "static", "adapter not applied"),
    "half merged": (lambda m: m.merged(scale=0.6), "static", "another scale"),
    "re-tied head": (retied, "static", "re-tied head"),
    "renamed": (renamed, "static", "renamed keys"),
    "template": (lambda m: read_with(m, CHAT.replace("[assistant]", "[bot]")), "tokens", "another chat template"),
    "broken template": (lambda m: read_with(m, "{% if x %}"), "tokens", "another chat template"),
    "doubled bos": (lambda m: read_with(m, "<s>" + CHAT), "tokens", "doubled BOS"),
    "no prompt": (lambda m: read_with(m, CHAT.replace("[assistant]", "")), "tokens", "missing generation prompt"),
}
"""How to plant each fault of a merge, the step that finds it and the name that it gets."""
