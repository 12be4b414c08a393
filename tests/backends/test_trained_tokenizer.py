"""The tokenizer saved beside an adapter: taken where the base embeds its ids, else its chat template alone."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.models import CHAT, adapter_of, base_of, byte_tokenizer, lora, open_backend, save_adapter, save_base

from dlm_sway.backends.one_base import OneBase
from dlm_sway.backends.trained_tokenizer import load_trained_tokenizer
from dlm_sway.core.errors import AdapterError
from dlm_sway.core.model import ModelSpec

OTHER = CHAT.replace("assistant", "model")
TEXT = "the bell rings"


def trained(base: Path, adapter: Path) -> Any:
    return load_trained_tokenizer(ModelSpec(base=str(base)), adapter)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Return a copy of an adapter without a tokenizer, which a test may change."""
    return Path(shutil.copytree(adapter_of("llama", "qv"), tmp_path / "adapter"))


@pytest.mark.parametrize("own", [None, OTHER])
def test_the_adapter_s_chat_template_is_the_one_that_texts_are_read_with(
    tmp_path: Path, adapter: Path, own: str | None
) -> None:
    base = save_base(tmp_path / "base", tokenizer=byte_tokenizer(template=own))
    byte_tokenizer(template=CHAT).save_pretrained(adapter)
    codec = open_backend(base, adapter).codec
    pair = codec.encode_pair("Where?", "There.", format="auto")
    assert codec.tokenizer.decode(pair.ids.tolist()) == "<s>[user]Where?[/user][assistant]There."


def test_without_a_template_of_its_own_the_base_s_stays(tmp_path: Path, adapter: Path) -> None:
    base = save_base(tmp_path / "base", tokenizer=byte_tokenizer(template=CHAT))
    assert trained(base, adapter).chat_template == CHAT
    byte_tokenizer().save_pretrained(adapter)
    assert trained(base, adapter).chat_template == CHAT


def test_the_end_that_was_trained_is_taken_and_the_length_of_its_texts_is_not(adapter: Path) -> None:
    saved = byte_tokenizer(bos=False)
    saved.eos_token, saved.model_max_length = "<s>", 16
    saved.save_pretrained(adapter)
    found = trained(base_of("llama"), adapter)
    assert (found.eos_token, found.bos_token) == ("<s>", None)
    assert found.model_max_length > 10**6
    assert found(TEXT)["input_ids"] == byte_tokenizer(bos=False)(TEXT)["input_ids"]


@pytest.mark.parametrize(("n_added", "taken"), [(10, True), (300, False)])
def test_tokens_that_were_added_are_read_where_the_base_embeds_them(adapter: Path, n_added: int, taken: bool) -> None:
    saved = byte_tokenizer(template=CHAT)
    saved.add_special_tokens({"additional_special_tokens": [f"<|{i}|>" for i in range(n_added)]})
    saved.save_pretrained(adapter)
    found = trained(base_of("llama"), adapter)
    assert found.chat_template == CHAT
    assert (found("<|3|>", add_special_tokens=False)["input_ids"] == saved.encode("<|3|>")[1:]) is taken
    assert found(TEXT)["input_ids"] == byte_tokenizer()(TEXT)["input_ids"]


def in_settings(adapter: Path) -> None:
    (adapter / "chat_template.jinja").unlink()
    settings = adapter / "tokenizer_config.json"
    said = json.loads(settings.read_text()) | {"chat_template": [{"name": "default", "template": CHAT}]}
    settings.write_text(json.dumps(said))
    (adapter / "tokenizer.json").unlink()


def needs_code(adapter: Path) -> None:
    settings = adapter / "tokenizer_config.json"
    said = json.loads(settings.read_text()) | {
        "tokenizer_class": "Mine",
        "auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]},
    }
    settings.write_text(json.dumps(said))
    (adapter / "mine.py").write_text("raise SystemExit('code of the adapter ran')")


def damaged(adapter: Path) -> None:
    (adapter / "tokenizer.json").write_text('{"version": "1.0", "model": {"type"')


def settings_gone(adapter: Path) -> None:
    (adapter / "tokenizer_config.json").unlink()
    (adapter / "tokenizer.json").unlink()


@pytest.mark.parametrize("change", [in_settings, needs_code, damaged, settings_gone])
def test_where_the_tokenizer_cannot_be_used_its_chat_template_is(
    adapter: Path, change: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    byte_tokenizer(template=CHAT).save_pretrained(adapter)
    change(adapter)
    with caplog.at_level(logging.WARNING):
        found = trained(base_of("llama"), adapter)
    assert found.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False).startswith("<s>[user]a")
    assert found(TEXT)["input_ids"] == byte_tokenizer()(TEXT)["input_ids"]
    told = [r.message for r in caplog.records if r.name.startswith("dlm_sway")]
    assert len(told) == (change in (needs_code, damaged))
    assert all(m.startswith(f"the tokenizer saved with the adapter is not used: {adapter}: ") for m in told)


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_template_that_cannot_be_read_is_an_error_that_names_its_file(adapter: Path, file: str) -> None:
    (adapter / file).write_bytes(b"\xff\xfe{")
    with pytest.raises(AdapterError) as raised:
        trained(base_of("llama"), adapter)
    assert Path(str(raised.value.where)) == adapter / file
    assert raised.value.remedy


def test_each_adapter_on_one_base_is_read_with_its_own(tmp_path: Path, adapter: Path) -> None:
    byte_tokenizer(template=CHAT).save_pretrained(adapter)
    plain = save_adapter(base_of("llama"), tmp_path / "plain", lora())
    with OneBase() as bases:
        for folder, chat in ((adapter, True), (plain, False)):
            spec = ModelSpec(base=str(base_of("llama")), adapter=folder, dtype="fp32", device="cpu")
            with bases.lent(spec) as backend:
                assert backend.codec.has_chat_template is chat
        assert bases.loads == 1
