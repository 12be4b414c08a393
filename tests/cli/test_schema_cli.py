from __future__ import annotations

import json

import pytest

from dlm_sway.cli.app import run
from dlm_sway.suite.schema import suite_schema


def test_it_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == suite_schema()
