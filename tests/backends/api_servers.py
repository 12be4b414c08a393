"""Opens a backend on a fake server; and servers that are none: one that says a thing, and one that trickles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.fake_server import FakeServer, Fault
from tests.models import byte_tokenizer

from dlm_sway.backends.api import ApiBackend, LoraApiBackend
from dlm_sway.backends.api_options import ApiOptions


def backend_on(server: FakeServer, **options: Any) -> ApiBackend:
    """Return a backend on a fake server, fast to give up on it."""
    tuned = {"lora": 0} if server.dialect == "llama.cpp" else {"finetuned_model": "tuned"}
    given = {"url": server.url, "top_k": 300, "timeout_s": 5.0, "attempts": 3, **tuned, **options}
    kind = LoraApiBackend if "lora" in given else ApiBackend
    return kind(ApiOptions.model_validate(given), tokenizer=byte_tokenizer(), name="m", sleepless=True)


@dataclass
class Says:
    """A client of a server that answers with these values, by path, and has nothing elsewhere."""

    answers: Mapping[str, Any]
    url: str = "http://fake"

    def get(self, path: str) -> Any:
        """Answer."""
        return self.answers.get(path)

    def post(self, path: str, _: Any) -> Any:
        """Answer."""
        return self.answers.get(path)

    offers = post

    def close(self) -> None:
        """Do nothing."""


def trickle(raw: bytes, *, pause_s: float = 0.05, **headers: str) -> Fault:
    """Answer a byte at a time."""

    def fault(server: FakeServer, handler: Any) -> bool:
        handler.send_response(200)
        for name, value in (headers | {"content_length": str(len(raw))}).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        try:
            for at in range(len(raw)):
                server.released.wait(pause_s)
                handler.wfile.write(raw[at : at + 1])
        except OSError:
            handler.close_connection = True  # who asked is gone
        return True

    return fault
