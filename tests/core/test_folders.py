from __future__ import annotations

from pathlib import Path

import pytest

from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.folders import whole_folder


def test_a_folder_stands_once_its_block_has_ended(tmp_path: Path) -> None:
    place = tmp_path / "new"
    with whole_folder(place) as part:
        (part / "file").write_text("x")
        assert not place.exists()
    assert (place / "file").read_text() == "x"
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_what_stood_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    place = tmp_path / "new"
    place.mkdir()
    (place / "old").write_text("x")
    with whole_folder(place) as part:
        (part / "file").write_text("y")
    assert [p.name for p in place.iterdir()] == ["file"]
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_a_block_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "new"
    place.mkdir()
    (place / "old").write_text("x")
    with pytest.raises(KeyboardInterrupt), whole_folder(place) as part:
        _stopped(part)
    assert [p.name for p in place.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_a_write_that_the_system_refuses_is_named_and_cleaned_up(tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="could not be written: No space left"), whole_folder(tmp_path / "new"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_the_older_folder_returns_when_the_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "new"
    place.mkdir()
    (place / "old").write_text("x")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            raise OSError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(CannotRunError, match="Permission denied"), whole_folder(place):
        pass
    assert [p.name for p in place.iterdir()] == ["old"]


def _stopped(part: Path) -> None:
    (part / "file").write_text("y")
    raise KeyboardInterrupt
