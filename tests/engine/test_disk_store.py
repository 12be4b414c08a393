from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dlm_sway.engine.disk_store import FILE_NAME, DiskStore
from dlm_sway.engine.sqlite_file import SqliteFile

_WRITER = """
import hashlib, sys
from pathlib import Path
from dlm_sway.engine.disk_store import DiskStore

folder, first, chunks = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with DiskStore(folder) as store:
    for chunk in range(first, first + chunks):
        keys = [hashlib.sha256(b"%d %d" % (chunk, i)).digest() for i in range(20)]
        assert store.put_many({key: key * 40 for key in keys})
        print(chunk, flush=True)
"""


def _keys(chunk: int) -> list[bytes]:
    return [hashlib.sha256(b"%d %d" % (chunk, i)).digest() for i in range(20)]


def _writer(folder: Path, first: int, chunks: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WRITER, str(folder), str(first), str(chunks)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _filled(folder: Path, entries: dict[bytes, bytes]) -> Path:
    with DiskStore(folder) as store:
        assert store.put_many(entries)
    return folder / FILE_NAME


def _edit(path: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(path)
    db.execute(statement, values)
    db.commit()
    db.close()


def test_a_result_outlives_the_store_and_the_process(tmp_path: Path) -> None:
    _filled(tmp_path / "made", {b"k" * 32: b"value", b"e" * 32: b""})
    with DiskStore(tmp_path / "made") as store:
        assert store.get_many([b"k" * 32, b"absent", b"e" * 32]) == {b"k" * 32: b"value", b"e" * 32: b""}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE results SET value = x'00112233' WHERE key = ?",
        "UPDATE results SET value = substr(value, 1, 3) WHERE key = ?",
        "UPDATE results SET length = length + 4 WHERE key = ?",
        "UPDATE results SET checksum = x'00' WHERE key = ?",
        "UPDATE results SET value = 'text' WHERE key = ?",
        "UPDATE results SET (value, checksum) = (SELECT value, checksum FROM results WHERE key = x'02') WHERE key = ?",
    ],
)
def test_a_damaged_entry_is_a_miss_and_removed_and_the_others_stay(tmp_path: Path, damage: str) -> None:
    path = _filled(tmp_path, {b"\1": b"abcd", b"\2": b"efgh"})
    _edit(path, damage, b"\1")
    with DiskStore(tmp_path) as store:
        assert store.get_many([b"\1", b"\2"]) == {b"\2": b"efgh"}
        assert store.info().entries == 1
        assert store.put_many({b"\1": b"abcd"})
        assert store.get_many([b"\1"]) == {b"\1": b"abcd"}


