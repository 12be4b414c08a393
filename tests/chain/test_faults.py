"""Each planted fault is named by its link and its cause, and its message says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import gguf_models
from tests.chain.made import FAULTS, TARGETS, Made, answers, broken, found, make, retied
from tests.gguf_models import save_gguf, serving
from tests.models import CHAT

from dlm_sway.adapters.convert import convert
from dlm_sway.core.result import Verdict


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_merge_is_named_by_link_and_cause(made: Made, fault: str) -> None:
    plant, step, cause = FAULTS[fault]
    link, named = broken(made.walk(merged=plant(made)))
    assert (link.name, named.step, named.cause) == ("merged", step, cause), named


def test_rslora_ignored_is_told_from_alpha(tmp_path: Path) -> None:
    made = make(tmp_path, options={**TARGETS, "use_rslora": True, "r": 4})
    _, named = broken(made.walk(merged=made.merged(scale=0.5)))
    assert named.cause == "rsLoRA ignored"
    assert named.lam_hat == pytest.approx(0.5, abs=0.01)


def test_a_bf16_merge_of_a_weak_adapter_is_foreseen_and_then_named(tmp_path: Path) -> None:
    made = make(tmp_path, std=0.002)
    forecast = made.walk().links[0].findings[1]
    assert forecast.verdict is Verdict.WARN
    assert forecast.remedy.startswith("merge in fp32")
    kept = forecast.evidence["predicted_survival"]["bf16"]
    assert kept < 0.15
    link, named = broken(made.walk(merged=made.merged(torch.bfloat16)))
    assert (link.name, named.step, named.cause) == ("merged", "static", "rounded away")
    assert named.effect_left == pytest.approx(kept, abs=0.1)


def test_a_4_bit_file_of_a_weak_adapter_is_named(tmp_path: Path) -> None:
    made = make(tmp_path, std=0.004, intermediate_size=64)  # blocks of 32
    gguf = save_gguf(made.merged(), tmp_path / "q4.gguf", template=CHAT, quant="Q4_0")
    link, named = broken(made.walk(gguf=gguf, data=answers(tmp_path)))
    assert found(link, "static").verdict is Verdict.WARN
    assert found(link, "static").message.startswith("q4_0 moves the weights by")
    assert (link.name, named.step, named.cause) == ("gguf", "behaviour", "drowned in quantisation")
    assert named.evidence["survival"]["unexplained_low"] > 1


def test_renamed_keys_of_the_adapter_itself_end_the_walk(made: Made) -> None:
    file = made.adapter / "adapter_model.safetensors"
    save_file({n.replace("self_attn", "attn"): t for n, t in load_file(file).items()}, file, metadata={"format": "pt"})
    result = made.walk(merged=made.base)
    link, named = broken(result)
    assert (link.name, named.step, named.cause) == ("adapter", "static", "renamed keys")
    assert result.not_walked == ("merged",)


@pytest.mark.parametrize(
    ("options", "misread", "cause", "lam"),
    [
        (TARGETS, None, "adapter not applied", 0.0),
        (TARGETS, {"lora_alpha": 4}, "alpha ignored", 1 / 3),
        ({**TARGETS, "use_rslora": True}, {"use_rslora": False}, "rsLoRA ignored", 0.5),
    ],
    ids=["not loaded", "alpha ignored", "rsLoRA ignored"],
)
def test_what_a_server_does_to_the_adapter_is_named(
    tmp_path: Path, options: Any, misread: dict[str, Any] | None, cause: str, lam: float
) -> None:
    made = make(tmp_path, options=options)
    loras = []
    if misread is not None:
        loras = [tmp_path / "a.gguf"]
        convert(made.misread(**misread), to="gguf", out=loras[0], base=str(made.base))
    with serving(save_gguf(made.base, tmp_path / "base.gguf", template=CHAT), loras) as url:
        link, named = broken(made.walk(endpoint=url))
    assert (link.name, named.step, named.cause) == ("served", "behaviour", cause)
    assert named.lam_hat == pytest.approx(lam, abs=0.03)


def test_an_adapter_applied_twice_is_named(made: Made) -> None:
    convert(made.adapter, to="gguf", out=made.folder / "a.gguf", base=str(made.base))
    model = save_gguf(made.merged(), made.folder / "m.gguf", template=CHAT)
    with serving(model, [made.folder / "a.gguf"]) as url:
        link, named = broken(made.walk(endpoint=url))
    assert (link.name, named.step) == ("served", "behaviour")
    assert named.cause in ("another scale", "other weights")


def test_a_gguf_without_the_head_is_named(made: Made) -> None:
    link, named = broken(made.walk(gguf=save_gguf(retied(made), made.folder / "r.gguf", template=CHAT)))
    assert (link.name, named.step, named.cause) == ("gguf", "static", "re-tied head")


def test_a_gguf_with_other_names_is_named(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    name_of = gguf_models._gguf_name
    monkeypatch.setattr(gguf_models, "_gguf_name", lambda *given: name_of(*given).replace("attn_q", "attn_query"))
    link, named = broken(made.walk(gguf=save_gguf(made.merged(), made.folder / "n.gguf", template=CHAT)))
    assert (link.name, named.step, named.cause) == ("gguf", "static", "renamed keys")
    assert "q_proj" in named.message


def test_a_gguf_with_another_template_is_named(made: Made) -> None:
    gguf = save_gguf(made.merged(), made.folder / "t.gguf", template=CHAT.replace("[assistant]", "[bot]"))
    link, named = broken(made.walk(gguf=gguf))
    assert (link.name, named.cause) == ("gguf", "another chat template")
    assert "'ass' in training, 'bot' here" in named.message


def test_a_gguf_whose_template_does_not_render_is_named_and_the_links_before_it_stand(made: Made) -> None:
    gguf = save_gguf(made.merged(), made.folder / "x.gguf", template="{{ raise_exception('no') }}")
    link, named = broken(made.walk(merged=made.folder / "merged", gguf=gguf))
    assert (link.name, named.step, named.cause) == ("gguf", "tokens", "another chat template")
    assert named.message.endswith("does not render a chat that training's does: TemplateError: no")


def test_a_gguf_with_another_rule_for_bos_is_named(made: Made) -> None:
    link, named = broken(made.walk(gguf=save_gguf(made.merged(), made.folder / "b.gguf", template=CHAT, add_bos=False)))
    assert (link.name, named.cause) == ("gguf", "missing BOS")


def test_a_gguf_that_doubles_bos_is_named(made: Made) -> None:
    gguf = save_gguf(made.merged(), made.folder / "d.gguf", template="<s>" + CHAT)
    link, named = broken(made.walk(gguf=gguf))
    assert (link.name, named.step, named.cause) == ("gguf", "tokens", "doubled BOS")
