"""Servers that give text alone: found out by asking, never asked for numbers, each prompt in a form they take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.backends.api_servers import backend_on
from tests.fake_server import Dialect, FakeServer, fake_server
from tests.models import byte_tokenizer

from dlm_sway.backends.api import ApiBackend
from dlm_sway.backends.api_options import ApiOptions
from dlm_sway.backends.api_text import NO_LOGPROBS
from dlm_sway.backends.base import ScoreRefusing
from dlm_sway.core.errors import BadInputError, NotOfferedError
from dlm_sway.core.views import BASE, FINETUNED
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.run import Engine

TEXT_ALONE: tuple[Dialect, ...] = ("text", "strings", "chat")


@pytest.fixture(params=TEXT_ALONE)
def server(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    """A server of each dialect without log-probs."""
    with fake_server(request.param) as running:
        yield running


def test_it_opens_and_says_that_there_are_no_log_probs(server: FakeServer) -> None:
    backend = backend_on(server)
    assert isinstance(backend, ScoreRefusing)
    assert backend.scores_refusal() == f"{server.url}: {NO_LOGPROBS}"
    assert "text alone" in backend.source_name
    assert backend.preflight_finite_check() == (True, "")
    backend.close()


def test_a_server_with_log_probs_refuses_nothing() -> None:
    with fake_server("next") as running:
        backend = backend_on(running)
        assert backend.scores_refusal() is None
        backend.close()


def test_what_needs_log_probs_is_refused_and_nothing_is_sent(server: FakeServer) -> None:
    backend = backend_on(server)
    n = len(server.bodies)
    ask = Ask((TextItem("", "abc", "0", "0"),), (FINETUNED,), frozenset({"gain"}), format="raw")
    with pytest.raises(NotOfferedError, match="gives no log-probs"):
        Engine(backend).answer([ask])
    with backend.as_base() as view, pytest.raises(NotOfferedError):
        view.rolling_logprob("abc")
    assert len(server.bodies) == n
    backend.close()


@pytest.mark.parametrize(
    ("dialect", "form"),
    [("text", lambda body: body["prompt"] == [0, *byte_tokenizer(bos=False)("abc")["input_ids"]]),
     ("strings", lambda body: body["prompt"] == "abc"),
     ("chat", lambda body: body["messages"] == [{"role": "user", "content": "abc"}])],
)  # fmt: skip
def test_a_prompt_goes_in_the_form_that_the_server_takes(dialect: Dialect, form: Any) -> None:
    with fake_server(dialect) as running:
        backend = backend_on(running)
        (reply,) = backend.write(["abc"], FINETUNED, max_new_tokens=3, temperature=1.0, seed=1)
        assert len(reply.text) == 3
        assert form(running.bodies[-1])
        assert running.bodies[-1]["model"] == "tuned"
        backend.close()


def test_a_rendered_prompt_keeps_its_markers_but_the_bos_that_the_server_adds() -> None:
    tokenizer = byte_tokenizer(template="<s>{% for m in messages %}[{{ m.content }}]</s>{% endfor %}")
    with fake_server("strings") as running:
        options = ApiOptions.model_validate({"url": running.url, "finetuned_model": "tuned"})
        backend = ApiBackend(options, tokenizer=tokenizer, name="m", sleepless=True)
        backend.write(["abc"], BASE, max_new_tokens=1)
        assert running.bodies[-1]["prompt"] == "[abc]</s>"
        backend.close()


def test_each_text_is_drawn_with_a_seed_of_its_own_and_the_same_again(server: FakeServer) -> None:
    backend = backend_on(server)
    for _ in range(2):
        backend.write(["a", "b", "a"], FINETUNED, max_new_tokens=2, temperature=0.7, seed=5)
    first, again = ({body["seed"] for body in some} for some in (server.bodies[-6:-3], server.bodies[-3:]))
    assert first == again
    assert len(first) == 3
    assert max(first) < 2**31
    backend.close()


def test_chat_takes_no_raw_text_and_no_tools() -> None:
    with fake_server("chat") as running:
        backend = backend_on(running)
        with pytest.raises(BadInputError, match="takes conversations alone; set format"):
            backend.write(["abc"], BASE, max_new_tokens=1, format="raw")
        with pytest.raises(NotOfferedError, match="tools are not offered"):
            backend.write(["abc"], BASE, max_new_tokens=1, tools=({"type": "function"},))
        backend.close()


def test_a_newer_name_of_the_limit_is_found() -> None:
    with fake_server("chat") as running:
        running.always = lambda _, handler: (
            "max_tokens" in handler.body and handler.say({"error": {"message": "unsupported"}}, status=400) is None
        )
        backend = backend_on(running)
        assert backend.write(["abc"], BASE, max_new_tokens=1)[0].text == "x"
        assert "max_completion_tokens" in running.bodies[-1]
        backend.close()


def test_one_of_two_servers_without_log_probs_is_enough_to_have_none() -> None:
    with fake_server("next") as one, fake_server("text") as other:
        backend = backend_on(one, finetuned_url=other.url)
        assert backend.scores_refusal() == f"{other.url}: {NO_LOGPROBS}"
        backend.close()
    refused = pytest.raises(BadInputError, match="no prompt is the same for both")
    with fake_server("text") as one, fake_server("chat") as other, refused:
        backend_on(one, finetuned_url=other.url)


def test_a_server_that_knows_neither_path_is_told_by_what_it_says() -> None:
    with fake_server("text") as running:
        running.dialect = "nothing"  # type: ignore[assignment]
        running.answer = lambda *_: None  # type: ignore[method-assign]
        with pytest.raises(BadInputError, match="not found: not here; check the address"):
            backend_on(running)
