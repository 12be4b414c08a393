"""Fuzzes the readers of users' data: what is malformed ends in an error with its place, or in a counted skip.

`make fuzz` runs it for FUZZ_SECONDS. Samples of every format are damaged: cut, spliced, re-encoded, nested, and row by
row given wrong types, missing, doubled and misspelt keys. What breaks the rule of `settle` is printed with its bytes.
`--keep FILE` writes the variants with distinct outcomes, which `tests/data/test_fuzz.py` replays.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dlm_sway.core.errors import SwayError
from dlm_sway.data.autogen import autogen
from dlm_sway.data.jsonl import is_object
from dlm_sway.data.material import Source
from dlm_sway.data.readers import items_of, read_sections
from dlm_sway.data.reading import Tally
from dlm_sway.data.registry import reader_for
from dlm_sway.data.shapes import shape_of

FILES: Final = Path(__file__).parent / "data" / "files"
CORPUS: Final = Path(__file__).parent / "data" / "fuzz_corpus.jsonl"
_AT_LINE: Final = re.compile(r":\d+$")
_SAME: Final = 4  # variants of one outcome that may be kept
_LONGEST: Final = 5.0  # seconds
_ROWS_OF: Final = ("jsonl", "json", "parquet")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file.

    Attributes:
        kind: `error` with a line, `error in file` without one, `skipped` where records were left out, else `read`.
        detail: the message or the reasons, without what is particular to this file.
    """

    kind: str
    detail: str


class BrokenRuleError(AssertionError):
    """The readers lost a record, or raised what they must not."""


def settle(path: Path) -> Outcome:
    """Read a file to its end and return what became of it.

    Raises:
        BrokenRuleError: another exception than a `SwayError` with a place, or a record neither used nor counted.
    """
    tally = Tally()
    kept: list[str] = []
    try:
        for section in read_sections(path, tally):
            _require(bool(section.completion.strip()), "a section without words")
            _require(bool(items_of(section)), "a section that gives nothing to score")
            kept += [section.completion, section.prompt, section.rejected, section.title]
    except SwayError as fault:
        return _of_fault(fault, path, tally)
    except BrokenRuleError:
        raise
    except Exception as exc:
        raise BrokenRuleError(f"{type(exc).__name__}: {exc}") from exc
    _require(tally.read == tally.used + tally.skipped.total(), f"counts do not add up: {tally.summary}")
    _require(set(tally.skipped) == set(tally.first), "a reason without a place")
    _require_whole(path, tally, "\n".join(kept))
    reasons = ", ".join(sorted(tally.skipped))
    return Outcome("skipped" if reasons else "read", reasons)


def _of_fault(fault: SwayError, path: Path, tally: Tally) -> Outcome:
    _require(str(fault.where or "").startswith(str(path)), f"the place is not the file: {fault.where}")
    _require("\n" not in fault.one_line(), "an error of several lines")
    _require(tally.read - tally.skipped.total() == tally.used, f"counts do not add up: {tally.summary}")
    kind = "error" if _AT_LINE.search(str(fault.where)) else "error in file"
    return Outcome(kind, re.sub(r"['\"`(].*|\d+", "", fault.what)[:60])


def _require_whole(path: Path, tally: Tally, kept: str) -> None:
    """Hold that each record in the file was counted, by another way of counting than the reader's."""
    kind = reader_for(str(path)).kind
    if kind == "parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(path) as table:
            _require(tally.read == table.metadata.num_rows, f"{table.metadata.num_rows} rows, {tally.summary}")
        return
    text = path.read_bytes().decode("utf-8-sig").lstrip("\ufeff" if kind == "json" else "")
    rows = [line for line in text.split("\n") if line.strip()]
    if (n := _records(kind, text, rows)) is not None:
        _require(tally.read == n, f"{n} records, {tally.summary}")
    elif not tally.skipped:
        marks = [row.rstrip() for row in rows]
        begun = marks.index("---", 1) + 1 if kind == "dlm" else 0
        lost = [row for row in rows[begun:] if not re.match(r" {0,3}#|::", row) and row.strip() not in kept]
        _require(not lost, f"lost without a word: {lost[:1]}")


def _records(kind: str, text: str, rows: list[str]) -> int | None:
    """Return how many records a file holds; None where it is text, whose lines have to be found again instead."""
    if kind == "json" and text.lstrip(" \t\r\n").startswith("["):
        return len(json.loads(text))
    if kind == "jsonl" or (kind in ("json", "text") and is_object(rows[0])):
        if kind == "json" and shape_of(json.loads(rows[0])) is None:
            return _held(json.loads(text))
        return len(rows)
    return _held(json.loads(text)) if kind == "json" else None


