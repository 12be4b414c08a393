from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from dlm_sway.core.errors import BadInputError, CannotRunError, ExitCode
from dlm_sway.core.files import writable, write_atomic


def _refuse(error: BaseException) -> object:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise error

    return refuse


def test_the_file_holds_exactly_the_text_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    write_atomic(target, "naïve ✓\n")
    assert target.read_bytes() == "naïve ✓\n".encode()
    assert os.listdir(tmp_path) == ["out.json"]  # noqa: PTH208 (names alone, hidden ones included)


def test_an_older_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_text("old")
    target.chmod(0o600)
    write_atomic(target, "new")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "out.json", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.json").stat().st_mode) == 0o640


@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_the_older_file_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    target = tmp_path / "out.json"
    target.write_text("old")
    monkeypatch.setattr(failing, _refuse(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(CannotRunError) as caught:
        write_atomic(target, "new")
    assert caught.value.exit_code == ExitCode.ERROR
    assert caught.value.where == str(target)
    assert "No space left on device" in caught.value.what
    assert "free some space" in (caught.value.remedy or "")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_an_interrupt_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", _refuse(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "out.json", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text("old")
    link = tmp_path / "link.json"
    link.symlink_to(real)
    write_atomic(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_device_is_written_to_and_never_replaced() -> None:
    before = Path("/dev/null").stat().st_mode
    writable(Path("/dev/null"))
    write_atomic(Path("/dev/null"), "x")
    assert Path("/dev/null").stat().st_mode == before


def test_a_full_device_is_reported() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(CannotRunError, match="/dev/full: could not be written: No space left on device; free some"):
        write_atomic(Path("/dev/full"), "x")


@pytest.mark.parametrize("check", [writable, lambda path: write_atomic(path, "x")])
def test_a_missing_parent_is_named(tmp_path: Path, check: object) -> None:
    with pytest.raises(BadInputError, match=r"absent is no directory that exists; create the directory first"):
        check(tmp_path / "absent" / "out.json")  # type: ignore[operator]


@pytest.mark.parametrize("check", [writable, lambda path: write_atomic(path, "x")])
def test_a_directory_is_refused(tmp_path: Path, check: object) -> None:
    with pytest.raises(BadInputError, match="is a directory, not a file; name a file"):
        check(tmp_path)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_an_impossible_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError) as caught:
        writable(tmp_path / name)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_place_that_takes_no_file_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathlib.Path.touch", _refuse(OSError(errno.EROFS, "Read-only file system")))
    with pytest.raises(BadInputError, match="cannot create a file here: Read-only file system; name a file in"):
        writable(tmp_path / "out.json")


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    writable(tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_a_lone_surrogate_does_not_lose_the_report(tmp_path: Path) -> None:
    write_atomic(tmp_path / "out.json", "a\udc80b")
    assert (tmp_path / "out.json").read_text() == "a?b"
