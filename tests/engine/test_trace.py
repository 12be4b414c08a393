from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.engine.trace import TraceWriter
from dlm_sway.engine.trace_summary import read_trace


def _written(path: Path) -> Path:
    ticks = itertools.count(100.0)
    with TraceWriter(path, clock=lambda: next(ticks)) as trace:
        common = {"views": 3, "rows": 2, "tokens": 60, "scored": 30, "reducers": ("kl", "gain"), "path": "stacked"}
        trace.add(seconds=0.5, **common, probes=["a", "b"])
        trace.add(seconds=0.25, **common, probes=["a"])
        trace.add(seconds=0.0, path="cache", hit=7, probes=["b"])
    return path


def test_a_trace_is_a_json_line_a_pass_with_its_moment(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in _written(tmp_path / "t").read_text().splitlines()]
    assert lines[0] == {
        "t": 1.0,
        "ms": 500.0,
        "views": 3,
        "rows": 2,
        "tokens": 60,
        "scored": 30,
        "reducers": ["kl", "gain"],
        "path": "stacked",
        "probes": ["a", "b"],
    }
    assert [line["t"] for line in lines] == [1.0, 2.0, 3.0]


def test_a_line_is_on_disk_as_soon_as_it_is_added(tmp_path: Path) -> None:
    trace = TraceWriter(tmp_path / "t")
    trace.add(seconds=1.0, tokens=5)
    assert json.loads((tmp_path / "t").read_text())["tokens"] == 5
    trace.close()
    trace.add(seconds=1.0)
    assert (tmp_path / "t").read_text().count("\n") == 1


def test_the_summary_adds_up_passes_that_are_alike_and_shares_time_among_probes(tmp_path: Path) -> None:
    found = read_trace(_written(tmp_path / "t"))
    assert list(found.groups) == [("stacked", 3, ("gain", "kl")), ("cache", 0, ())]
    group = found.groups["stacked", 3, ("gain", "kl")]
    assert (group.passes, group.ms, group.tokens, group.scored, group.hit) == (2, 750.0, 120, 60, 0)
    assert (found.total.passes, found.total.ms, found.total.hit, found.run_s) == (2, 750.0, 7, 3.0)
    assert found.probes == {"a": 500.0, "b": 250.0}
    assert found.bad == ()


def test_lines_that_are_no_trace_are_left_out_and_named(tmp_path: Path) -> None:
    path = _written(tmp_path / "t")
    good = path.read_bytes().splitlines()
    bad = [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"t": 1}',
        b'{"t": 1, "ms": -1}',
        b'{"t": 1, "ms": NaN}',
        b'{"t": 1, "ms": 1e999}',
    ]
    path.write_bytes(b"\n".join([good[0], *bad, b'{"t": 1, "ms": 1, "views": "many"}', good[1], good[2][:20]]))
    found = read_trace(path)
    assert found.total.passes == 2
    assert found.bad == (3, 4, 5, 6, 7, 8, 9, 11)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"nothing\n", None])
def test_a_file_without_a_trace_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "t").write_bytes(content)
    with pytest.raises(BadInputError, match=r"no line of a trace|cannot be read"):
        read_trace(tmp_path / "t")


def test_a_trace_that_cannot_begin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="--trace"):
        TraceWriter(tmp_path / "absent" / "t")


def test_a_full_disk_ends_the_trace_and_not_the_run(caplog: pytest.LogCaptureFixture) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with TraceWriter(Path("/dev/full")) as trace:
        for _ in range(3):
            trace.add(seconds=1.0)
    assert len({r.message for r in caplog.records}) == len(caplog.records) >= 1
    assert "No space left on device" in caplog.text
