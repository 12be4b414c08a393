"""A model server in a thread on 127.0.0.1: dialects with and without log-probs, and any fault at any request."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal, TypeAlias

import numpy as np

VOCAB: Final = 258
_RNG = np.random.default_rng(0)
_BASE, _DELTA = _RNG.standard_normal((2, VOCAB, VOCAB)) * np.array([1.5, 0.4])[:, None, None]

Dialect: TypeAlias = Literal["llama.cpp", "echo", "next", "text", "strings", "chat"]
Fault: TypeAlias = "Callable[[FakeServer, BaseHTTPRequestHandler], bool] | None"
"""Answers in the server's place and returns True, or does something else and returns False."""


def logprobs(last: int, lam: float) -> np.ndarray:
    """Return float64[K]: what follows the token `last`."""
    z = _BASE[last] + lam * _DELTA[last]
    return np.asarray(z - np.log(np.exp(z).sum()))


def drawn(given: str, lam: float, seed: int, limit: int) -> str:
    """Return a text of `limit` letters drawn behind `given`; the seed alone decides the draws, as servers have it."""
    draw, last, out = np.random.default_rng([seed, len(given)]), sum(map(ord, given)) % VOCAB, ""
    for _ in range(limit):
        last = int(draw.choice(VOCAB, p=np.exp(logprobs(last, lam))))
        out += chr(97 + last % 26)
    return out


