"""Whatever a server says is a valid answer or one clear error: a part of it may be anything that JSON holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.backends.api_servers import Says
from tests.models import byte_tokenizer

from dlm_sway.backends.api import ApiBackend, LoraApiBackend
from dlm_sway.backends.api_options import ApiOptions
from dlm_sway.backends.api_read import cost_of
from dlm_sway.backends.api_text import Chat, PlainText, TextOnly
from dlm_sway.backends.api_view import _dist
from dlm_sway.backends.api_wire import Echo, Native, NextOnly, Wire
from dlm_sway.backends.http_client import Budget
from dlm_sway.backends.top_k import compare
from dlm_sway.core.errors import CannotRunError, SwayError

ROW: Final = SimpleNamespace(ids=np.array([0, 5, 6, 7]), first=1, targets=np.array([6, 7, -1]))
PROMPTS: Final = {"tokens": (0, 5), "text": "a", "turns": ({"role": "user", "content": "a"},)}
ENTRY: Final = {"id": 6, "bytes": [97], "token": "a", "logprob": -0.5}
USAGE: Final = {"total_tokens": 5, "completion_tokens": 1}
TOPS: Final = [ENTRY, {"token": "b", "logprob": -2.0}, {"bytes": [98], "token": "c", "logprob": -3}]
NATIVE: Final = {
    "content": "x",
    "tokens_predicted": 1,
    "stop_type": "limit",
    "completion_probabilities": [{"top_logprobs": TOPS}],
    "timings": {"prompt_n": 4, "predicted_n": 1},
}
PROPS: Final = {"total_slots": 2, "default_generation_settings": {"n_ctx": 128}}
LISTS: Final = {"tokens": ["a"] * 5, "token_logprobs": [None, *[-0.5] * 4], "top_logprobs": [None, *[{"a": -0.5}] * 4]}
CONTENT: Final = {"content": [ENTRY | {"top_logprobs": TOPS}] * 5}


def chosen(**said: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": "length", **said}], "usage": USAGE}


HEALTHY: Final[dict[str, tuple[type[Wire], str, Any]]] = {
    "llama.cpp": (Native, "/completion", NATIVE),
    "echo": (Echo, "/v1/completions", chosen(text="x", logprobs=LISTS)),
    "echo by content": (Echo, "/v1/completions", chosen(text="x", logprobs=CONTENT)),
    "next": (NextOnly, "/v1/completions", chosen(text="x", logprobs=CONTENT)),
    "next by lists": (NextOnly, "/v1/completions", chosen(text="x", logprobs={k: v[1:] for k, v in LISTS.items()})),
    "text": (TextOnly, "/v1/completions", chosen(text="x")),
    "strings": (PlainText, "/v1/completions", chosen(text="x")),
    "chat": (Chat, "/v1/chat/completions", chosen(message={"role": "assistant", "content": "x"})),
}
ODD: Final = st.recursive(
    st.sampled_from([None, True, False, -1, 3, 10**400, -(10**400), 0.5, math.nan, math.inf, -math.inf, "x", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["logprob", "token", "content", "tokens", "message", "?"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each part of a JSON value."""
    yield at
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from places(part, (*at, name))


@st.composite
def spoiled(draw: st.DrawFn, healthy: Any) -> Any:
    """Draw an answer with one part exchanged for anything, or left out."""
    *way, last = ("whole", *draw(st.sampled_from(list(places(healthy)))))
    box = {"whole": deepcopy(healthy)}
    around: Any = box
    for name in way:
        around = around[name]
    if way and draw(st.booleans()):
        del around[last]
    else:
        around[last] = draw(ODD)
    return box["whole"]


def wire_on(dialect: str, answer: Any) -> Wire:
    kind, path, _ = HEALTHY[dialect]
    says = Says({path: answer, "/props": PROPS})
    return kind(says, Budget(), None, {})  # type: ignore[arg-type]


def scored(wire: Wire) -> None:
    tops = wire.score(ROW, 3, deep=True)
    assert len(tops) == len(ROW.targets)
    for top in tops:
        assert len(top.keys) == len(top.logprobs) > 0
        assert np.isfinite(top.logprobs).all()
    assert np.isfinite(compare(tops, tops, "kl")).all()
    _dist(tops[0], 300, "m")


def wrote(wire: Wire) -> None:
    reply = wire.write(PROMPTS[wire.takes], limit=1, temperature=0.5, top_p=1.0, seed=1)  # type: ignore[arg-type]
    reply.text.encode()
    assert np.array([reply.n_tokens], dtype=np.int64) >= 0
    assert isinstance(reply.stopped, bool)


