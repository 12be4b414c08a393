"""The chain: a healthy one passes link by link, and each planted fault is named by its link and its cause."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fake_server import fake_server
from tests.gguf_models import save_gguf, serving
from tests.models import CHAT, byte_tokenizer, lora, open_backend, save_adapter, save_base

from dlm_sway.adapters.convert import convert
from dlm_sway.chain import walk as walk_module
from dlm_sway.chain.result import ChainResult, Link
from dlm_sway.chain.walk import ChainRequest, walk
from dlm_sway.cli.app import run
from dlm_sway.core.result import Verdict

READS = partial(byte_tokenizer, merges=(("Ġ", "t"),))  # llama.cpp wants at least one merge
TARGETS = {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4, "lora_alpha": 12}


@pytest.fixture(autouse=True)
def _fewer_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "_N_GENERAL", 10)
    monkeypatch.setattr(walk_module, "MAX_TOKENS", 48)


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

    def walk(self, **links: Any) -> ChainResult:
        """Walk."""
        return walk(ChainRequest(adapter=self.adapter, base=str(self.base), device="cpu", **links))


def make(folder: Path, *, std: float = 0.1, template: str | None = CHAT, options: Any = TARGETS, **base: Any) -> Made:
    made = save_base(folder / "base", tokenizer=READS(template=template), **base)
    return Made(made, save_adapter(made, folder / "adapter", lora(**options), std=std), folder)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path)


def broken(result: ChainResult) -> Link:
    assert result.verdict is Verdict.FAIL, [f for link in result.links for f in link.findings]
    assert not any(link.fault for link in result.links[:-1])
    return result.links[-1]


def test_a_healthy_chain_passes_from_adapter_to_server(made: Made) -> None:
    merged = made.merged()
    gguf = save_gguf(merged, made.folder / "merged.gguf", template=CHAT)
    result = made.walk(merged=merged, gguf=gguf)
    assert [link.verdict for link in result.links] == [Verdict.PASS] * 3, result
    for link in result.links[1:]:
        last = link.findings[-1]
        assert last.step == "behaviour"
        assert last.effect_left == pytest.approx(1.0, abs=0.01)
        assert last.lam_hat == pytest.approx(1.0, abs=0.02)
    with serving(gguf) as url:
        served = made.walk(endpoint=url).links[-1]
    assert [f.step for f in served.findings] == ["tokens", "behaviour"]
    assert served.findings[1].verdict is Verdict.PASS
    assert served.findings[1].effect_left == pytest.approx(1.0, abs=0.01)


def test_a_bf16_merge_of_a_weak_adapter_is_foreseen_and_then_named(tmp_path: Path) -> None:
    made = make(tmp_path, std=0.004)
    forecast = made.walk().links[0].findings[1]
    assert forecast.verdict is Verdict.WARN
    kept = forecast.evidence["predicted_survival"]["bf16"]
    assert kept < 0.9
    link = broken(made.walk(merged=made.merged(torch.bfloat16)))
    assert (link.name, link.fault.step, link.fault.cause) == ("merged", "static", "rounded away")  # type: ignore[union-attr]
    assert link.fault.lam_hat == pytest.approx(kept, abs=0.1)  # type: ignore[union-attr]


def test_a_strong_adapter_survives_bf16(made: Made) -> None:
    assert made.walk().links[0].findings[1].verdict is Verdict.PASS
    assert made.walk(merged=made.merged(torch.bfloat16)).links[-1].findings[0].verdict is Verdict.PASS


def test_a_4_bit_file_of_a_weak_adapter_is_named(tmp_path: Path) -> None:
    made = make(tmp_path, std=0.004, intermediate_size=64)  # blocks of 32
    link = broken(made.walk(gguf=save_gguf(made.merged(), tmp_path / "q4.gguf", template=CHAT, quant="Q4_0")))
    assert link.fault is not None
    assert link.findings[0].verdict is Verdict.WARN
    assert link.findings[0].message.startswith("q4_0 moves the weights by")
    assert (link.name, link.fault.step, link.fault.cause) == ("gguf", "behaviour", "drowned in quantisation")


def other_base(made: Made) -> Path:
    out = Path(shutil.copytree(made.base, made.folder / "other"))
    weights = load_file(out / "model.safetensors")
    for name, value in weights.items():
        weights[name] = value + 0.02 * torch.randn_like(value)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


def retied(made: Made) -> Path:
    merged = made.merged()
    config = json.loads((merged / "config.json").read_text())
    (merged / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    weights = load_file(merged / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    return merged


def renamed(made: Made) -> Path:
    merged = made.merged()
    weights = load_file(merged / "model.safetensors")
    moved = {n.replace("self_attn", "attention"): v for n, v in weights.items()}
    save_file(moved, merged / "model.safetensors", metadata={"format": "pt"})
    return merged


def templated(made: Made) -> Path:
    merged = made.merged()
    READS(template=CHAT.replace("[assistant]", "[bot]")).save_pretrained(merged)
    return merged


def doubled(made: Made) -> Path:
    merged = made.merged()
    tokenizer = READS(template="<s>" + CHAT)
    tokenizer.save_pretrained(merged)
    return merged


FAULTS: dict[str, tuple[Callable[[Made], Path], str, str]] = {
    "wrong base": (lambda m: m.merged(onto=other_base(m)), "static", "another base"),
    "alpha ignored": (lambda m: m.merged(scale=1 / 3), "static", "alpha ignored"),
    "not merged": (lambda m: m.merged(scale=0.0), "static", "adapter not applied"),
    "half merged": (lambda m: m.merged(scale=0.6), "static", "another scale"),
    "re-tied head": (retied, "static", "re-tied head"),
    "renamed": (renamed, "static", "renamed keys"),
    "template": (templated, "tokens", "another chat template"),
    "doubled bos": (doubled, "tokens", "doubled BOS"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_merge_is_named_by_link_and_cause(made: Made, fault: str) -> None:
    plant, step, cause = FAULTS[fault]
    link = broken(made.walk(merged=plant(made)))
    assert link.fault is not None
    assert (link.name, link.fault.step, link.fault.cause) == ("merged", step, cause), link.fault
    assert link.fault.remedy


def test_rslora_ignored_is_told_from_alpha(tmp_path: Path) -> None:
    made = make(tmp_path, options={**TARGETS, "use_rslora": True, "r": 4})
    link = broken(made.walk(merged=made.merged(scale=0.5)))
    assert link.fault is not None
    assert link.fault.cause == "rsLoRA ignored"
    assert link.fault.lam_hat == pytest.approx(0.5, abs=0.01)


def test_renamed_keys_of_the_adapter_itself_end_the_walk(made: Made) -> None:
    file = made.adapter / "adapter_model.safetensors"
    save_file({n.replace("self_attn", "attn"): t for n, t in load_file(file).items()}, file, metadata={"format": "pt"})
    result = made.walk(merged=made.base)
    link = broken(result)
    assert link.fault is not None
    assert (link.name, link.fault.step, link.fault.cause) == ("adapter", "static", "renamed keys")
    assert result.not_walked == ("merged",)


@pytest.mark.parametrize(
    ("loras", "scale", "cause"),
    [(0, 1.0, "adapter not applied"), (1, 1 / 3, "alpha ignored")],
    ids=["not loaded", "alpha ignored"],
)
def test_what_a_server_does_to_the_adapter_is_named(made: Made, loras: int, scale: float, cause: str) -> None:
    adapter = made.adapter
    if scale != 1.0:
        adapter = Path(shutil.copytree(made.adapter, made.folder / "misread"))
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": config["r"]}))
    convert(adapter, to="gguf", out=made.folder / "a.gguf", base=str(made.base))
    model = save_gguf(made.base, made.folder / "base.gguf", template=CHAT)
    with serving(model, [made.folder / "a.gguf"][:loras]) as url:
        link = broken(made.walk(endpoint=url))
    assert link.fault is not None
    assert (link.name, link.fault.step, link.fault.cause) == ("served", "behaviour", cause)
    assert link.fault.lam_hat == pytest.approx(0.0 if loras == 0 else scale, abs=0.03)


def test_a_gguf_with_another_template_or_bos_rule_is_named(made: Made) -> None:
    merged = made.merged()
    gguf = save_gguf(merged, made.folder / "t.gguf", template=CHAT.replace("[assistant]", "[bot]"))
    link = broken(made.walk(gguf=gguf))
    assert link.fault is not None
    assert (link.name, link.fault.cause) == ("gguf", "another chat template")
    assert "'ass' in training, 'bot' here" in link.fault.message
    gguf = save_gguf(merged, made.folder / "b.gguf", template=CHAT, add_bos=False)
    link = broken(made.walk(gguf=gguf))
    assert link.fault is not None
    assert link.fault.cause == "missing BOS"


def test_a_server_that_dies_is_an_error_and_the_other_links_stand(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    with fake_server("llama.cpp") as gone:
        url = gone.url
    walked = walk(ChainRequest(adapter=made.adapter, base=str(made.base), device="cpu", endpoint=url))
    assert walked.verdict is Verdict.ERROR
    assert walked.links[0].verdict is Verdict.PASS


def test_all_goes_on_behind_a_broken_link(made: Made) -> None:
    result = made.walk(merged=made.merged(scale=0.0), gguf=save_gguf(made.base, made.folder / "b.gguf"), every=True)
    assert [link.name for link in result.links] == ["adapter", "merged", "gguf"]
    assert [f.step for f in result.links[1].findings] == ["static", "tokens", "behaviour"]
    assert result.links[1].findings[-1].cause == "adapter not applied"
    assert result.links[1].findings[-1].effect_left == pytest.approx(0.0, abs=0.02)


def test_the_command_prints_the_fault_and_writes_it(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged, out = made.merged(scale=1 / 3), tmp_path / "chain.json"
    given = ["chain", str(made.adapter), "--base", str(made.base), "--merged", str(merged), "--device", "cpu"]
    assert run([*given, "--json", str(out), "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert "alpha ignored: " in printed
    document = json.loads(out.read_text())
    assert document["verdict"] == "fail"
    assert document["links"][1]["findings"][0]["cause"] == "alpha ignored"


def test_a_server_that_gives_text_alone_is_an_error_that_says_so(made: Made) -> None:
    with fake_server("text") as server:
        request = ChainRequest(adapter=made.adapter, base=str(made.base), device="cpu", endpoint=server.url)
        walked = walk(request)
    assert walked.verdict is Verdict.ERROR
    assert "gives no log-probs" in walked.model_dump_json()