class FakeServer(ThreadingHTTPServer):
    """The server.

    Attributes:
        faults: what happens to the next requests for a completion, in order; None answers.
        always: what happens to all others.
        bodies: of requests for completions.
        headers: of all requests.
        after: runs on each answer before it is sent.
    """

    daemon_threads = True

    def __init__(self, dialect: Dialect, *, cap: int = 10**6, with_ids: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dialect, self.cap, self.with_ids = dialect, cap, with_ids
        self.faults: deque[Fault] = deque()
        self.always: Fault = None
        self.bodies: list[dict[str, Any]] = []
        self.seen_headers: list[dict[str, str]] = []
        self.after: Callable[[dict[str, Any]], dict[str, Any] | bytes] = lambda answer: answer
        self.lora_ids = [0] if dialect == "llama.cpp" else []
        self.props: dict[str, Any] = {"default_generation_settings": {"n_ctx": 128}, "total_slots": 4}
        self.lock = threading.Lock()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def lam(self, body: dict[str, Any]) -> float:
        """Return the scale that a request asks for: by LoRA, else by the model's name."""
        if body.get("lora"):
            return float(body["lora"][0]["scale"])
        return {"tuned": 1.0, "strong": 12.0}.get(str(body.get("model")), 0.0)

    def entry(self, last: int, lam: float, token: int, k: int) -> dict[str, Any]:
        """Return the log-probs of `token` after `last` with the top k."""
        logp = logprobs(last, lam)
        top = np.argsort(-logp)[: min(k, self.cap)]
        return self.named(token, logp) | {"top_logprobs": [self.named(int(t), logp) for t in top]}

    def named(self, token: int, logp: np.ndarray) -> dict[str, Any]:
        """Return a token as this server names it."""
        name = {"id": token, "bytes": [token % 256]} if self.with_ids else {}
        return {**name, "token": f"t{token}", "logprob": float(logp[token])}

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Return what a healthy server says, or None where it has nothing."""
        lam = self.lam(body)
        if self.dialect in ("strings", "chat"):
            return self._text(path, body, lam)
        if "prompt" not in body:
            return None
        ids = body["prompt"]
        following = int(np.argmax(logprobs(ids[-1], lam)))
        k = int(body.get("n_probs", body.get("logprobs", 0)) or 0)
        if self.dialect == "llama.cpp":
            if path != "/completion":
                return None
            limit = int(body["n_predict"])
            probs = [self.entry(ids[-1], lam, following, k)] if k else []
            return {
                "content": "x" * limit,
                "tokens_predicted": limit,
                "stop_type": "limit",
                "completion_probabilities": probs,
                "timings": {"prompt_n": 1, "predicted_n": limit},
            }
        if path != "/v1/completions":
            return None
        text = "x"
        if body.get("temperature") and self.dialect == "text":
            text = drawn(str(ids), lam, body["seed"], body["max_tokens"])
        choice: dict[str, Any] = {"text": text, "finish_reason": "length", "logprobs": None}
        if k and self.dialect in ("echo", "next"):
            choice["logprobs"] = self._openai(ids, lam, following, k, echo=bool(body.get("echo")))
        return {"choices": [choice], "usage": {"total_tokens": len(ids) + 1, "completion_tokens": 1}}

    def _text(self, path: str, body: dict[str, Any], lam: float) -> dict[str, Any] | None:
        """Return text alone, to a prompt that is a string or a conversation."""
        chat = self.dialect == "chat"
        if path != ("/v1/chat/completions" if chat else "/v1/completions"):
            return None
        given = str(body["messages"]) if chat else body["prompt"]
        if not isinstance(given, str):
            return None
        text = drawn(given, lam, body["seed"], body["max_tokens"]) if body.get("temperature") else "x"
        said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {"choices": [{**said, "finish_reason": "length"}], "usage": {"total_tokens": 9, "completion_tokens": 1}}

    def _openai(self, ids: list[int], lam: float, following: int, k: int, *, echo: bool) -> dict[str, Any]:
        if self.dialect == "next":
            return {"content": [self.entry(ids[-1], lam, following, k)]}
        pairs = list(zip([*ids], [*ids[1:], following], strict=True)) if echo else [(ids[-1], following)]
        entries = [self.entry(last, lam, token, k) for last, token in pairs]
        head = [f"t{ids[0]}"] if echo else []
        return {
            "tokens": head + [e["token"] for e in entries],
            "token_logprobs": [None] * len(head) + [e["logprob"] for e in entries],
            "top_logprobs": [None] * len(head)
            + [{t["token"]: t["logprob"] for t in e["top_logprobs"]} for e in entries],
        }


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.seen_headers.append(dict(self.headers))
        if self.server.dialect == "llama.cpp" and self.path == "/props":
            self.say(self.server.props)
        elif self.server.dialect == "llama.cpp" and self.path == "/lora-adapters":
            self.say([{"id": i, "path": "a.gguf", "scale": 1.0} for i in self.server.lora_ids])
        else:
            self.say({"error": {"message": "not here"}}, status=404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.body = body
        if self.path not in ("/completion", "/v1/completions", "/v1/chat/completions"):
            self.say({"error": {"message": "not here"}}, status=404)
            return
        with self.server.lock:
            self.server.seen_headers.append(dict(self.headers))
            self.server.bodies.append(body)
            fault = self.server.faults.popleft() if self.server.faults else self.server.always
        if fault is not None and fault(self.server, self):
            return
        answer = self.server.answer(self.path, body)
        if answer is None:
            self.say({"error": {"message": "not here"}}, status=404)
        else:
            self.say(self.server.after(answer))

    def say(self, answer: Any, *, status: int = 200, **headers: str) -> None:
        """Send JSON, or bytes as they are."""
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@contextmanager
def fake_server(dialect: Dialect, **options: Any) -> Iterator[FakeServer]:
    """Serve until the block ends."""
    server = FakeServer(dialect, **options)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def busy(status: int, **headers: str) -> Fault:
    """Answer with a status."""

    def fault(_: FakeServer, handler: Any) -> bool:
        handler.say({"error": {"message": "later"}}, status=status, **headers)
        return True

    return fault


def hang(server: FakeServer, _: Any) -> bool:
    """Answer nothing until the test is over."""
    server.released.wait(10)
    return True


def die(_: FakeServer, handler: Any) -> bool:
    """Break the connection in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"te')
    handler.close_connection = True
    return True


def malformed(_: FakeServer, handler: Any) -> bool:
    """Answer with what is no JSON."""
    handler.say(b'{"choices": [{"text": "x", ')
    return True
