"""What each link says of its files where those of the base or the merged model are packed."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tests.chain.made import Made
from tests.gguf_models import save_gguf
from tests.models import CHAT

from dlm_sway.chain.given import ChainRequest, Given
from dlm_sway.chain.links import AdapterLink, GgufLink, MergedLink
from dlm_sway.chain.result import Finding
from dlm_sway.core.progress import Silent
from dlm_sway.core.result import Verdict


def test_what_a_merge_into_a_packed_base_would_keep_is_not_told(made: Made) -> None:
    pack(made.base)
    (_, files), (_, forecast), _ = AdapterLink(_given(made)).steps()
    assert files().verdict is Verdict.PASS
    _assert_skipped(forecast(), "--base")


def test_a_packed_merge_is_left_to_behaviour(made: Made) -> None:
    merged = made.merged()
    pack(merged)
    (_, files), *_ = MergedLink(_given(made), merged).steps()
    _assert_skipped(files(), "--merged")


def test_a_merge_of_a_packed_base_is_left_to_behaviour(made: Made) -> None:
    merged = made.merged()
    gguf = save_gguf(merged, made.folder / "m.gguf", template=CHAT)
    pack(made.base)
    for link in (MergedLink(_given(made), merged), GgufLink(_given(made), gguf)):
        (_, files), *_ = link.steps()
        _assert_skipped(files(), "--base")


def pack(model: Path) -> None:
    """Save the matrices of a model as bitsandbytes does: two weights a byte, and constants beside them."""
    weights = load_file(model / "model.safetensors")
    for name in [name for name in weights if "_proj" in name]:
        n = weights[name].numel()
        weights[name] = torch.zeros(n // 2, 1, dtype=torch.uint8)
        weights[f"{name}.absmax"] = torch.ones(-(-n // 64))
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    said = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (model / "config.json").write_text(json.dumps(config | said))


def _given(made: Made) -> Given:
    return Given(ChainRequest(adapter=made.adapter, base=str(made.base), device="cpu"), Silent())


def _assert_skipped(found: Finding, remedy: str) -> None:
    assert (found.verdict, found.cause, found.lam_hat) == (Verdict.SKIP, None, None)
    assert found.message == "packed weights are not compared; behaviour decides"
    assert remedy in found.remedy
