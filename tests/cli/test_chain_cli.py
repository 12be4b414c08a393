"""`sway chain` on the command line: what it is asked must be something that can be answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlm_sway.chain.result import ChainResult
from dlm_sway.cli.app import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def walked(stand_in: Any) -> list[Any]:
    """Put a walk that finds nothing in the place of the real one; return what it is asked."""
    asked: list[Any] = []

    def walk(request: Any, **_: Any) -> ChainResult:
        asked.append(request)
        return ChainResult(adapter="a", base="b", links=())

    stand_in("dlm_sway.chain.walk", walk=walk)
    return asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "there is no link to compare the adapter with; name one with --merged, --gguf or --endpoint"),
        (["--endpoint", ""], "there is no link to compare"),
        (["--model", "m"], "--model says how to ask a server, and none is named; name it with --endpoint"),
        (["--merged", ".", "--api-key-env", "KEY"], "--api-key-env says how to ask a server"),
    ],
)
def test_a_walk_that_would_compare_nothing_is_refused(
    adapter: Path, walked: list[Any], capsys: Capture, words: list[str], said: str
) -> None:
    assert run(["chain", str(adapter), *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert walked == []


def test_an_empty_address_in_the_environment_is_none(
    adapter: Path, walked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWAY_ENDPOINT", "")
    assert run(["chain", str(adapter)]) == 2
    monkeypatch.setenv("SWAY_MODEL", "m")  # for all commands, and this one needs none
    # It was walked; the stand-in has no link to judge.
    assert run(["chain", str(adapter), "--merged", str(adapter.parent), "--quiet"]) == 4
    assert [request.endpoint for request in walked] == [None]
