from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from dlm_sway.core.errors import CannotRunError
from dlm_sway.data import facts as module
from dlm_sway.data.control import control_passages
from dlm_sway.data.facts import Fact, facts, facts_hash

FILES = Path(module.__file__).parent / "corpus" / "facts"
GOOD = {"id": "a-001", "category": "a", "prompt": "One is", "options": ["1", "2", "3", "4"], "answer": "1"}


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def likeness(a: Fact, b: Fact) -> float:
    return len(words(a.prompt) & words(b.prompt)) / len(words(a.prompt) | words(b.prompt))


def test_at_least_320_facts_in_at_least_eight_categories_of_at_least_40() -> None:
    sizes = Counter(fact.category for fact in facts())
    assert len(facts()) >= 320
    assert len(sizes) >= 8
    assert min(sizes.values()) >= 40


def test_every_line_has_the_five_keys_with_the_right_option_first() -> None:
    for path in FILES.glob("*.jsonl"):
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            row = json.loads(line)
            assert list(row) == ["id", "category", "prompt", "options", "answer"]
            assert (row["id"], row["category"]) == (f"{path.stem}-{i:03d}", path.stem)
            assert row["answer"] == row["options"][0]


def test_ids_and_prompts_are_unique() -> None:
    assert len({fact.id for fact in facts()}) == len(facts())
    assert len({fact.prompt.casefold() for fact in facts()}) == len(facts())


def test_no_two_facts_say_nearly_the_same() -> None:
    pairs = [(likeness(a, b), a, b) for a, b in itertools.combinations(facts(), 2)]
    assert [(a.id, b.id) for j, a, b in pairs if j >= 0.7] == []
    assert [(a.id, b.id) for j, a, b in pairs if j >= 0.5 and a.options[a.answer] == b.options[b.answer]] == []


def test_no_answer_is_right_more_often_than_three_times() -> None:
    assert max(Counter(fact.options[fact.answer].casefold() for fact in facts()).values()) <= 3


@pytest.mark.parametrize("fact", facts(), ids=lambda fact: fact.id)
def test_options_are_distinct_and_of_like_form_and_length(fact: Fact) -> None:
    assert len({option.casefold() for option in fact.options}) == 4
    assert len({len(option.split()) for option in fact.options}) == 1
    lengths = [len(option) for option in fact.options]
    assert max(lengths) - min(lengths) <= 6
    assert all(option == option.strip() and not option.endswith(".") for option in fact.options)
    assert fact.prompt == fact.prompt.strip()
    assert fact.options[fact.answer].casefold() not in words(fact.prompt)


def test_the_right_option_is_neither_longer_nor_shorter_than_the_others() -> None:
    longest = sum(len(f.options[f.answer]) == max(map(len, f.options)) for f in facts())
    shortest = sum(len(f.options[f.answer]) == min(map(len, f.options)) for f in facts())
    assert abs(longest - shortest) < 0.1 * len(facts())


def test_an_article_before_the_gap_fits_every_option() -> None:
    """English `an` gives away the options that begin with a consonant."""
    for fact in facts():
        if fact.prompt.endswith(" an"):
            assert all(option[0].lower() in "aeiou" for option in fact.options), fact.id
        if fact.prompt.endswith(" a"):
            assert all(option[0].lower() not in "aeio" for option in fact.options), fact.id


def test_each_place_holds_the_right_option_equally_often_in_every_category() -> None:
    for category in {fact.category for fact in facts()}:
        places = Counter(fact.answer for fact in facts() if fact.category == category)
        assert max(places.values()) - min(places.values()) <= 1
        assert len(places) == 4


@pytest.mark.parametrize("length", [8, 40, 80, 160])
def test_any_prefix_is_balanced_over_categories(length: int) -> None:
    sizes = Counter(fact.category for fact in facts()[:length])
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_shuffling_loses_nothing_and_keeps_the_right_option_right() -> None:
    rows = [json.loads(x) for path in FILES.glob("*.jsonl") for x in path.read_text(encoding="utf-8").splitlines()]
    shipped = {row["id"]: (sorted(row["options"]), row["answer"]) for row in rows}
    assert {fact.id: (sorted(fact.options), fact.options[fact.answer]) for fact in facts()} == shipped


def test_the_order_of_a_facts_options_does_not_depend_on_the_other_facts(tmp_path: Path) -> None:
    rows = [GOOD, GOOD | {"id": "a-002", "prompt": "Two is"}]
    found = []
    for name, some in (("one", rows[:1]), ("two", rows)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in some), encoding="utf-8")
        found.append(module._read_facts(tmp_path / name)[0].options)
    wrong = [[option for option in options if option != "1"] for options in found]
    assert wrong[0] == wrong[1]


def test_the_hash_follows_the_content(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = facts_hash()
    assert re.fullmatch(r"[0-9a-f]{64}", shipped)
    first, *rest = facts()
    turned = Fact(first.id, first.category, first.prompt, first.options, (first.answer + 1) % 4)
    monkeypatch.setattr(module, "facts", lambda: (turned, *rest))
    assert facts_hash.__wrapped__() != shipped


def test_facts_are_no_passages_of_the_control_corpus() -> None:
    text = "\n".join(passage.text for passage in control_passages())
    assert [fact.id for fact in facts() if fact.prompt in text] == []


@pytest.mark.parametrize(
    "fault",
    [
        {"prompt": 1},
        {"options": "1234"},
        {"options": [1, 2, 3, 4]},
        {"options": ["1", "2", "3"]},
        {"options": ["1", "2", "3", "3"]},
        {"answer": "5"},
    ],
)
def test_a_damaged_fact_is_named_by_file_and_number(tmp_path: Path, fault: dict[str, object]) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD | fault) + "\n", encoding="utf-8")
    with pytest.raises(CannotRunError, match=r"^a\.jsonl:2: .*install sway again from where you have it"):
        module._read_facts(tmp_path)


def test_a_pack_without_files_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="no pack of facts found"):
        module._read_facts(tmp_path)
