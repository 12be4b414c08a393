from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from dlm_sway.core.errors import CannotRunError
from dlm_sway.data import control
from dlm_sway.data.control import ControlPassage, control_passages, corpus_hash, registers
from dlm_sway.data.prompts import GENERAL_PROMPTS, SHORT_PROMPTS

# Registers in which a word is a word; code, lists and other languages have their own proportion of tokens to words.
ENGLISH_TEXT = ("dialogue", "encyclopaedic", "howto", "invented", "news", "prose")
OVERLAP_WORDS = 8


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def ngrams(text: str, n: int = OVERLAP_WORDS) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


def write_corpus(folder: Path, **sizes: int) -> Path:
    for register, size in sizes.items():
        rows = [{"id": f"{register}-{i}", "register": register, "text": f"{register} {i}"} for i in range(size)]
        (folder / f"{register}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_the_corpus_has_at_least_200_passages() -> None:
    assert len(control_passages()) >= 200


def test_every_register_has_at_least_20_passages() -> None:
    sizes = Counter(passage.register for passage in control_passages())
    assert set(ENGLISH_TEXT) < set(registers())
    assert min(sizes.values()) >= 20, sizes


def test_ids_are_unique_and_begin_with_their_register() -> None:
    ids = [passage.id for passage in control_passages()]
    assert len(set(ids)) == len(ids)
    assert [p.id for p in control_passages() if not p.id.startswith(f"{p.register}-")] == []


@pytest.mark.parametrize("register", ENGLISH_TEXT)
def test_passages_of_english_text_have_65_to_190_words(register: str) -> None:
    sizes = {p.id: len(p.text.split()) for p in control_passages() if p.register == register}
    assert {id_: n for id_, n in sizes.items() if not 65 <= n <= 190} == {}


def test_every_passage_has_250_to_1300_bytes() -> None:
    sizes = {p.id: len(p.text.encode()) for p in control_passages()}
    assert {id_: n for id_, n in sizes.items() if not 250 <= n <= 1300} == {}


def test_passages_have_neither_stray_space_nor_control_characters_nor_replacement_marks() -> None:
    bad = [
        p.id for p in control_passages() if p.text != p.text.strip() or re.search(r"[\x00-\x08\x0b-\x1f\ufffd]", p.text)
    ]
    assert bad == []


def test_no_two_passages_share_eight_words_in_a_row() -> None:
    seen: dict[tuple[str, ...], str] = {}
    shared = []
    for passage in control_passages():
        grams = ngrams(passage.text)
        shared += [(seen[gram], passage.id, " ".join(gram)) for gram in grams if gram in seen]
        seen |= dict.fromkeys(grams, passage.id)
    assert shared == []


def test_no_two_passages_of_english_text_open_with_the_same_four_words() -> None:
    openings = Counter(tuple(words(p.text)[:4]) for p in control_passages() if p.register in ENGLISH_TEXT)
    assert [opening for opening, n in openings.items() if n > 1] == []


@pytest.mark.parametrize("length", [1, 9, 32, 100])
def test_any_prefix_is_balanced_over_registers(length: int) -> None:
    sizes = Counter(passage.register for passage in control_passages()[:length])
    counts = [sizes[register] for register in registers()]
    assert max(counts) - min(counts) <= 1


def test_longer_registers_come_last_when_others_have_run_out(tmp_path: Path) -> None:
    passages = control._read_corpus(write_corpus(tmp_path, b=3, a=1))
    assert [p.id for p in passages] == ["a-0", "b-0", "b-1", "b-2"]


def test_every_file_is_utf_8_with_one_register_and_nothing_lost() -> None:
    folder = Path(control.__file__).parent / "corpus"
    rows = [
        (path.stem, json.loads(line))
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").split("\n")
        if line
    ]
    assert {stem for stem, row in rows if row["register"] != stem} == set()
    assert {row["id"] for _, row in rows} == {passage.id for passage in control_passages()}


def test_the_hash_is_that_of_the_content_and_moves_with_one_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = corpus_hash()
    assert re.fullmatch(r"[0-9a-f]{64}", shipped)
    first, *rest = control_passages()
    changed = ControlPassage(first.id, first.register, first.text + "x")
    monkeypatch.setattr(control, "control_passages", lambda: (first, *rest))
    assert corpus_hash.__wrapped__() == shipped
    monkeypatch.setattr(control, "control_passages", lambda: (changed, *rest))
    assert corpus_hash.__wrapped__() != shipped


def test_line_ends_and_escapes_leave_the_passages_alone(tmp_path: Path) -> None:
    row = {"id": "a-1", "register": "a", "text": "café\u2028au lait"}
    readings = []
    for name, ascii_only, end in (("plain", False, "\n"), ("windows", True, "\r\n")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.jsonl").write_bytes((json.dumps(row, ensure_ascii=ascii_only) + end).encode())
        readings.append(control._read_corpus(folder))
    assert readings[0] == readings[1] == (ControlPassage(**row),)


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"id": "x", "register": "a"}', b'{"id": 1, "register": "a", "text": ""}', b"\xff"]
)
def test_a_damaged_line_is_named_by_file_and_number(tmp_path: Path, line: bytes) -> None:
    write_corpus(tmp_path, a=1)
    with (tmp_path / "a.jsonl").open("ab") as handle:
        handle.write(line + b"\n")
    with pytest.raises(CannotRunError, match=r"^a\.jsonl:2: .*install sway again from where you have it"):
        control._read_corpus(tmp_path)


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_a_corpus_without_files_cannot_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(CannotRunError, match="no control corpus found"):
        control._read_corpus(tmp_path / name)


def test_general_prompts_are_32_distinct_ones_of_8_to_25_words() -> None:
    assert len(GENERAL_PROMPTS) == len(set(GENERAL_PROMPTS)) == 32
    assert [prompt for prompt in GENERAL_PROMPTS if not 8 <= len(prompt.split()) <= 25] == []


def test_short_prompts_are_6_distinct_ones_of_6_to_10_words() -> None:
    assert len(SHORT_PROMPTS) == len(set(SHORT_PROMPTS)) == 6
    assert [prompt for prompt in SHORT_PROMPTS if not 6 <= len(prompt.split()) <= 10] == []


def test_no_prompt_is_taken_from_the_corpus() -> None:
    corpus = {gram for passage in control_passages() for gram in ngrams(passage.text, 6)}
    assert [p for p in (*GENERAL_PROMPTS, *SHORT_PROMPTS) if ngrams(p, 6) & corpus] == []
