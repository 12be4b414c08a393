"""How links read text and chats: a template that does not render is a finding, and what is no id an error."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from tests.models import CHAT, byte_tokenizer

from dlm_sway.chain.metadata import GgufReads
from dlm_sway.chain.result import Finding
from dlm_sway.chain.tokens import HFReads, ServerReads, compare_tokens
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.result import Verdict

OURS = byte_tokenizer(template=CHAT)
BROKEN = {
    "{% if x %}": "TemplateSyntaxError: ",
    "{{ raise_exception('no\x1b[2J') }}": "TemplateError: no [2J",
    "{{ foo.bar.baz }}": "UndefinedError: 'foo' is undefined",
    "{{ raise_exception('no ' * 5000) }}": "TemplateError: no no no",
}


class _File:
    """A GGUF file with a chat template."""

    def __init__(self, template: Any) -> None:
        self.fields = {"tokenizer.chat_template": SimpleNamespace(contents=lambda: template)}


class _Server:
    """A llama.cpp server that renders and cuts text as it likes."""

    url = "http://fake"

    def __init__(self, tokens: Any, prompt: Any = None) -> None:
        self._said = {"/tokenize": {"tokens": tokens}, "/apply-template": {"prompt": prompt}}

    def offers(self, path: str, _: Any) -> Any:
        return self._said[path]


def compared(reference: Any, candidate: Any) -> Finding:
    return compare_tokens(reference, candidate, decode=OURS.decode, bos=OURS.bos_token_id)


@pytest.mark.parametrize("template", BROKEN)
@pytest.mark.parametrize("kind", ["merged", "gguf"])
def test_a_template_that_does_not_render_is_another_and_says_why(kind: str, template: str) -> None:
    reads = GgufReads(_File(template), OURS) if kind == "gguf" else HFReads(byte_tokenizer(template=template))
    found = compared(HFReads(OURS), reads)
    assert (found.verdict, found.cause) == (Verdict.FAIL, "another chat template")
    assert f"does not render a chat that training's does: {BROKEN[template]}" in found.message
    assert len(found.message) < 300
    assert found.message.isprintable()
    assert found.remedy


def test_a_template_that_is_no_text_does_not_render() -> None:
    found = compared(HFReads(OURS), GgufReads(_File([1, 2]), OURS))
    assert (found.verdict, found.cause) == (Verdict.FAIL, "another chat template")


@pytest.mark.parametrize("template", BROKEN)
def test_chats_that_the_base_itself_does_not_render_are_not_compared(template: str) -> None:
    own = byte_tokenizer(template=template)
    found = compared(HFReads(own), HFReads(own))
    assert found.verdict is Verdict.SKIP
    assert found.message.startswith("3 texts and chats give the same ids; training's own chat template does not render")
    assert BROKEN[template] in found.message
    assert found.remedy == "mend the chat template beside the adapter, or else the base's"


@pytest.mark.parametrize("template", BROKEN)
def test_texts_still_tell_where_the_base_renders_no_chat(template: str) -> None:
    found = compared(HFReads(byte_tokenizer(template=template)), HFReads(byte_tokenizer(bos=False)))
    assert (found.verdict, found.cause) == (Verdict.FAIL, "missing BOS")


@pytest.mark.parametrize("tokens", ["abc", 7, ["a"], [None], [-1], [1.5], [math.nan], [2**70], [[1]], {"0": 1}])
def test_what_is_no_list_of_ids_is_one_clear_error(tokens: Any) -> None:
    with pytest.raises(CannotRunError, match="http://fake: the answer holds tokens that are no ids"):
        compared(HFReads(OURS), ServerReads(_Server(tokens)))


def test_a_prompt_that_is_no_text_is_one_clear_error() -> None:
    with pytest.raises(CannotRunError, match="http://fake: the answer holds no text"):
        ServerReads(_Server([1], prompt=["x"])).chat([])


def test_a_server_that_has_no_such_path_is_skipped_and_unknown_ids_are_shown() -> None:
    assert compared(HFReads(OURS), ServerReads(_Server(None))).verdict is Verdict.SKIP
    found = compared(HFReads(OURS), ServerReads(_Server([2**31 - 1])))
    assert (found.verdict, found.cause) == (Verdict.FAIL, "another tokenizer")
