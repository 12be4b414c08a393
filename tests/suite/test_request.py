from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.suite.request import QUICK_TOKENS, Request, read_request


def _file(root: Path, name: str, texts: Sequence[str]) -> Path:
    path = root / name
    path.write_text("\n".join(texts))
    return path


def _read(root: Path, **settings: Any) -> Request:
    fixed = {"data": None, "held_out": None, "n_draws": 39, "seed": 0, "quick": False, "batch_tokens": None}
    return read_request(root, **{**fixed, **settings})


def _specs(request: Request) -> dict[str, Any]:
    return {spec.kind: spec for _, spec in request.pairs}


def test_the_probes_are_those_that_the_data_allow(tmp_path: Path) -> None:
    data, held_out = _file(tmp_path, "d.txt", ["a b", "c d"]), _file(tmp_path, "h.txt", ["e f"])
    assert list(_specs(_read(tmp_path))) == ["delta_kl", "external_perplexity"]
    asked = ["delta_kl", "target_gain", "external_perplexity"]
    assert list(_specs(_read(tmp_path, data=data, quick=True))) == asked
    assert list(_specs(_read(tmp_path, data=data))) == [*asked, "leakage", "adapter_ablation"]
    specs = _specs(_read(tmp_path, data=data, held_out=held_out))
    assert [i.completion for i in specs["target_gain"].held_out] == ["e f"]
    assert specs["delta_kl"].prompts == specs["target_gain"].items


def test_data_in_sections_are_asked_which_took_of_the_texts_that_are_read_anyway(tmp_path: Path) -> None:
    data = _file(tmp_path, "d.md", ["# One", "a b", "", "c d", "# Two", "e f"])
    specs = _specs(_read(tmp_path, data=data, quick=True))
    sections = specs["section_internalization"]
    assert [(i.cluster, i.completion) for i in sections.sections] == [("One", "a b"), ("One", "c d"), ("Two", "e f")]
    assert [i.completion for i in specs["target_gain"].items] == ["a b", "c d", "e f"]
    assert (sections.read, bool(sections.controls)) == ("whole", True)


def test_items_are_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"prompt": "p", "completion": "c", "cluster": "one"}\n\n{"text": "t"}\n')
    first, second = _specs(_read(tmp_path, data=path))["target_gain"].items
    assert (first.prompt, first.completion, first.cluster, first.label) == ("p", "c", "one", "d.jsonl:1")
    assert (second.prompt, second.completion, second.label) == ("", "t", "d.jsonl:3")


@pytest.mark.parametrize(("n_draws", "quick"), [(18, False), (0, False), (18, True)])
def test_too_few_draws_are_refused(tmp_path: Path, n_draws: int, *, quick: bool) -> None:
    with pytest.raises(BadInputError, match=f"{n_draws} draws are too few: p is at least 1/{n_draws + 1}, so"):
        _read(tmp_path, n_draws=n_draws, quick=quick)
    assert _read(tmp_path, n_draws=19).n_draws == 19


def test_quick_means_fewer_draws_and_tokens(tmp_path: Path) -> None:
    data = _file(tmp_path, "d.txt", ["a b"])
    quick, whole = _read(tmp_path, data=data, quick=True), _read(tmp_path, data=data)
    assert (quick.n_draws, whole.n_draws) == (19, 39)
    for kind in ("delta_kl", "target_gain"):
        assert _specs(quick)[kind].null_tokens == QUICK_TOKENS < _specs(whole)[kind].null_tokens


def test_held_out_text_alone_is_refused(tmp_path: Path) -> None:
    held_out = _file(tmp_path, "h.txt", ["a b"])
    with pytest.raises(BadInputError, match=r"h\.txt: held-out text is judged beside .*; name that too, with --data"):
        _read(tmp_path, held_out=held_out)


def test_the_same_file_cannot_be_held_out_under_any_name(tmp_path: Path) -> None:
    data = _file(tmp_path, "d.txt", ["a b"])
    (tmp_path / "link.txt").symlink_to(data)
    for held_out in (data, tmp_path / "link.txt", tmp_path / "." / "d.txt"):
        with pytest.raises(BadInputError, match="is the same file as the data, so nothing in it was held out"):
            _read(tmp_path, data=data, held_out=held_out)


def test_items_in_both_files_are_refused(tmp_path: Path) -> None:
    data, held_out = _file(tmp_path, "d.txt", ["a b", "c d"]), _file(tmp_path, "h.txt", ["c d", "e f"])
    with pytest.raises(BadInputError, match="1 held-out items are also in the training data, such as 'c d'"):
        _read(tmp_path, data=data, held_out=held_out)


@pytest.mark.parametrize("option", ["data", "held_out"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, option: str) -> None:
    files = {"data": _file(tmp_path, "d.txt", ["a b"]), "held_out": _file(tmp_path, "h.txt", ["c d"])}
    with pytest.raises(BadInputError, match=r"absent\.txt: no such file"):
        _read(tmp_path, **{**files, option: tmp_path / "absent.txt"})