def _no_database(path: Path) -> None:
    path.write_bytes(b"no database at all " * 100)


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _overwritten(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[1000:] = b"\xff" * (len(raw) - 1000)
    path.write_bytes(raw)


def _another_table(path: Path) -> None:
    path.unlink()
    _edit(path, "CREATE TABLE results (key TEXT, used TEXT)")


@pytest.mark.parametrize("damage", [_no_database, _torn, _overwritten, _another_table])
def test_a_damaged_file_is_moved_aside_with_one_line_and_started_anew(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = _filled(tmp_path, {hashlib.sha256(b"%d" % i).digest(): b"v" * 400 for i in range(100)})
    damage(path)
    with DiskStore(tmp_path) as store:
        assert store.get_many([b"k"]) == {}
        assert store.put_many({b"k": b"new"})
        assert store.get_many([b"k"]) == {b"k": b"new"}
    assert [r.message.partition(" (")[0] for r in caplog.records] == ["the cache of results was damaged"]
    assert path.with_name(f"{FILE_NAME}.damaged").exists()
    with DiskStore(tmp_path) as store:
        assert store.get_many([b"k"]) == {b"k": b"new"}


def test_a_file_that_another_process_started_anew_is_not_moved_aside(tmp_path: Path) -> None:
    path = _filled(tmp_path, {b"k": b"old"})
    with DiskStore(tmp_path) as ours:
        assert ours.get_many([b"k"]) == {b"k": b"old"}
        path.rename(tmp_path / "gone")
        _filled(tmp_path, {b"k": b"theirs"})
        fault = sqlite3.DatabaseError("database disk image is malformed")
        fault.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        ours._file._recover(fault, give_up=False)
        assert ours.get_many([b"k"]) == {b"k": b"theirs"}
    assert not path.with_name(f"{FILE_NAME}.damaged").exists()


def test_a_full_disk_turns_the_store_off_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect = SqliteFile._connect

    def small(self: SqliteFile) -> sqlite3.Connection:
        db = connect(self)
        db.execute("PRAGMA max_page_count = 8")  # then sqlite says what it says where the disk is full
        return db

    monkeypatch.setattr(SqliteFile, "_connect", small)
    with DiskStore(tmp_path) as store:
        assert store.put_many({b"small": b"1234"})
        for i in range(3):
            assert not store.put_many({b"large": b"v" * 100_000, b"%d" % i: b""})
        assert store.get_many([b"small", b"large"]) == {}
    assert [r.message for r in caplog.records] == [
        f"the cache of results is off for the rest of this run: {tmp_path / FILE_NAME}: database or disk is full"
    ]
    monkeypatch.undo()
    with DiskStore(tmp_path) as store:
        assert store.get_many([b"small", b"0"]) == {b"small": b"1234"}


def test_a_folder_that_cannot_be_made_turns_the_store_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with DiskStore(tmp_path / "file" / "cache") as store:
        assert not store.put_many({b"k": b"v"})
        assert store.get_many([b"k"]) == {}
    assert len(caplog.records) == 1


def test_a_writer_killed_in_the_middle_loses_at_most_the_chunk_it_was_at(tmp_path: Path) -> None:
    with _writer(tmp_path, 0, 100_000) as process:
        assert process.stdout is not None
        done = [int(process.stdout.readline()) for _ in range(30)]
        process.kill()
        done += [int(line) for line in process.stdout.read().split()]
    with DiskStore(tmp_path) as store:
        for chunk in done:
            assert store.get_many(_keys(chunk)) == {key: key * 40 for key in _keys(chunk)}
        assert store.info().entries <= 20 * (len(done) + 1)
        assert store.info().entries % 20 == 0, "a chunk is there whole or not at all"
        assert store.put_many({b"k": b"v"})


def test_processes_that_start_and_write_together_lose_nothing(tmp_path: Path) -> None:
    firsts = (0, 20, 40, 20)
    processes = [_writer(tmp_path, first, 20) for first in firsts]
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert len(out.split()) == 20
    with DiskStore(tmp_path) as store:
        assert store.info().entries == 20 * 60
        for chunk in range(60):
            assert len(store.get_many(_keys(chunk))) == 20


def test_an_interruption_inside_a_write_leaves_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with DiskStore(tmp_path) as store:
        store.put_many({b"a": b"1"})

        def interrupted(_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(store, "_evict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.put_many({b"b": b"2"})
        monkeypatch.undo()
        assert store.get_many([b"a", b"b"]) == {b"a": b"1"}


def test_the_bound_holds_and_the_results_used_last_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hour = 3600 * 10**9
    now = [10**18]
    monkeypatch.setattr("time.time_ns", lambda: now[0])
    keys = [hashlib.sha256(b"%d" % i).digest() for i in range(3000)]
    bound = 2**20
    with DiskStore(tmp_path, max_bytes=bound) as store:
        for begin in range(0, 3000, 100):
            now[0] += 2 * hour
            store.get_many(keys[:50])  # asked for again and again
            assert store.put_many({key: key * 30 for key in keys[begin : begin + 100]})
        info = store.info()
        assert 0.8 * bound < info.file_bytes
        assert info.value_bytes < bound
        assert len(store.get_many(keys[:50])) == 50
        assert len(store.get_many(keys[-100:])) == 100
        assert len(store.get_many(keys[50:300])) == 0
    one_write = 100 * 2048
    assert (tmp_path / FILE_NAME).stat().st_size < bound + one_write


def test_clear_forgets_all_and_gives_the_space_back(tmp_path: Path) -> None:
    path = _filled(tmp_path, {b"%d" % i: b"v" * 1000 for i in range(1000)})
    path.with_name(f"{FILE_NAME}.damaged").write_bytes(b"x")
    with DiskStore(tmp_path) as store:
        assert store.info().entries == 1000
        assert store.clear()
        assert store.info().entries == 0
    assert path.stat().st_size < 100_000
    assert not path.with_name(f"{FILE_NAME}.damaged").exists()


def test_looking_at_an_empty_place_makes_no_file(tmp_path: Path) -> None:
    with DiskStore(tmp_path / "cache") as store:
        assert (store.info().entries, store.info().last_used, store.clear()) == (0, None, True)
    assert not (tmp_path / "cache").exists()


def test_no_module_of_the_store_loads_torch() -> None:
    script = "import sys, dlm_sway.engine.disk_store, dlm_sway.engine.trace_summary; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
