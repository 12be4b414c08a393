"""A server that is ill: what may pass is tried again, the rest is one clear error, and the other links stand."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tests.chain.made import Made
from tests.fake_server import FakeServer, busy, die, fake_server, hang, malformed
from transformers import AutoModelForCausalLM

from dlm_sway.chain import given
from dlm_sway.chain.result import ChainResult
from dlm_sway.cli.app import run
from dlm_sway.core.result import Verdict

_ONE_AT_A_TIME = threading.Lock()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "N_GENERAL", 4)
    monkeypatch.setattr(given, "MAX_TOKENS", 8)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)


@contextmanager
def server_of(made: Made) -> Iterator[FakeServer]:
    """Serve the merged model as a llama.cpp server would."""
    model = AutoModelForCausalLM.from_pretrained(made.merged(), dtype=torch.float32)

    def answer(path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        if path != "/completion":
            return None
        with _ONE_AT_A_TIME, torch.inference_mode():
            logits = model(input_ids=torch.tensor([body["prompt"]])).logits[0, -1]
        best = torch.log_softmax(logits.double(), 0).topk(min(int(body["n_probs"]), logits.numel()))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return {"completion_probabilities": [{"top_logprobs": [{"id": i, "logprob": x} for i, x in pairs]}]}

    with fake_server("llama.cpp") as server:
        server.answer = answer  # type: ignore[method-assign]
        yield server


def not_a_number(answer: dict[str, Any]) -> dict[str, Any]:
    for entry in answer["completion_probabilities"][0]["top_logprobs"]:
        entry["logprob"] = math.nan
    return answer


def walked(made: Made, server: FakeServer) -> ChainResult:
    return made.walk(endpoint=server.url, every=True, timeout_s=0.3)


@pytest.mark.parametrize(
    "fault", [busy(429, retry_after="1"), busy(503), die, malformed], ids=["429", "503", "dies", "no JSON"]
)
def test_what_passes_is_tried_again_and_changes_nothing(made: Made, fault: Any) -> None:
    with server_of(made) as server:
        server.faults.extend([None, fault, fault, None, fault])
        result = walked(made, server)
    assert result.links[-1].verdict is Verdict.PASS, result.links[-1]


@pytest.mark.parametrize(
    ("fault", "after", "said"),
    [
        (hang, None, "no answer within 0.3 s, 5 times"),
        (die, None, "the connection failed (RemoteProtocolError), 5 times"),
        (busy(429), None, "the server answers 429, 5 times"),
        (malformed, None, "the answer is no JSON, or was cut, 5 times"),
        (None, not_a_number, "a log-prob is nan, which is none"),
        (None, lambda _: {"completion_probabilities": []}, "the answer holds no log-probs"),
    ],
    ids=["hangs", "dies", "429", "no JSON", "NaN", "truncated"],
)
def test_what_stays_is_one_error_and_the_other_links_stand(made: Made, fault: Any, after: Any, said: str) -> None:
    with server_of(made) as server:
        server.faults.extend([None] * 3)  # it was healthy when the walk came to it
        server.always = fault
        server.after = after or server.after
        result = walked(made, server)
    assert [link.verdict for link in result.links] == [Verdict.PASS, Verdict.ERROR]
    errors = [f for f in result.links[-1].findings if f.verdict is Verdict.ERROR]
    assert len(errors) == 1
    assert (errors[0].step, errors[0].message.partition(": ")[2]) == ("behaviour", said)
    assert errors[0].remedy


def test_a_server_that_is_gone_ends_the_command_with_the_code_of_an_error(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_server("llama.cpp") as gone:
        url = gone.url
    given = ["chain", str(made.adapter), "--base", str(made.base), "--endpoint", url, "--device", "cpu", "--quiet"]
    assert run(given) == 3
    assert "served: " in capsys.readouterr().out
