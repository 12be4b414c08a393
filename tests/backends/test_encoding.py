"""Text to tokens: encoded once, split at the character, special tokens where they belong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models import CHAT, byte_tokenizer

from dlm_sway.backends.encoding import TextEncoder, context_window
from dlm_sway.core.errors import BadInputError

BOS, EOS = 0, 1
MERGES = (("b", "e"), ("l", "l"), ("be", "ll"), ("Ġ", "bell"), ("r", "i"))


def encoder(**options: Any) -> TextEncoder:
    return TextEncoder(byte_tokenizer(**options), max_length=128)


def words(codec: TextEncoder, ids: Any) -> list[str]:
    return [codec.tokenizer.decode([i]) for i in ids]


def split(codec: TextEncoder, prompt: str, completion: str, **options: Any) -> tuple[list[str], list[str]]:
    """Return the tokens before and in the completion, as text."""
    pair = codec.encode_pair(prompt, completion, **options)
    assert pair.ids.dtype == np.int64
    return words(codec, pair.ids[: pair.start]), words(codec, pair.ids[pair.start :])


def test_the_completion_begins_with_its_first_token() -> None:
    assert split(encoder(merges=MERGES), "the", " bell rings") == (
        ["<s>", "t", "h", "e"],
        [" bell", " ", "ri", "n", "g", "s"],
    )


@pytest.mark.parametrize(("prompt", "completion"), [("the be", "ll"), ("the bel", "l"), ("the ", "bell")])
def test_a_token_across_the_boundary_belongs_to_the_completion(prompt: str, completion: str) -> None:
    assert split(encoder(merges=MERGES), prompt, completion) == (["<s>", "t", "h", "e"], [" bell"])


@settings(deadline=None)
@given(prompt=st.text(max_size=12), completion=st.text(min_size=1, max_size=12), bos=st.booleans())
def test_any_text_is_cut_at_its_characters(prompt: str, completion: str, bos: bool) -> None:
    """Every byte of the completion is scored, if something is before it, and no token that ends in the prompt is."""
    try:
        text = (prompt + completion).encode()
    except UnicodeEncodeError:
        return  # half a surrogate pair is no text
    codec = encoder(bos=bos)
    pair = codec.encode_pair(prompt, completion, format="raw")
    n_before = len(prompt.encode()) + bos
    # Where nothing is before it, the first byte has no log-prob, unless it is all there is.
    n_prefix = int(bos or len(text) == 1)
    assert len(pair.ids) == n_prefix + len(text)
    assert pair.start == max(1, n_before)


@pytest.mark.parametrize("text", ["潮汐鐘", "الجرس", "🔔🌊", "naïve", "e\u0301", "👩‍🔬 x"])
def test_characters_of_several_bytes_are_never_cut(text: str) -> None:
    codec = encoder(merges=MERGES)
    for i in range(len(text)):
        pair = codec.encode_pair(text[:i], text[i:])
        before = codec.tokenizer.decode(pair.ids[: pair.start].tolist(), skip_special_tokens=True)
        after = codec.tokenizer.decode(pair.ids[pair.start :].tolist(), skip_special_tokens=True)
        assert before + after == text
        assert after.endswith(text[i:])
        assert "\ufffd" not in before + after


def test_a_merge_across_bytes_of_two_characters_belongs_to_the_completion() -> None:
    codec = encoder(merges=(("©", "x"), ("Ã", "©x")))  # in the byte-level alphabet é is Ã and ©
    before, after = split(codec, "aé", "x")
    assert before == ["<s>", "a"]
    assert after == ["éx"]


def test_a_text_without_a_prompt_is_scored_from_its_bos_on() -> None:
    pair = encoder().encode_pair("", "ab")
    assert (pair.ids[0], pair.start, pair.n_scored) == (BOS, 1, 2)


def test_without_a_bos_the_first_token_of_a_text_is_read_and_not_scored() -> None:
    codec = encoder(bos=False)
    pair = codec.encode_pair("", "ab")
    assert words(codec, pair.ids) == ["a", "b"]
    assert (pair.start, pair.n_scored) == (1, 1)


def test_a_text_of_one_token_without_a_bos_stands_behind_the_prefix_token() -> None:
    pair = encoder(bos=False).encode_pair("", "a")
    assert (pair.ids[0], pair.start, pair.n_scored) == (EOS, 1, 1)


def test_a_tokenizer_without_any_special_token_uses_its_first() -> None:
    tokenizer = byte_tokenizer(bos=False, pad=False)
    tokenizer.eos_token = None
    codec = TextEncoder(tokenizer, max_length=128)
    assert codec.prefix_id == 0
    assert codec.encode_prompt("").tolist() == [0]


@pytest.mark.parametrize("bos", [True, False])
def test_an_eos_that_the_tokenizer_appends_is_neither_scored_nor_read(bos: bool) -> None:
    plain, appending = encoder(bos=bos), encoder(bos=bos, append_eos=True)
    assert appending.tokenizer("ab")["input_ids"][-1] == EOS
    for prompt in ("the", ""):
        np.testing.assert_array_equal(
            appending.encode_pair(prompt, " bell").ids, plain.encode_pair(prompt, " bell").ids
        )
        np.testing.assert_array_equal(appending.encode_prompt(prompt), plain.encode_prompt(prompt))


def test_an_eos_that_the_text_itself_ends_with_is_scored() -> None:
    before, after = split(encoder(), "ab", "c</s>")
    assert (before, after) == (["<s>", "a", "b"], ["c", "</s>"])


@pytest.mark.parametrize("format_", ["raw", "auto"])
def test_an_empty_completion_is_refused(format_: Any) -> None:
    with pytest.raises(BadInputError, match="the completion is empty; give at least one character"):
        encoder().encode_pair("the bell", "", format=format_)


def test_a_completion_without_a_token_is_refused() -> None:
    from tokenizers import normalizers

    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    with pytest.raises(BadInputError, match="holds no token"):
        TextEncoder(tokenizer, max_length=128).encode_pair("the bell", "  ")


def test_a_prompt_is_rendered_as_a_conversation_without_a_second_bos() -> None:
    codec = encoder(template=CHAT)
    before, after = split(codec, "ring", "ok", format="chat")
    assert "".join(before) == "<s>[user]ring[/user][assistant]"
    assert before.count("<s>") == 1
    assert after == ["o", "k"]
    np.testing.assert_array_equal(
        codec.encode_prompt("ring", format="chat"), codec.encode_pair("ring", "ok", format="chat").ids[:-2]
    )


def test_auto_uses_the_template_where_there_is_a_prompt_and_a_template() -> None:
    with_template, without = encoder(template=CHAT), encoder()
    assert "".join(split(with_template, "ring", "ok", format="auto")[0]).endswith("[assistant]")
    assert split(with_template, "", "ok", format="auto") == (["<s>"], ["o", "k"])
    assert split(without, "ring", "ok", format="auto") == split(without, "ring", "ok", format="raw")
    assert with_template.has_chat_template
    assert not without.has_chat_template


def test_raw_leaves_the_template_alone() -> None:
    assert split(encoder(template=CHAT), "ring", "ok", format="raw") == (["<s>", "r", "i", "n", "g"], ["o", "k"])


def test_chat_without_a_template_is_refused() -> None:
    with pytest.raises(BadInputError, match="no chat template; use format: raw"):
        encoder().encode_pair("ring", "ok", format="chat")


def test_a_tokenizer_without_offsets_is_refused() -> None:
    slow = SimpleNamespace(is_fast=False, bos_token_id=0, eos_token_id=1, chat_template=None)
    with pytest.raises(BadInputError, match="no character offsets; convert it"):
        TextEncoder(slow, max_length=128).encode_pair("a", "b")


def test_decoding_leaves_special_tokens_out() -> None:
    codec = encoder()
    assert codec.decode(codec.encode_pair("the ", "bell").ids) == "the bell"


class _Config(SimpleNamespace):
    def get_text_config(self) -> Any:
        return getattr(self, "text_config", self)


@pytest.mark.parametrize(
    ("config", "tokenizer_limit", "expected"),
    [
        ({"max_position_embeddings": 4096}, 10**30, 4096),
        ({"max_position_embeddings": 4096}, 512, 512),
        ({"n_positions": 1024}, None, 1024),
        ({"max_seq_len": 2048, "max_position_embeddings": None}, 10**30, 2048),
        ({}, None, 2048),
        ({"max_position_embeddings": -1}, 100, 100),
        ({"text_config": SimpleNamespace(max_position_embeddings=777)}, None, 777),
    ],
)
def test_the_context_window_is_what_model_and_tokenizer_agree_on(
    config: dict[str, Any], tokenizer_limit: int | None, expected: int
) -> None:
    tokenizer = SimpleNamespace(model_max_length=tokenizer_limit)
    assert context_window(_Config(**config), tokenizer) == expected


SHOWS_TOOLS = "{% for t in tools or [] %}<tool>{{ t.function.name }}</tool>{% endfor %}" + CHAT
TOOL = {"type": "function", "function": {"name": "ring", "parameters": {"type": "object", "properties": {}}}}
TURNS = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "ring"})


def test_a_conversation_is_rendered_by_the_template_of_the_model() -> None:
    codec = encoder(template=CHAT)
    text = "".join(words(codec, codec.encode_messages(TURNS)))
    assert text == "<s>[system]be brief[/system]<s>[user]ring[/user][assistant]"
    one = ({"role": "user", "content": "ring"},)
    assert codec.encode_messages(one).tolist() == codec.encode_prompt("ring", format="chat").tolist()


def test_a_reply_is_scored_behind_its_whole_conversation() -> None:
    codec = encoder(template=CHAT, merges=MERGES)
    pair = codec.encode_reply(TURNS, " bell rings")
    assert pair.ids[: pair.start].tolist() == codec.encode_messages(TURNS).tolist()
    assert words(codec, pair.ids[pair.start :]) == [" bell", " ", "ri", "n", "g", "s"]
    one = codec.encode_reply(({"role": "user", "content": "ring"},), "be")
    assert one.ids.tolist() == codec.encode_pair("ring", "be", format="chat").ids.tolist()
    with pytest.raises(BadInputError, match="the completion is empty"):
        codec.encode_reply(TURNS, "")
    with pytest.raises(BadInputError, match="no chat template"):
        encoder().encode_reply(TURNS, "be")


def test_tools_are_offered_where_the_template_shows_them() -> None:
    codec = encoder(template=SHOWS_TOOLS)
    assert codec.tools_refusal() is None
    assert "".join(words(codec, codec.encode_messages(TURNS, (TOOL,)))).startswith("<tool>ring</tool><s>[system]")
    assert codec.encode_messages(TURNS, ()).tolist() == codec.encode_messages(TURNS).tolist()


def test_a_template_that_ignores_tools_is_told_from_one_that_shows_them() -> None:
    codec = encoder(template=CHAT)
    assert codec.tools_refusal() == "the chat template ignores tools: it renders the same text with and without them"
    with pytest.raises(BadInputError, match="ignores tools"):
        codec.encode_messages(TURNS, (TOOL,))
    assert encoder().tools_refusal() == "the tokenizer has no chat template"
    with pytest.raises(BadInputError, match="no chat template"):
        encoder().encode_messages(TURNS)


def test_a_template_that_refuses_a_conversation_says_why() -> None:
    picky = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + CHAT
    with pytest.raises(BadInputError, match="refuses this conversation: TemplateError: no system turns"):
        encoder(template=picky).encode_messages(TURNS)
