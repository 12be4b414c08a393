"""What a newcomer is shown: the demo documents hold together and do not leak into one another."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
EXAMPLES = REPO / "examples"
CORPUS = REPO / "src" / "dlm_sway" / "data" / "corpus"
TRAIN, HELD_OUT, WRONG = "tidal-bell.txt", "tidal-bell.held-out.txt", "wrong-document.txt"
UNSPACED = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")


def lines(name: str) -> list[str]:
    return (EXAMPLES / name).read_text(encoding="utf-8").splitlines()


def records(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in lines(name)]


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())  # noqa: RUF001 (texts may carry either apostrophe)


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


def grams_of(texts: list[str], n: int) -> Counter[tuple[str, ...]]:
    """Count in how many of the texts each run of n words occurs."""
    return Counter(chain.from_iterable(grams(text, n) for text in texts))


def names(name: str) -> set[str]:
    """Capitalised words inside a sentence."""
    return set(re.findall(r"(?<=[a-z,;] )[A-Z][a-z]+", " ".join(lines(name))))


@pytest.mark.parametrize(("name", "count"), [(TRAIN, 64), (HELD_OUT, 32), (WRONG, 64)])
def test_a_document_has_a_paragraph_of_20_to_45_words_a_line(name: str, count: int) -> None:
    lengths = [len(line.split()) for line in lines(name)]
    assert len(lengths) == count
    assert min(lengths) >= 20
    assert max(lengths) <= 45


def test_training_and_held_out_lines_share_no_eight_words() -> None:
    assert grams_of(lines(TRAIN), 8).keys() & grams_of(lines(HELD_OUT), 8).keys() == set()


@pytest.mark.parametrize("name", [TRAIN, HELD_OUT, WRONG])
def test_no_two_lines_of_a_document_share_eight_words(name: str) -> None:
    assert [gram for gram, count in grams_of(lines(name), 8).items() if count > 1] == []


def share_seen(n: int, source: str) -> float:
    """Return the share of the held-out document's runs of n words that the source has, too."""
    known = grams_of(lines(source), n)
    asked = list(chain.from_iterable(grams(line, n) for line in lines(HELD_OUT)))
    return sum(gram in known for gram in asked) / len(asked)


def test_the_training_lines_teach_what_the_held_out_lines_ask() -> None:
    assert share_seen(1, TRAIN) > 0.9
    assert share_seen(2, TRAIN) > 0.45
    assert share_seen(3, TRAIN) > 0.15


def test_the_wrong_document_teaches_little_of_it() -> None:
    assert share_seen(2, WRONG) < 0.2
    assert share_seen(3, WRONG) < 0.02


def test_the_wrong_document_shares_no_name_with_the_tidal_bell() -> None:
    shared = (names(TRAIN) | names(HELD_OUT)) & names(WRONG)
    assert shared <= {"October", "Second"}, "a month and an ordinal are no entities"


def test_plain_texts_are_160_distinct_texts_of_30_to_90_words() -> None:
    texts = [record["text"] for record in records("plain.jsonl")]
    assert len(set(texts)) == 160
    # Chinese and Japanese put no space between words.
    spaced = [text for text in texts if not UNSPACED.search(text)]
    assert len(spaced) == 158
    assert [text for text in spaced if not 30 <= len(text.split()) <= 90] == []


def test_plain_texts_do_not_repeat_the_control_corpus() -> None:
    corpus = [json.loads(x)["text"] for f in CORPUS.glob("*.jsonl") for x in f.read_text(encoding="utf-8").splitlines()]
    plain = [record["text"] for record in records("plain.jsonl")]
    assert corpus, "the control corpus is missing"
    assert grams_of(corpus, 8).keys() & grams_of(plain, 8).keys() == set()
    assert [gram for gram, count in grams_of(plain, 8).items() if count > 1] == []


def test_plain_texts_keep_off_the_tidal_bell() -> None:
    subject = re.compile(r"\b(bells?|tides?|tidal|harbou?rs?|lighthouses?|Wethergate|Corrin)\b", re.IGNORECASE)
    assert [r["text"] for r in records("plain.jsonl") if subject.search(r["text"])] == []


def test_questions_are_24_distinct_pairs_that_join_to_a_sentence() -> None:
    pairs = records("questions.jsonl")
    assert len({pair["prompt"] for pair in pairs}) == 24
    for pair in pairs:
        assert list(pair) == ["prompt", "completion"]
        assert re.fullmatch(r"Question: [A-Z].*\?\nAnswer:", pair["prompt"])
        assert re.fullmatch(r" [A-Z].*\.", pair["completion"])


def test_every_answer_stands_in_the_training_document() -> None:
    known = set(words(" ".join(lines(TRAIN))))
    function_words = {"he", "they", "an", "which", "because", "had", "who", "at", "does", "mean", "serves", "turn"}
    for pair in records("questions.jsonl"):
        unknown = set(words(pair["completion"])) - known - function_words
        assert unknown == set(), pair["prompt"]


def test_the_readme_names_every_file() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
    assert {name for name in files if f"`{name}`" not in readme} == set()
