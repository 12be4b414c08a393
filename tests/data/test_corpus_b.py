"""The part of the control corpus that holds code, lists, languages, how-to texts and invented facts."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

CORPUS = Path(__file__).parents[2] / "src" / "dlm_sway" / "data" / "corpus"
SIZES = {"code": 28, "lists": 28, "languages": 28, "howto": 28, "invented": 48}
REGISTERS = tuple(SIZES)
EXAMPLES = Path(__file__).parents[2] / "examples"
FULL_NAME = re.compile(r"\b[A-Z][a-zé]+ [A-Z][a-zé]+\b")
DEMO_SUBJECT = re.compile(r"\b(bells?|tides?|tidal|harbou?rs?|lighthouses?|clockwork|vantry)\b", re.IGNORECASE)


def passages(register: str) -> list[dict[str, str]]:
    lines = (CORPUS / f"{register}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def eight_grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[^\W_]+", text.lower())
    return {tuple(words[i : i + 8]) for i in range(len(words) - 7)}


@pytest.mark.parametrize("register", REGISTERS)
def test_a_register_holds_its_passages_in_order(register: str) -> None:
    found = [(p["id"], p["register"]) for p in passages(register)]
    assert found == [(f"{register}-{i:03d}", register) for i in range(1, SIZES[register] + 1)]


@pytest.mark.parametrize("register", REGISTERS)
def test_a_passage_has_the_three_keys_and_clean_edges(register: str) -> None:
    for passage in passages(register):
        assert list(passage) == ["id", "register", "text"]
        assert passage["text"] == passage["text"].strip()


@pytest.mark.parametrize("register", REGISTERS)
def test_a_passage_is_neither_a_fragment_nor_a_page(register: str) -> None:
    """Bytes stand in for tokens: 80 to 250 tokens of a BPE are 240 to 800 bytes in every script here."""
    for passage in passages(register):
        assert 240 <= len(passage["text"].encode()) <= 800, passage["id"]


@pytest.mark.parametrize("register", REGISTERS)
def test_the_corpus_keeps_off_the_subject_of_the_demo(register: str) -> None:
    assert [p["id"] for p in passages(register) if DEMO_SUBJECT.search(p["text"])] == []


def test_no_passage_gives_away_another() -> None:
    found = [(gram, p["id"]) for register in REGISTERS for p in passages(register) for gram in eight_grams(p["text"])]
    counts = Counter(gram for gram, _ in found)
    assert [(name, " ".join(gram)) for gram, name in found if counts[gram] > 1] == []


def test_the_invented_facts_share_nothing_with_the_examples() -> None:
    shown = set().union(
        *(eight_grams(path.read_text(encoding="utf-8")) for path in EXAMPLES.rglob("*") if path.is_file())
    )
    assert [p["id"] for p in passages("invented") if eight_grams(p["text"]) & shown] == []


def test_no_invented_name_comes_back_in_another_passage() -> None:
    """A full name met twice would let one passage predict another."""
    found = Counter(name for p in passages("invented") for name in set(FULL_NAME.findall(p["text"])))
    assert len(found) >= 48
    assert [name for name, n in found.items() if n > 1] == []


def test_the_languages_span_several_scripts() -> None:
    text = " ".join(p["text"] for p in passages("languages"))
    scripts = {
        "Cyrillic": r"[\u0400-\u04ff]",
        "Arabic": r"[\u0600-\u06ff]",
        "Devanagari": r"[\u0900-\u097f]",
        "kana": r"[\u3040-\u30ff]",
        "Han": r"[\u4e00-\u9fff]",
    }
    assert [name for name, pattern in scripts.items() if not re.search(pattern, text)] == []


def test_the_python_passages_are_python() -> None:
    starts = ("def ", "import ", "from ", "async def ")
    snippets = [p["text"] for p in passages("code") if p["text"].startswith(starts) and "useEffect" not in p["text"]]
    assert len(snippets) == 6
    for snippet in snippets:
        compile(snippet, "passage", "exec")
