"""What each link says of its files where those of the base or the merged model are packed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.chain.made import Made
from tests.gguf_models import save_gguf
from tests.models import CHAT

from dlm_sway.chain.given import ChainRequest, Given
from dlm_sway.chain.links import AdapterLink, GgufLink, MergedLink
from dlm_sway.chain.result import Finding
from dlm_sway.core.errors import BadInputError, CannotRunError
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


def test_a_merge_of_a_model_of_several_parts_is_left_to_behaviour(made: Made) -> None:
    """Its files say language_model.model.layers..., and the loaded model that PEFT names modules of does not."""
    merged = made.merged()
    for model in (made.base, merged):
        weights = load_file(model / "model.safetensors")
        renamed = {f"language_model.{name}": weight for name, weight in weights.items()}
        save_file(renamed, model / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"text_config": {}}))
    (_, files), *_ = MergedLink(_given(made), merged).steps()
    found = files()
    assert (found.verdict, found.cause, found.lam_hat) == (Verdict.SKIP, None, None)
    assert found.message.startswith("no weight that the adapter changes could be compared")


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


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("nope", "no such directory", "name the directory of the merged model as --merged"),
        ("file", "is a file, not a directory", "name the directory of the merged model as --merged"),
        ("empty", "holds no safetensors weights", "save the merged model with `model.save_pretrained`, and name its"),
    ],
)
def test_what_is_no_merged_model_is_said_in_the_words_of_the_option(
    tmp_path: Path, name: str, what: str, remedy: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (_, files), *_ = MergedLink(cast("Given", None), tmp_path / name).steps()
    with pytest.raises(BadInputError, match=what) as refused:
        files()
    assert refused.value.where == str(tmp_path / name)
    assert (refused.value.remedy or "").startswith(remedy)


def test_a_directory_in_the_place_of_a_gguf_file_is_called_one(tmp_path: Path) -> None:
    (_, files), *_ = GgufLink(cast("Given", None), tmp_path).steps()
    with pytest.raises(BadInputError, match="is a directory, not a GGUF file; name a GGUF file"):
        files()
    (tmp_path / "m.gguf").write_bytes(b"x")
    with pytest.raises(BadInputError, match=r"name the file in it: m\.gguf"):
        files()


@pytest.mark.parametrize(
    ("said", "here"),
    [
        ("see the server's log, or raise options.attempts", "see the server's log, or try again later"),
        ("see the server's log, or raise options.timeout_s", "see the server's log, or raise --timeout"),
        ("check the address and options.model", "check the address and --model"),
        ("start the server, or check its address", "start the server, or check its address"),
        (None, None),
    ],
)
def test_a_server_s_remedy_is_said_in_the_options_of_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str | None, here: str | None
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise CannotRunError("no", remedy=said)

    monkeypatch.setattr("dlm_sway.backends.api.open_api", refused)
    given = Given.__new__(Given)
    given.request, given.directory, given.progress = ChainRequest(adapter=tmp_path), tmp_path, Silent()
    given.tokenizer = None
    with pytest.raises(CannotRunError) as raised, given.server("http://127.0.0.1:9"):
        pass
    assert raised.value.remedy == here
