from __future__ import annotations

from pathlib import Path

import pytest

from dlm_sway.core.paths import cache_dir, results_dir


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "dlm-sway"
    assert results_dir() == tmp_path / "dlm-sway" / "results"


@pytest.mark.parametrize("value", ["", "relative/place", None])
def test_without_an_absolute_place_the_cache_is_in_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_dir() == tmp_path / ".cache" / "dlm-sway"
