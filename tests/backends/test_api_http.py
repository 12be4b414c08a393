"""An answer that comes too slowly, is too large or is no JSON is one clear error, and in time."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
from tests.backends.api_servers import trickle
from tests.fake_server import FakeServer, fake_server

from dlm_sway.backends import http_client
from dlm_sway.backends.http_client import HttpClient
from dlm_sway.core.errors import BadInputError, CannotRunError

ANSWER = b'{"choices": [{"text": "a bell"}]}'
DEEP = b"[" * 200_000


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A healthy server."""
    with fake_server("text") as running:
        yield running


def ask(server: FakeServer, *, timeout_s: float = 5.0) -> Any:
    client = HttpClient(server.url, timeout_s=timeout_s, attempts=1)
    try:
        return client.post("/v1/completions", {"prompt": [1], "max_tokens": 1})
    finally:
        client.close()


@pytest.mark.parametrize(
    "fault", [trickle(ANSWER), trickle(gzip.compress(ANSWER), content_encoding="gzip")], ids=["plain", "gzip"]
)
def test_an_answer_that_trickles_in_is_given_up_in_time(server: FakeServer, fault: Any) -> None:
    """Each byte comes in time, and the answer does not."""
    server.always = fault
    began = time.monotonic()
    with pytest.raises(CannotRunError, match=r"no answer within 0\.3 s"):
        ask(server, timeout_s=0.3)
    assert time.monotonic() - began < 1.5


def test_an_answer_that_is_slow_but_in_time_is_read(server: FakeServer) -> None:
    server.always = trickle(gzip.compress(ANSWER), pause_s=0.001, content_encoding="gzip")
    assert ask(server) == {"choices": [{"text": "a bell"}]}


def test_an_answer_that_is_too_large_is_not_read_to_its_end(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "_LARGEST", 1000)
    bomb = gzip.compress(b" " * 100_000)
    server.always = lambda _, handler: handler.say(bomb, content_encoding="gzip") is None
    with pytest.raises(CannotRunError, match=r"/v1/completions: the answer is larger than 1,000 bytes; lower"):
        ask(server)


def test_what_is_nested_without_end_is_no_json(server: FakeServer) -> None:
    server.always = lambda _, handler: handler.say(DEEP) is None
    with pytest.raises(CannotRunError, match="the answer is no JSON, or was cut"):
        ask(server)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b'{"error": {"message": "too long"}}', "too long"),
        ("zu lang: \u00fc".encode("latin-1"), "zu lang"),
        (DEEP, "["),
    ],
    ids=["JSON", "text", "nested"],
)
def test_a_refusal_is_shown_as_the_server_words_it(server: FakeServer, said: bytes, shown: str) -> None:
    server.always = lambda _, handler: handler.say(said, status=400) is None
    with pytest.raises(BadInputError) as caught:
        ask(server)
    assert caught.value.what.startswith(f"the server refuses the request (400): {shown}")
    assert len(caught.value.what) < 300


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (httpx.ConnectError("refused"), "start the server, or check its address"),
        (httpx.ReadTimeout("slow"), "see the server's log, or raise options.timeout_s"),
        (httpx.RemoteProtocolError("cut"), "see the server's log, or raise options.attempts"),
    ],
    ids=["refused", "slow", "cut"],
)
def test_what_to_do_follows_from_what_went_wrong(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, fault: Exception, remedy: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(HttpClient, "_answer", broken)
    with pytest.raises(CannotRunError) as raised:
        ask(server)
    assert raised.value.remedy == remedy


ERROR: Final = b'{"error": "Unexpected endpoint or method. (GET /props)"}'


@pytest.mark.parametrize(
    ("said", "kind"), [(ERROR, "application/json"), (b"<!doctype html><html></html>", "text/html; charset=utf-8")]
)
def test_a_server_that_says_ok_to_any_path_is_not_taken_for_another(server: FakeServer, said: bytes, kind: str) -> None:
    server.always = lambda _, handler: handler.say(said, content_type=kind) is None
    client = HttpClient(server.url, attempts=1, timeout_s=5.0)
    assert client.offers("/v1/completions", {"prompt": "a"}) is None
    client.close()


def test_an_error_that_comes_with_ok_is_shown(server: FakeServer) -> None:
    server.always = lambda _, handler: handler.say(b'{"error": {"message": "no such model"}}') is None
    with pytest.raises(CannotRunError, match="the server answers with an error: no such model"):
        ask(server)


def moved(server: FakeServer, there: str | None, *, status: int = 301) -> BadInputError:
    headers = {} if there is None else {"location": there}
    server.always = lambda _, handler: handler.say(b"", status=status, **headers) is None
    client = HttpClient(server.url, key="sesame", timeout_s=5.0, attempts=1)
    with pytest.raises(BadInputError) as caught:
        client.post("/v1/completions", {"prompt": [1], "max_tokens": 1})
    client.close()
    return caught.value


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(
    ("there", "whole", "base"),
    [
        ("https://new.example/v1/completions", "https://new.example/v1/completions", "https://new.example"),
        ("/api/v1/completions/", "{url}/api/v1/completions/", "{url}/api"),
    ],
    ids=["elsewhere", "the same server"],
)
def test_a_server_that_moved_is_named_and_not_followed(
    server: FakeServer, there: str, whole: str, base: str, status: int
) -> None:
    fault = moved(server, there, status=status)
    assert fault.what == f"the server answers {status} and sends on to {whole}, which is not followed".format(
        url=server.url
    )
    assert fault.remedy == f"give {base} as the base URL".format(url=server.url)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "there", ["https://h/login?next=/v1/completions", "https://h/", "http://[x/y", "http://[?/v1/completions"]
)
def test_a_server_that_sends_to_another_page_may_not_serve_the_model_there(server: FakeServer, there: str) -> None:
    fault = moved(server, there)
    assert f"sends on to {there}," in fault.what
    assert fault.remedy == "give that as the base URL, if it is there that the model is served"


def test_a_server_that_sends_on_to_itself_is_no_other_address(server: FakeServer) -> None:
    assert moved(server, "/v1/completions/").remedy == (
        "see the server's log: it answers at no address without sending on"
    )


def test_an_address_that_a_server_names_is_shown_in_characters_that_do_nothing(server: FakeServer) -> None:
    fault = moved(server, f"http://h/\x9b31m\xe4 sesame{'a' * 5000}")
    assert fault.what.isascii()
    assert "http://h/%C2%9B31m%C3%A4%20***aaa" in fault.what
    assert len(fault.what) < 300


def test_a_server_that_sends_on_to_nowhere_refuses_the_request(server: FakeServer) -> None:
    assert moved(server, None).what == "the server refuses the request (301)"
