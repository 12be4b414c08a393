"""Where a reply is scored: behind what the template writes before it in a finished conversation, as in training."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models import byte_tokenizer

from dlm_sway.backends.base import Messages
from dlm_sway.backends.encoding import TextEncoder
from dlm_sway.core.errors import BadInputError

_CUE = "{% if add_generation_prompt %}"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    + _CUE
    + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_3 = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + "
    "'<|eot_id|>' }}{% endfor %}" + _CUE + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN_3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and '</think>' in m.content %}{{ m.content }}"
    "{% elif m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' + m.content.lstrip('\n') }}"
    "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    + _CUE
    + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<s>[INST] ' + m.content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + ' </s>' }}{% endif %}{% endfor %}"
)
USERS_ONLY = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
    "{{ '<s>' + m.content }}{% endfor %}[bot]"
)
UPPER = "{% for m in messages %}{{ '<s>' + m.content | upper }}{% endfor %}" + _CUE + "[bot]{% endif %}"

ASKED: Messages = ({"role": "user", "content": "Where is the bell?"},)
TURNS: Messages = (*ASKED, {"role": "assistant", "content": "Below."}, {"role": "user", "content": "Since when?"})


def codec_of(template: str) -> TextEncoder:
    return TextEncoder(byte_tokenizer(template=template), max_length=4096)


def parts(codec: TextEncoder, messages: Messages, reply: str) -> tuple[str, str]:
    """Return what stands before a scored reply, and the reply."""
    pair = codec.encode_reply(messages, reply)
    before, after = (
        str(codec.tokenizer.decode(ids.tolist())) for ids in (pair.ids[: pair.start], pair.ids[pair.start :])
    )
    if messages == ASKED:
        assert codec.encode_pair(ASKED[0]["content"], reply, format="auto").ids.tolist() == pair.ids.tolist()
    return before, after


def cue_of(codec: TextEncoder, messages: Messages) -> str:
    return str(codec.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


@pytest.mark.parametrize(
    ("template", "messages"), [*product((CHATML, LLAMA_3, UPPER), (ASKED, TURNS)), (USERS_ONLY, ASKED)]
)
@settings(deadline=None, max_examples=30)
@given(reply=st.text(st.sampled_from("aeimnst|<>_ \n.Bb"), min_size=1, max_size=12))
def test_behind_an_ordinary_template_it_is_the_generation_prompt(template: str, messages: Messages, reply: str) -> None:
    codec = codec_of(template)
    assert parts(codec, messages, reply) == (cue_of(codec, messages), reply)


@pytest.mark.parametrize("messages", [ASKED, TURNS])
@pytest.mark.parametrize("reply", ["salt", "the bell.\n", " low tide", "assistant", "\nat noon", "im_end", "a", "\n"])
def test_an_empty_thought_stands_before_the_reply_as_in_training(messages: Messages, reply: str) -> None:
    codec = codec_of(QWEN_3)
    thought = "" if reply == "\n" else "<think>\n\n</think>\n\n"
    assert parts(codec, messages, reply) == (f"{cue_of(codec, messages)}{thought}", reply)
    # What a model writes itself begins at the generation prompt.
    assert codec.tokenizer.decode(codec.encode_messages(messages).tolist()) == cue_of(codec, messages)


def test_a_thought_that_was_given_stays_the_only_one() -> None:
    codec = codec_of(QWEN_3)
    reply = "<think>\nIt rings.\n</think>\n\nBelow."
    assert parts(codec, ASKED, reply) == (cue_of(codec, ASKED), reply)


def test_a_space_that_the_template_writes_belongs_to_the_prompt() -> None:
    codec = codec_of(LLAMA_2)
    assert parts(codec, ASKED, "Below.") == (f"{cue_of(codec, ASKED)} ", "Below.")
    assert parts(codec, TURNS, "Long ago.") == (f"{cue_of(codec, TURNS)} ", "Long ago.")


def test_a_conversation_that_the_template_refuses_is_refused() -> None:
    with pytest.raises(BadInputError, match="refuses this conversation"):
        codec_of(USERS_ONLY).encode_reply(TURNS, "Long ago.")
