"""Opens a backend on a fake server."""

from __future__ import annotations

from typing import Any

from tests.fake_server import FakeServer
from tests.models import byte_tokenizer

from dlm_sway.backends.api import ApiBackend, LoraApiBackend
from dlm_sway.backends.api_options import ApiOptions


def backend_on(server: FakeServer, **options: Any) -> ApiBackend:
    """Return a backend on a fake server, fast to give up on it."""
    tuned = {"lora": 0} if server.dialect == "llama.cpp" else {"finetuned_model": "tuned"}
    given = {"url": server.url, "top_k": 300, "timeout_s": 5.0, "attempts": 3, **tuned, **options}
    kind = LoraApiBackend if "lora" in given else ApiBackend
    return kind(ApiOptions.model_validate(given), tokenizer=byte_tokenizer(), name="m", sleepless=True)
