from __future__ import annotations

from pathlib import Path

import pytest
from tests.chain.made import Made, make

from dlm_sway.chain import given


@pytest.fixture(autouse=True)
def _fewer_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "N_GENERAL", 10)
    monkeypatch.setattr(given, "MAX_TOKENS", 48)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path)