def _held(value: dict[str, Any]) -> int:
    """Return how many records the one object of a file holds."""
    lists = [v for v in value.values() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v)]
    return 1 if shape_of(value) or not lists else len(lists[0])


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenRuleError(what)


# ---- Samples: one of each shape, and each file in tests/data/files

_CALL: Final = {"id": "c", "type": "function", "function": {"name": "ring", "arguments": '{"n": 2}'}}
_TOOL: Final = {"type": "function", "function": {"name": "ring", "parameters": {"type": "object", "properties": {}}}}
_ASK: Final = {"role": "user", "content": "Ring."}
_SAID: Final = {"role": "assistant", "content": "Rung."}
SHAPES: Final[tuple[dict[str, Any], ...]] = (
    {"text": "The tide comes in by the gullet.", "cluster": "one"},
    {"prompt": "What fills the ladle?", "completion": " The tide.", "cluster": 7},
    {"instruction": "Name the river.", "input": "of the mill", "output": "The Sarn."},
    {"messages": [{"role": "system", "content": "Be brief."}, _ASK, {"role": "assistant", "content": "Rung."}]},
    {"messages": [_ASK, {"role": "assistant", "content": None, "tool_calls": [_CALL]}], "tools": [_TOOL]},
    {"conversations": [{"from": "human", "value": "Ring."}, {"from": "gpt", "value": "Rung."}], "system": "Brief."},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": '{"name": "ring"}'}]},
    {"prompt": "May I?", "chosen": "No, wait.", "rejected": "Yes."},
    {"chosen": [_ASK, _SAID], "rejected": [_ASK, {"role": "assistant", "content": "Y"}]},
    {"prompt": [_ASK], "completion": [{"role": "assistant", "content": "Rung."}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, _SAID]},
)  # fmt: skip
_ODD: Final[tuple[Any, ...]] = (
    *(None, True, 0, -1, 1e308, 10**40, "", " \n\t", "x", "\0", "\ud800", "\u2028", "\x85", "[]", "{}", '{"name": 1}'),
    *([], {}, [[]], [None], [{}], {"role": "user"}, {"name": "f", "arguments": []}, [1, "a", None], "```", "### A"),
    *({"text": 1}, [{"type": "image"}], [{"role": "wizard", "content": "x"}], {"from": "gpt", "value": None}),
)
_KEYS: Final = (
    *("text", "prompt", "completion", "instruction", "input", "output", "messages", "conversations", "chosen"),
    *("rejected", "tools", "system", "cluster", "clutser", "role", "content", "from", "value", "tool_calls"),
    *("function_call", "function", "name", "arguments", "TEXT", "response", "x", ""),
)
_TOKENS: Final = (
    *(b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\ud800", b"null"),
    *(b"1e999", b"NaN", b"-Infinity", b"\r", b"\r\n", b"\n\n", b"\x85", b"\xe2\x80\xa8", b"\xc0\xaf", b"9" * 5000),
    *(b'{"text": 1}', b'{"text": "a", "text": "b"}', b"[" * 3000, b'{"a":' * 3000, b"\t", b"\x1b[31m", b"&a *a"),
    *(b"<<: *a", b"!!python/object:os.system", b"!!bool x", b"!!int ''", b"!!timestamp x", b"? [a]\n: b", b"%YAML 9"),
)  # fmt: skip
_LINES: Final = (
    *(b"---", b"...", b"```", b"````", b"~~~", b"# ", b"## Heading", b"####### seven", b"::instruction::", b"::x::"),
    *(b"::preference#name::", b"::instruction:: #a.b", b":: instruction ::", b"::tool::", b"### Q", b"### A"),
    *(b"### A:", b"### Prompt", b"### Chosen", b"### Rejected", b"", b"   ", b"    code", b"words alone"),
    *(b'{"text": "a"}', b"a: b", b"dlm_id: 01", b"dlm_id: '../..'", b"base_model: [1]", b"base_model: hf:a/b"),
    *(b"a: &x [*x]", b"dlm_id: !!bool x", b"when: !!timestamp x", b"n: !!int ''", b"\xff", b"\0", b"[1, 2]"),
)  # fmt: skip


def samples() -> list[tuple[str, bytes]]:
    """Return the sound samples as (ending, content)."""
    found = [(p.suffix, p.read_bytes()) for p in sorted(FILES.iterdir()) if p.is_file()]
    lines = "\n".join(map(json.dumps, SHAPES)).encode()
    found += [
        (".jsonl", lines),
        (".json", json.dumps(SHAPES).encode()),
        (".json", json.dumps({"data": SHAPES}).encode()),
    ]
    return [*found, *((".parquet", raw) for row in SHAPES if (raw := _parquet([row, row])))]


def _parquet(rows: list[Any]) -> bytes | None:
    """Return rows as Parquet, or None where no table holds them."""
    import pyarrow as pa
    from pyarrow import parquet

    out = io.BytesIO()
    try:
        parquet.write_table(pa.Table.from_pylist(rows), out, compression="none", use_dictionary=False)
    except (pa.lib.ArrowException, TypeError, ValueError, AttributeError, OverflowError):
        return None
    return out.getvalue()


# ---- Damage

Damage = Callable[[bytes, random.Random], bytes]


def _cut(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(len(raw) + 1)]


def _put(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + rng.choice(_TOKENS) + raw[at + rng.choice((0, 0, 1, 5, 40)) :]


def _flip(raw: bytes, rng: random.Random) -> bytes:
    out = bytearray(raw or b"x")
    for _ in range(rng.randint(1, 4)):
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def _line(raw: bytes, rng: random.Random) -> bytes:
    rows = raw.split(b"\n")
    at = rng.randrange(len(rows))
    rows[at : at + rng.choice((0, 1, 1, 2))] = rng.choice(([], [rng.choice(_LINES)], [rng.choice(rows)] * 2))
    return b"\n".join(rows)


def _shuffle(raw: bytes, rng: random.Random) -> bytes:
    rows = raw.split(b"\n")
    rng.shuffle(rows)
    return b"\n".join(rows)


def _recode(raw: bytes, rng: random.Random) -> bytes:
    how = rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp1252"))
    return raw.decode("utf-8", errors="replace").encode(how, errors="replace")


def _ends(raw: bytes, rng: random.Random) -> bytes:
    return raw.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\r", b"\n\n", b"\x85", b" ")))


def _splice(raw: bytes, rng: random.Random) -> bytes:
    _, other = rng.choice(_SAMPLES)
    return raw[: rng.randrange(len(raw) + 1)] + other[rng.randrange(len(other)) :]


def _header(raw: bytes, rng: random.Random) -> bytes:
    value = rng.choice((*_TOKENS, *_LINES))[:40]
    return raw.replace(b"---\n", b"---\n" + rng.choice((b"", b"k: ", b"dlm_id: ", b"- ")) + value + b"\n", 1)


DAMAGES: Final[tuple[Damage, ...]] = (
    _cut,
    _put,
    _put,
    _put,
    _flip,
    _line,
    _line,
    _line,
    _shuffle,
    _recode,
    _ends,
    _splice,
    _header,
)
_SAMPLES: Final = samples()


def damaged(rng: random.Random) -> tuple[str, bytes]:
    """Return a sample with one to three damages to its bytes."""
    suffix, raw = rng.choice(_SAMPLES)
    for _ in range(rng.randint(1, 3)):
        raw = rng.choice(DAMAGES)(raw, rng)
    return (rng.choice(_SUFFIXES) if rng.random() < 0.05 else suffix), raw[:60_000]


_SUFFIXES: Final = (".txt", ".md", ".json", ".jsonl", ".dlm", ".parquet", "", ".TXT", ".ndjson", ".csv")


def misshapen(rng: random.Random) -> tuple[str, bytes]:
    """Return rows of which some have wrong types, missing, doubled or strange keys."""
    rows = [json.loads(json.dumps(rng.choice(SHAPES))) for _ in range(rng.randint(1, 3))]
    for _ in range(rng.randint(1, 3)):
        rows = _twisted(rows, rng)
    kind = rng.choice(_ROWS_OF)
    if kind == "parquet":
        raw = _parquet(rows) if isinstance(rows, list) else None
        if raw is not None:
            return ".parquet", raw
        kind = "jsonl"
    if kind == "json":
        whole: Any = rows if rng.random() < 0.6 else {rng.choice(("data", "rows", "")): rows}
        return ".json", _doubled(json.dumps(whole, indent=rng.choice((None, 2))), rng)
    values = rows if isinstance(rows, list) else [rows]
    return rng.choice((".jsonl", ".txt")), _doubled("\n".join(map(json.dumps, values)), rng)


def _doubled(text: str, rng: random.Random) -> bytes:
    """Write a key twice into some objects."""
    if rng.random() < 0.1:
        keys = re.findall(r'\{("\w+": )', text)
        if keys:
            text = text.replace(key := rng.choice(keys), f'{key}"again", {key}', 1)
    return text.encode()


def _twisted(value: Any, rng: random.Random) -> Any:
    """Return a value with something wrong somewhere in it."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice([*value])
        how = rng.random()
        if how < 0.5:
            return {**value, key: _twisted(value[key], rng)}
        if how < 0.65:
            return {k: v for k, v in value.items() if k != key}
        if how < 0.8:
            return {(rng.choice(_KEYS) if k == key else k): v for k, v in value.items()}
        return {**value, rng.choice(_KEYS): rng.choice((*_ODD, "a", [dict(_ASK)]))}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        how = rng.random()
        put = [] if how < 0.1 else [value[at]] * 2 if how < 0.2 else [_twisted(value[at], rng)]
        return [*value[:at], *put, *value[at + 1 :]]
    return rng.choice(_ODD)


def variants(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield damaged files without end, as (ending, content)."""
    rng = random.Random(seed)  # noqa: S311 (reproducible damage, no secret)
    while True:
        yield (damaged if rng.random() < 0.6 else misshapen)(rng)


# ---- The run


def check(suffix: str, raw: bytes, folder: Path, *, suite: bool = False) -> Outcome:
    """Return what becomes of a file with this content; with `suite`, one is written from it too."""
    path = folder / f"x{suffix}"
    path.write_bytes(raw)
    began = time.process_time()
    try:
        found = settle(path)
        if suite:
            _suite(path)
    finally:
        path.unlink()
    _require(time.process_time() - began < _LONGEST, "takes longer than any small file should")
    return found


def _suite(path: Path) -> None:
    try:
        autogen([Source(str(path))], base="org/tiny-135M")
    except SwayError:
        return
    except Exception as exc:
        raise BrokenRuleError(f"autogen: {type(exc).__name__}: {exc}") from exc


def entry(suffix: str, raw: bytes, found: Outcome) -> dict[str, str]:
    """Return a line of the corpus."""
    return {"name": f"x{suffix}", "outcome": found.kind, "data": base64.b64encode(raw).decode()}


def main() -> int:
    """Fuzz for a time; end with 1 where something broke the rule."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "600")))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write variants of distinct outcome here")
    parser.add_argument("--most", type=int, default=600, help="variants to keep")
    wanted = parser.parse_args()
    end, counts, broken = time.monotonic() + wanted.seconds, Counter[str](), set[str]()
    kept: dict[tuple[str, Outcome], list[bytes]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, (suffix, raw) in enumerate(variants(wanted.seed)):
            if time.monotonic() > end:
                break
            try:
                found = check(suffix, raw, Path(folder), suite=i % 25 == 0)
            except BrokenRuleError as fault:
                counts["BROKEN"] += 1
                if (what := re.sub(r"\d+", "N", str(fault))[:60]) not in broken:
                    broken.add(what)
                    again = json.dumps(entry(suffix, raw, Outcome("broken", what)))
                    sys.stdout.write(f"BROKEN {fault}\n  {raw[:300]!r}\n  {again}\n")
                    traceback.print_exc()
                continue
            counts[found.kind] += 1
            if found.kind != "read" and len(raw) < 1500:
                same = kept.setdefault((suffix, found), [])
                if len(same) < _SAME and raw not in same:
                    same.append(raw)
    sys.stdout.write(f"{sum(counts.values()):,} files: {dict(counts)}; {len(kept)} distinct outcomes\n")
    if wanted.keep:
        _write(kept, wanted.keep, wanted.most)
    return 1 if broken else 0


def _write(kept: dict[tuple[str, Outcome], list[bytes]], path: Path, most: int) -> None:
    """Write the shortest variant of each outcome in a random order, then a second of each, and so on."""
    rng = random.Random(0)  # noqa: S311 (an order, no secret)
    rows: list[dict[str, str]] = []
    for r in range(_SAME):
        more = [
            entry(suffix, sorted(same, key=len)[r], found) for (suffix, found), same in kept.items() if r < len(same)
        ]
        rng.shuffle(more)
        rows += more
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:most]), encoding="utf-8")
    sys.stdout.write(f"{path}: {min(most, len(rows))} variants\n")


if __name__ == "__main__":
    sys.exit(main())
