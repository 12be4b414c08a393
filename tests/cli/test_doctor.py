from __future__ import annotations

import json
from typing import Any

import pytest

from dlm_sway.cli.app import run
from dlm_sway.suite import health as module
from dlm_sway.suite.health import health

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"found": ["cpu"], "auto": "cpu", "threads": 1}
    monkeypatch.setattr(module, "_devices", lambda: found)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_it_says_what_is_here_in_words_and_as_json(capsys: Capture) -> None:
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    for title in ("Versions", "Devices", "Backends", "Extras", "Cache", "Hub", "Slow"):
        assert f"{title}\n" in out
    assert "dummy: ready" in out
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"versions", "machine", "devices", "backends", "extras", "cache", "hub", "slow"}
    assert "dev" not in found["extras"]


def test_what_is_missing_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._version
    monkeypatch.setattr(module, "_version", lambda name: None if name in ("torch", "textstat") else real(name))
    found = health()
    assert found["backends"]["hf"]["ready"] is False
    assert found["backends"]["hf"]["install"].startswith("pip install ")
    assert "torch" in found["backends"]["hf"]["install"]
    assert found["extras"]["style"] == {"installed": False, "missing": ["textstat"], "install": "pip install textstat"}


def test_a_backend_of_another_package_that_cannot_be_imported_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(kind: str) -> Any:
        if kind == "dummy":
            raise ModuleNotFoundError("No module", name="odd.part")

    monkeypatch.setattr(module, "backend_class", get)
    assert health()["backends"]["dummy"] == {"ready": False, "needs": ["odd"], "install": "pip install odd"}


def test_a_backend_is_not_ready_where_its_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._version
    monkeypatch.setattr(module, "_version", lambda name: None if name in ("vllm", "httpx") else real(name))
    found = health()["backends"]
    assert (found["vllm"]["ready"], found["vllm"]["needs"]) == (False, ["vllm"])
    assert (found["api"]["ready"], found["api"]["needs"]) == (False, ["httpx"])


def _urlopen(answer: Any) -> Any:
    def urlopen(*_: object, timeout: float) -> Any:
        assert timeout <= 5
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return urlopen


def test_offline_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "urlopen", lambda *_, **__: pytest.fail("the network was asked"))
    assert health()["hub"] == {"reachable": None, "why": "HF_HUB_OFFLINE is set"}
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert health(ask_hub=False)["hub"]["reachable"] is None


def test_a_hub_that_does_not_answer_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(module, "urlopen", _urlopen(TimeoutError("timed out")))
    assert health()["hub"]["reachable"] is False


def test_what_would_be_slow_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cores", lambda: 16)
    slow = " ".join(health()["slow"])
    assert "no GPU" in slow
    assert "1 threads on 16 cores" in slow
