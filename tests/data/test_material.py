"""Samples in bounded memory, near-duplicates, and the line between trained and held out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.sections import Section
from dlm_sway.data.choose import text_items
from dlm_sway.data.duplicates import groups_of_alike
from dlm_sway.data.material import LONGEST, Source, parse_source, read_material
from dlm_sway.data.reservoir import reservoir
from dlm_sway.data.splits import HeldOut, parse_held_out, split

pytest.importorskip("datasketch")

_WORDS = ("tide", "bell", "swan", "ladle", "comb", "gullet", "spill", "tongue", "warden", "ink", "oath", "mole", "rope")


def _text(i: int, n: int = 24) -> str:
    rng = np.random.default_rng(i)
    return f"Note {i}: " + " ".join(_WORDS[j] + str(rng.integers(50)) for j in rng.integers(len(_WORDS), size=n))


def _write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_every_item_of_a_stream_has_the_same_chance() -> None:
    counts: Counter[int] = Counter()
    for seed in range(2000):
        kept, n = reservoir(range(20), 5, rng=np.random.default_rng(seed))
        assert n == 20
        assert kept == sorted(kept)
        counts.update(kept)
    # 500 expected of each, sd 19.4: five of them either way
    assert all(403 <= counts[i] <= 597 for i in range(20))


def test_a_short_stream_is_returned_whole_and_an_empty_one_empty() -> None:
    assert reservoir(range(3), 5, rng=np.random.default_rng(0)) == ([0, 1, 2], 3)
    assert reservoir(iter(()), 5, rng=np.random.default_rng(0)) == ([], 0)


def test_a_sample_is_the_same_for_the_same_seed_and_says_that_it_is_one(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.jsonl", [{"text": _text(i)} for i in range(300)])
    first, again, other = (read_material((Source(str(path)),), limit=50, seed=seed) for seed in (1, 1, 2))
    assert first.sections == again.sections != other.sections
    assert first.is_sample
    assert first.tallies[0].summary == "read 300, used 300, drawn 50 of them at random"


def test_weights_share_the_sample(tmp_path: Path) -> None:
    paths = [_write(tmp_path / f"{name}.jsonl", [{"text": _text(i)} for i in range(100)]) for name in "ab"]
    material = read_material((parse_source(f"{paths[0]}=3"), parse_source(str(paths[1]))), limit=40)
    assert Counter(s.source for s in material.sections) == {str(paths[0]): 30, str(paths[1]): 10}
    with pytest.raises(BadInputError, match="a weight of 0"):
        parse_source("a.jsonl=0")


def test_long_prose_is_cut_and_a_long_answer_left_out_and_both_are_counted(tmp_path: Path) -> None:
    long = "word " * (LONGEST // 4)
    path = _write(tmp_path / "x.jsonl", [{"text": long}, {"prompt": "p", "completion": long}, {"text": "short"}])
    material = read_material((Source(str(path)),))
    assert [len(s.completion) <= LONGEST for s in material.sections] == [True, True]
    expected = "read 3, used 2, skipped 1 (1 longer than 16,384 characters), cut 1 to their beginning"
    assert material.tallies[0].summary == expected


def test_near_duplicates_are_one_group_and_others_are_not() -> None:
    a, b = _text(1), _text(2)
    labels = groups_of_alike(
        [a, b, a.replace("Note 1", "note 1 again"), a, "x", "潮の鐘は一日に二度鳴る", "潮の鐘は一日に二度鳴る。"]
    )
    assert labels == [0, 1, 0, 0, 4, 5, 5]


def test_a_share_keeps_clusters_and_near_duplicates_on_one_side(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": _text(i), "cluster": f"doc {i // 4}"} for i in range(80)]
    rows += [{"text": _text(i) + " indeed"} for i in range(40)]  # twins, without a cluster
    found = split(read_material((Source(str(_write(tmp_path / "x.jsonl", rows))),)), parse_held_out("25%"), seed=3)
    assert 0.25 <= len(found.held_out) / len(rows) <= 0.4
    clusters = [{s.cluster for s in side if s.cluster} for side in (found.trained, found.held_out)]
    assert not clusters[0] & clusters[1]
    twins = {" ".join(s.completion.split()[:10]) for s in found.held_out if not s.cluster}
    assert twins
    assert not twins & {" ".join(s.completion.split()[:10]) for s in found.trained}


def test_held_out_text_that_was_trained_on_is_dropped_and_counted(tmp_path: Path) -> None:
    data = _write(tmp_path / "d.jsonl", [{"text": _text(i)} for i in range(20)])
    held = _write(tmp_path / "h.jsonl", [{"text": _text(3) + "!"}, {"text": _text(99)}])
    found = split(read_material((Source(str(data)),)), HeldOut("file", name=str(held)))
    assert [s.completion for s in found.held_out] == [_text(99)]
    assert found.dropped == 1
    copy = _write(tmp_path / "copy.jsonl", [{"text": _text(3)}])
    with pytest.raises(BadInputError, match="all of it is also in the data"):
        split(read_material((Source(str(data)),)), HeldOut("file", name=str(copy)))


def test_held_out_text_is_sought_in_the_whole_of_the_data_and_not_in_its_sample(tmp_path: Path) -> None:
    data = _write(tmp_path / "d.jsonl", [{"text": _text(i)} for i in range(200)])
    held = _write(tmp_path / "h.jsonl", [{"text": _text(i)} for i in (*range(200), 999)])
    found = split(read_material((Source(str(data)),), limit=10), HeldOut("file", name=str(held)))
    assert [s.completion for s in found.held_out] == [_text(999)]


def test_auto_finds_the_file_beside_and_else_says_what_cannot_be_tested(tmp_path: Path) -> None:
    data = _write(tmp_path / "bell.train.jsonl", [{"text": _text(i)} for i in range(8)])
    material = read_material((Source(str(data)),))
    alone = split(material, parse_held_out("auto"))
    assert alone.held_out == ()
    assert [line.split(":")[0] for line in alone.cannot] == ["generalises", "leakage against unseen text"]
    _write(tmp_path / "bell.held-out.jsonl", [{"text": _text(50)}])
    named = f"held out: {tmp_path / 'bell.held-out.jsonl'}: read 1, used 1"
    assert split(material, parse_held_out("auto")).how == named


@pytest.mark.parametrize("text", ["0", "0.6", "60%", "100%", "0%"])
def test_a_share_that_leaves_no_more_than_it_takes_is_refused(text: str) -> None:
    if text == "0":
        assert parse_held_out(text).how == "file"
    else:
        with pytest.raises(BadInputError, match="is no share"):
            parse_held_out(text)


def test_one_single_cluster_cannot_be_split(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.jsonl", [{"text": _text(i), "cluster": "one"} for i in range(9)])
    with pytest.raises(BadInputError, match="one single cluster"):
        split(read_material((Source(str(path)),)), parse_held_out("0.2"))


def test_items_are_drawn_from_every_cluster_before_a_second_of_any() -> None:
    sections = [Section("prose", "", f"t{i}", "f", i, cluster="big" if i < 90 else str(i)) for i in range(100)]
    items = text_items(sections, most=11, seed=0)
    assert Counter(i.cluster for i in items) == Counter(["big", *map(str, range(90, 100))])
    assert text_items(sections[:5], most=11) == text_items(sections[:5], most=5)
