from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.data.autogen import autogen
from dlm_sway.data.material import Source
from dlm_sway.data.splits import HeldOut
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.base import build_probe
from dlm_sway.probes.controls import matched_controls
from dlm_sway.suite.request import QUICK_CUT, QUICK_PASSAGES, QUICK_TOKENS, Request, read_request


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
    assert (sections.read, bool(sections.controls), sections.text_tokens) == ("whole", True, QUICK_CUT)
    assert _specs(_read(tmp_path, data=data))["section_internalization"].text_tokens is None


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
        assert (_specs(quick)[kind].max_tokens, _specs(whole)[kind].max_tokens) == (QUICK_CUT, None)
    harm = _specs(quick)["external_perplexity"]
    assert (harm.max_tokens, harm.max_passages, harm.read_on) == (QUICK_CUT, QUICK_PASSAGES, False)


def test_quick_reads_the_beginnings_of_few_texts_whatever_the_size_of_the_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    many = [f"line {i} of many " + "and on it goes " * 40 for i in range(300)]
    data, held_out = _file(tmp_path, "d.txt", many[:200]), _file(tmp_path, "h.txt", many[200:])
    quick, whole = (
        _specs(_read(tmp_path, data=data, held_out=held_out, quick=q))["target_gain"] for q in (True, False)
    )
    assert (len(quick.items), len(quick.held_out)) == (32, 32)
    assert (len(whole.items), len(whole.held_out)) == (128, 100)
    assert "d.txt: 200 texts in it, of which 32 are read, drawn by the seed" in caplog.text


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


def test_what_both_files_hold_is_left_out_of_the_held_out_side_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, held_out = _file(tmp_path, "d.txt", ["a b", "c d"]), _file(tmp_path, "h.txt", ["c d", "e f"])
    specs = _specs(_read(tmp_path, data=data, held_out=held_out))
    assert [i.completion for i in specs["target_gain"].held_out] == ["e f"]
    assert "h.txt: 1 sections left out, since the data hold them or nearly so" in caplog.text
    with pytest.raises(BadInputError, match="all of it is also in the data"):
        _read(tmp_path, data=data, held_out=_file(tmp_path, "same.txt", ["c d"]))


def test_a_held_out_file_beside_the_data_is_pointed_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = _file(tmp_path, "d.txt", ["a b"])
    _file(tmp_path, "d.held-out.txt", ["c d"])
    assert _specs(_read(tmp_path, data=data))["target_gain"].held_out == ()
    assert "d.held-out.txt lies beside the data and is not read; --held-out names it" in caplog.text


@pytest.mark.parametrize("n", [24, 400])
@pytest.mark.parametrize("named", [True, False])
def test_a_check_reads_what_a_written_suite_reads(tmp_path: Path, n: int, *, named: bool) -> None:
    """The same split, the same sizes, the same items and so the same controls: both are made by one planner."""
    pytest.importorskip("datasketch")
    data = _file(tmp_path, "d.txt", [_line(i) for i in range(n)])
    unseen = _file(tmp_path, "h.txt", [_line(i) for i in range(n - 4, 2 * n)])  # 4 of them are trained on
    held_out = HeldOut("file", name=str(unseen)) if named else HeldOut("none")
    written = autogen([Source(str(data))], base="org/tiny-135M", held_out=held_out, seed=3)
    asked = yaml.safe_load(written.text)["suite"]
    suite = {raw["kind"]: build_probe(raw)[1] for raw in asked}
    check = _specs(_read(tmp_path, data=data, held_out=unseen if named else None, seed=3))
    for kind, key in (("target_gain", "items"), ("target_gain", "held_out"), ("delta_kl", "prompts")):
        mine, theirs = getattr(check[kind], key), getattr(suite[kind], key)
        assert _words(mine) == _words(theirs)
        assert len(mine) == (0 if key == "held_out" and not named else min(n, 128))
    controls = [matched_controls(s["target_gain"].items, rng=stream(3, "controls")) for s in (check, suite)]
    assert controls[0] == controls[1]
    assert check["external_perplexity"].passages == suite["external_perplexity"].passages == ()


def _line(i: int) -> str:
    rng = np.random.default_rng(i)
    return " ".join(f"{word}{rng.integers(999)}" for word in ("tide", "bell", "swan", "rope", "comb", "ink", "oath"))


def _words(items: Sequence[TextItem]) -> list[tuple[str, str]]:
    return [(item.prompt, item.completion) for item in items]


@pytest.mark.parametrize("option", ["data", "held_out"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, option: str) -> None:
    files = {"data": _file(tmp_path, "d.txt", ["a b"]), "held_out": _file(tmp_path, "h.txt", ["c d"])}
    with pytest.raises(BadInputError, match=r"absent\.txt: no such file"):
        _read(tmp_path, **{**files, option: tmp_path / "absent.txt"})


def test_reasoning_that_is_not_scored_is_said_once_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    turns = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "b"%s}]}'
    data = _file(tmp_path, "d.jsonl", [turns % (name, ', "reasoning_content": "hm"') for name in "pqr"])
    _read(tmp_path, data=data, held_out=_file(tmp_path, "h.jsonl", [turns % ("an unlike question", "")]))
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(f"{data}: read 3, used 3; the reasoning of 3 replies is not scored")
