"""SmolLM2 with the demo's adapter from trained to served: a sound chain is whole, and each planted fault is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.gguf_models import save_gguf, serving
from tests.real.merging import merge

from dlm_sway.adapters.convert import convert
from dlm_sway.chain import given
from dlm_sway.chain.result import ChainResult, Finding
from dlm_sway.chain.walk import ChainRequest, walk
from dlm_sway.core.result import Verdict

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.usefixtures("_few_texts")]

CONFIG, TENSORS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "model.safetensors"


@dataclass(frozen=True)
class Trained:
    """The demo's adapter with its base, merged, and the texts it was trained on."""

    model: Path
    adapter: Path
    merged: Path
    data: Path

    def walk(self, adapter: Path | None = None, *, model: Path | None = None, **links: Any) -> ChainResult:
        """Walk, and print what each link says."""
        given_ = {"adapter": adapter or self.adapter, "base": str(model or self.model), "data": self.data}
        result = walk(ChainRequest(**given_, device="cpu", **links))
        for link in result.links:
            print(f"\n{link.name} {link.verdict}", end="")
            for f in link.findings:
                print(f"\n  {f.verdict} {f.step}: {f.cause or ''} {f.message}", end="")
        return result


@pytest.fixture
def _few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "N_DATA", 12)
    monkeypatch.setattr(given, "N_GENERAL", 6)
    monkeypatch.setattr(given, "MAX_TOKENS", 32)


@pytest.fixture(scope="module")
def made(model_dir: Path, trained: Path, document: list[str], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("chain")
    data = folder / "data.txt"
    data.write_text("\n".join(document[:12]), encoding="utf-8")
    return Trained(model_dir, trained, merge(model_dir, trained, folder / "merged"), data)


def named(result: ChainResult) -> tuple[tuple[str, str, str | None], Finding]:
    """Return the link, the step and the cause of the one fault, which is the last link's."""
    assert not any(link.fault for link in result.links[:-1])
    fault = result.links[-1].fault
    assert fault is not None
    assert fault.remedy
    return (result.links[-1].name, fault.step, fault.cause), fault


def copied(folder: Path, out: Path) -> Path:
    return Path(shutil.copytree(folder, out))


def rewritten(file: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def weakened(adapter: Path, out: Path, times: float) -> Path:
    """Return a copy whose change of the weights is `times` as large."""
    copied(adapter, out)
    rewritten(out / TENSORS, lambda all_: {n: t * times if ".lora_B." in n else t for n, t in all_.items()})
    return out


def reconfigured(folder: Path, file: str, **said: Any) -> Path:
    """Return the directory after its JSON file says something else."""
    config = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps(config | said), encoding="utf-8")
    return folder


def test_a_sound_chain_is_whole_from_the_adapter_to_the_server(made: Trained, tmp_path: Path) -> None:
    gguf = save_gguf(made.merged, tmp_path / "merged.gguf", add_bos=False, quant="Q8_0")
    with serving(gguf, n_ctx=256) as url:
        result = made.walk(merged=made.merged, gguf=gguf, endpoint=url)
    assert [link.name for link in result.links] == ["adapter", "merged", "gguf", "served"]
    assert all(link.verdict in (Verdict.PASS, Verdict.WARN) for link in result.links), result
    for link in result.links[1:]:
        (behaviour,) = (f for f in link.findings if f.step == "behaviour")
        assert behaviour.effect_left == pytest.approx(1.0, abs=0.05)
        assert behaviour.lam_hat == pytest.approx(1.0, abs=0.05)


def test_a_bf16_merge_of_a_weak_adapter_is_foreseen_and_named(made: Trained, tmp_path: Path) -> None:
    weak = weakened(made.adapter, tmp_path / "weak", 1e-3)
    result = made.walk(weak, merged=merge(made.model, weak, tmp_path / "bf16", torch.bfloat16))
    found, fault = named(result)
    assert result.links[0].findings[1].evidence["predicted_survival"]["bf16"] < 0.1
    assert found == ("merged", "static", "rounded away")
    assert fault.effect_left == pytest.approx(0.0, abs=0.1)


def test_a_merge_into_another_base_is_named(made: Trained, tmp_path: Path) -> None:
    other = copied(made.model, tmp_path / "other")
    rewritten(other / WEIGHTS, lambda all_: {n: t + 0.01 * t.std() * torch.randn_like(t) for n, t in all_.items()})
    found, _ = named(made.walk(merged=merge(other, made.adapter, tmp_path / "merged")))
    assert found == ("merged", "static", "another base")


@pytest.mark.parametrize("loaded", ["nothing", "without alpha"])
def test_what_a_server_does_to_the_adapter_is_named(made: Trained, tmp_path: Path, loaded: str) -> None:
    said = json.loads((made.adapter / CONFIG).read_text(encoding="utf-8"))
    loras, cause, lam = [], "adapter not applied", 0.0
    if loaded == "without alpha":
        cause, lam = "alpha ignored", said["r"] / said["lora_alpha"]
        misread = reconfigured(copied(made.adapter, tmp_path / "misread"), CONFIG, lora_alpha=said["r"])
        loras = [tmp_path / "a.gguf"]
        convert(misread, to="gguf", out=loras[0], base=str(made.model))
    with serving(save_gguf(made.model, tmp_path / "base.gguf", add_bos=False, quant="Q8_0"), loras, n_ctx=256) as url:
        found, fault = named(made.walk(endpoint=url))
    assert found == ("served", "behaviour", cause)
    assert fault.lam_hat == pytest.approx(lam, abs=0.05)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda t: {"template": t.replace("start|>assistant", "start|>bot")}, "another chat template"),
        (lambda t: {"template": "<|im_start|>" + t}, "doubled BOS"),
        (lambda t: {"template": t, "add_bos": True}, "BOS that training did not have"),
    ],
    ids=["template", "doubled bos", "added bos"],
)
def test_a_gguf_that_reads_otherwise_is_named(
    made: Trained, tmp_path: Path, change: Callable[[str], dict[str, Any]], cause: str
) -> None:
    told = {"add_bos": False, **change((made.merged / "chat_template.jinja").read_text(encoding="utf-8"))}
    found, _ = named(made.walk(gguf=save_gguf(made.merged, tmp_path / "read.gguf", quant="Q8_0", **told)))
    assert found == ("gguf", "tokens", cause)