@pytest.mark.parametrize("dialect", HEALTHY)
def test_a_healthy_answer_is_read(dialect: str) -> None:
    wire = wire_on(dialect, HEALTHY[dialect][2])
    wrote(wire)
    if wire.scores:
        assert wire.score(ROW, 3, deep=False)[0].logprobs[0] == -0.5


@pytest.mark.parametrize("dialect", HEALTHY)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_spoiled_answer_is_valid_or_one_clear_error(dialect: str, data: st.DataObject) -> None:
    wire = wire_on(dialect, data.draw(spoiled(HEALTHY[dialect][2])))
    for use in (scored, wrote):
        try:
            use(wire)
        except SwayError as error:
            assert len(error.what) < 200  # noqa: PT017 (it may also be valid)
    assert isinstance(wire.budget.spent, int)


SERVER: Final = {
    "/props": PROPS,
    "/tokenize": {"tokens": [5]},
    "/v1/models": {"data": [{"meta": {"n_vocab": 258, "size": 1000, "n_params": 500}}]},
    "/lora-adapters": [{"id": 0}],
}


@settings(max_examples=150, deadline=None)
@given(answers=spoiled(SERVER))
def test_whatever_a_server_says_of_itself_it_opens_or_is_one_clear_error(answers: Any) -> None:
    options = ApiOptions.model_validate({"url": "http://fake", "lora": 0})
    says = Says(answers if isinstance(answers, dict) else {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlm_sway.backends.api.HttpClient", lambda *_, **__: says)
        try:
            backend: ApiBackend = LoraApiBackend(options, tokenizer=byte_tokenizer(), name="m")
        except SwayError:
            return
    assert backend.codec.max_length > 0
    assert (backend.bits_per_weight() or 1.0) > 0
    assert backend.vocab_size > 0
    backend.close()


@pytest.mark.parametrize(
    ("dialect", "answer", "message"),
    [
        ("next", chosen(logprobs={"content": [{"token": "a", "logprob": -0.1}]}), "the answer holds no log-probs"),
        ("next", chosen(logprobs={"content": [ENTRY | {"top_logprobs": [3]}]}), "a log-prob is None, which is none"),
        ("echo", chosen(logprobs={k: [*v, v[-1]] for k, v in LISTS.items()}), "of 6 tokens where 5 .* such as a bos"),
        ("echo", chosen(logprobs={"content": [None] * 5}), "the log-probs have a form that is not known"),
        ("echo", chosen(logprobs=LISTS | {"top_logprobs": [3] * 5}), "the log-probs have a form that is not known"),
        ("llama.cpp", NATIVE | {"completion_probabilities": {}}, "the answer holds no log-probs"),
    ],
)
def test_what_is_wrong_with_log_probs_is_said(dialect: str, answer: Any, message: str) -> None:
    with pytest.raises(CannotRunError, match=message):
        scored(wire_on(dialect, answer))


@pytest.mark.parametrize(
    ("dialect", "answer", "message"),
    [
        ("text", chosen(text=None), "the answer holds no text"),
        ("text", {"choices": {}}, "the answer holds no text"),
        ("chat", chosen(message={"content": ["x"]}), "the answer holds no text"),
        ("text", chosen(text="x") | {"usage": {"completion_tokens": "x"}}, "a number of tokens that is none"),
        ("chat", chosen(message={"content": "x"}) | {"usage": [1]}, "a number of tokens that is none"),
        ("llama.cpp", NATIVE | {"tokens_predicted": math.nan}, "a number of tokens that is none"),
    ],
)
def test_what_is_wrong_with_a_reply_is_said(dialect: str, answer: Any, message: str) -> None:
    with pytest.raises(CannotRunError, match=message):
        wrote(wire_on(dialect, answer))


def test_a_chat_that_says_null_has_no_words_and_half_a_character_is_replaced() -> None:
    asked: dict[str, Any] = {"limit": 1, "temperature": 0.0, "top_p": 1.0, "seed": 0}
    silent = wire_on("chat", chosen(message={"content": None}))
    assert silent.write(PROMPTS["turns"], **asked).text == ""  # type: ignore[arg-type]
    assert wire_on("text", chosen(text="a\ud83d")).write((1,), **asked).text == "a\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("answer", "cost"),
    [
        (NATIVE, 5),
        ({"timings": {"prompt_n": 4, "predicted_n": "x"}, "usage": USAGE}, 5),
        ({"timings": {"prompt_n": "4"}}, 9),
        ({"timings": ["x"], "usage": "x"}, 9),
        ({"timings": {"prompt_n": -4}, "usage": {"total_tokens": math.nan}}, 9),
        ([], 9),
    ],
)
def test_a_cost_that_is_no_number_is_counted_as_it_was_sent(answer: Any, cost: int) -> None:
    assert cost_of(answer, 9) == cost
