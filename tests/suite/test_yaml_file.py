from __future__ import annotations

from pathlib import Path

import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.suite import yaml_file
from dlm_sway.suite.faults import Place
from dlm_sway.suite.yaml_file import Document, read_yaml


def _read(tmp_path: Path, text: str | bytes) -> Document:
    path = tmp_path / "s.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path)


def test_values_and_their_places(tmp_path: Path) -> None:
    document = _read(tmp_path, "a: 1\nb:\n  - x\n  - {c: true}\n")
    assert document.value == {"a": 1, "b": ["x", {"c": True}]}
    assert document.place(("b", 1, "c")) == Place(4, 9)
    assert document.place(("b", 1, "c"), of_key=True) == Place(4, 6)


def test_the_place_of_what_is_not_there_is_the_nearest_around_it(tmp_path: Path) -> None:
    document = _read(tmp_path, "a:\n  b: 1\n")
    assert document.place(("a", "c", 3)) == Place(2, 3)


def test_a_key_is_a_word_and_a_day_too(tmp_path: Path) -> None:
    assert _read(tmp_path, "no: 2024-01-01\n1: x\n").value == {"no": "2024-01-01", "1": "x"}


def test_merge_keys_lose_against_what_stands_there_itself(tmp_path: Path) -> None:
    document = _read(tmp_path, "x: &x {a: 1, b: 1}\ny: {a: 2, <<: *x}\nz: {<<: [*x, {c: 3, b: 9}]}\n")
    assert document.value["y"] == {"a": 2, "b": 1}
    assert document.value["z"] == {"a": 1, "b": 1, "c": 3}
    assert document.faults == ()


def test_a_key_that_stands_twice_is_a_fault_with_both_lines(tmp_path: Path) -> None:
    (fault,) = _read(tmp_path, "a: 1\nb: 2\na: 3\n").faults
    assert fault.place == Place(3, 1)
    assert "`a` stands twice, first in line 1" in fault.what


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [ls]", "!own x", "!!binary aGk="])
def test_a_tag_is_never_followed(tmp_path: Path, tag: str) -> None:
    document = _read(tmp_path, f"a: {tag}\n")
    if document.faults:
        assert "is not read" in document.faults[0].what
    else:  # a tag on a list is dropped with its meaning
        assert document.value == {"a": ["ls"]}


def test_aliases_of_aliases_are_bounded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(BadInputError, match="names more than 200,000 values"):
        _read(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: *a}\n"])
def test_a_ring_of_aliases_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInputError, match="an alias stands inside what it names"):
        _read(tmp_path, text)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 50_000, "- " * 100_000])
def test_depth_is_bounded_before_anything_recurses(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInputError, match="nested deeper than 40 levels"):
        _read(tmp_path, text)


def test_depth_through_aliases_is_bounded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 60))]
    with pytest.raises(BadInputError, match="nested deeper than 40 levels"):
        _read(tmp_path, "\n".join(lines))


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_file, "MAX_BYTES", 100)
    with pytest.raises(BadInputError, match="is larger than"):
        _read(tmp_path, "a: " + "x" * 100)


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (b"a: b\n\tc: d\n", ":2:1", "tab"),
        (b"a: [1,\nb: 2\n", ":3:1", "is no YAML"),
        (b"a: 'x\n", ":2:1", "is no YAML"),
        (b"", "", "is empty"),
        (b"# nothing\n", "", "is empty"),
        (b"a: 1\nb: \xff\n", "", "is not UTF-8 in line 2"),
        (b"a: *nowhere\n", ":1:4", "undefined alias"),
    ],
)
def test_what_is_no_yaml_is_pointed_at(tmp_path: Path, text: bytes, where: str, what: str) -> None:
    with pytest.raises(BadInputError, match=what) as caught:
        _read(tmp_path, text)
    assert caught.value.where == f"{tmp_path / 's.yaml'}{where}"


def test_a_path_that_is_no_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file; `sway init` writes one"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(BadInputError, match="is a directory"):
        read_yaml(tmp_path)