def test_a_4_bit_file_of_a_weak_adapter_is_named(made: Trained, tmp_path: Path) -> None:
    weak = weakened(made.adapter, tmp_path / "weak", 0.02)
    merged = merge(made.model, weak, tmp_path / "merged")
    gguf = save_gguf(merged, tmp_path / "q4.gguf", add_bos=False, quant="Q4_0")
    found, fault = named(made.walk(weak, gguf=gguf))
    assert found == ("gguf", "behaviour", "drowned in quantisation")
    assert fault.evidence["survival"]["unexplained_low"] > 1


@pytest.mark.parametrize("where", ["adapter", "merged"])
def test_renamed_keys_are_named_where_they_are(made: Trained, tmp_path: Path, where: str) -> None:
    out = copied(made.adapter if where == "adapter" else made.merged, tmp_path / "renamed")
    file = out / (TENSORS if where == "adapter" else WEIGHTS)
    rewritten(file, lambda all_: {n.replace("self_attn", "attn"): t for n, t in all_.items()})
    result = made.walk(out, merged=made.merged) if where == "adapter" else made.walk(merged=out)
    assert named(result)[0] == (where, "static", "renamed keys")


def test_a_head_that_was_tied_again_is_named(made: Trained, tmp_path: Path) -> None:
    """SmolLM2's head is its embedding, so it is given one of its own first."""
    untied = reconfigured(copied(made.model, tmp_path / "untied"), "config.json", tie_word_embeddings=False)
    embedding = "model.embed_tokens.weight"

    def headed(all_: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**all_, "lm_head.weight": all_[embedding] * (1 + 0.05 * torch.randn_like(all_[embedding]))}

    rewritten(untied / WEIGHTS, headed)
    merged = merge(untied, made.adapter, tmp_path / "merged")
    assert made.walk(model=untied, merged=merged).links[-1].fault is None
    rewritten(merged / WEIGHTS, lambda all_: {n: t for n, t in all_.items() if n != "lm_head.weight"})
    reconfigured(merged, "config.json", tie_word_embeddings=True)
    assert named(made.walk(model=untied, merged=merged))[0] == ("merged", "static", "re-tied head")
