from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import SuiteResult
from dlm_sway.engine.ask import TextItem
from dlm_sway.suite import loader
from dlm_sway.suite.faults import SpecError
from dlm_sway.suite.loader import load_spec
from dlm_sway.suite.spec import Suite
from dlm_sway.suite.yaml_file import Document, read_yaml

HEAD = "version: 1\nmodels: {base: {kind: dummy, base: tiny}, ft: {}}\n"
CATEGORIES = (
    "'baseline', 'adherence', 'attribution', 'calibration' or 'ablation', and is 'adherance'; did you mean `adherence`?"
)
Load = Callable[..., Suite]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return what loads a suite from its text, after a head of five settings."""

    def of(text: str, *, head: str = HEAD) -> Suite:
        path = tmp_path / "sway.yaml"
        path.write_text(head + text)
        return load_spec(path)

    return of


def _faults(load: Load, text: str, *, head: str = HEAD) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(text, head=head)
    return [line.split("sway.yaml:", 1)[1] for line in caught.value.lines()]


def test_a_suite_is_read_with_its_defaults(load: Load) -> None:
    suite = load("suite:\n  - {name: a, kind: delta_kl}\n")
    assert (suite.name, suite.base, suite.adapter) == ("sway", "tiny", None)
    assert (suite.defaults.draws, suite.defaults.seed, suite.defaults.coverage_threshold) == (39, 0, 0.6)
    assert [(spec.name, spec.kind) for _, spec in suite.pairs] == [("a", "delta_kl")]
    assert suite.model.kind == "dummy"
    assert len(suite.sha256) == 64


def test_the_hash_is_of_what_was_read_and_not_of_what_stands_there_later(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "suite:\n  - {name: a, kind: delta_kl}\n"
    path = tmp_path / "sway.yaml"

    def read_before_a_change(file: Path) -> Document:
        document = read_yaml(file)
        path.write_text("version: 1\n# another suite\n")
        return document

    monkeypatch.setattr(loader, "read_yaml", read_before_a_change)
    suite = load(text)
    assert [spec.name for _, spec in suite.pairs] == ["a"]
    assert suite.sha256 == hashlib.sha256((HEAD + text).encode()).hexdigest()


def test_the_fine_tune_takes_from_the_base_what_it_leaves_out(load: Load) -> None:
    head = "version: 1\nmodels: {base: {kind: dummy, base: tiny, options: {rank: 2}}, ft: {dtype: bf16}}\n"
    suite = load("defaults: {device: cpu}\nsuite: [{name: a, kind: delta_kl}]\n", head=head)
    assert suite.model.options == {"rank": 2}
    assert (suite.model.dtype, suite.model.device) == ("bf16", "cpu")


def test_a_word_is_a_base_or_an_adapter_relative_to_the_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    suite = load("suite: [{name: a, kind: delta_kl}]\n", head="version: 1\nmodels: {base: org/name, ft: out}\n")
    assert (suite.model.base, suite.model.adapter) == ("org/name", tmp_path / "out")
    assert (suite.base, suite.adapter) == ("org/name", "out")
    (tmp_path / "org" / "name").mkdir(parents=True)
    suite = load("suite: [{name: a, kind: delta_kl}]\n", head="version: 1\nmodels: {base: org/name, ft: out}\n")
    assert suite.model.base == str(tmp_path / "org" / "name")


@pytest.mark.parametrize(("kind", "option"), [("two_model", "finetuned"), ("api", "tokenizer")])
def test_a_model_in_the_options_is_named_as_the_base_is(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, option: str
) -> None:
    (tmp_path / "runs" / "full").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    options = {"tokenizer": "x", "url": "http://h"} if kind == "api" else {}

    def loaded(word: str) -> Any:
        base = {"kind": kind, "base": "org/name", "options": {**options, option: word}}
        head = f"version: 1\nmodels: {json.dumps({'base': base, 'ft': {}})}\n"
        return load("suite: [{name: a, kind: delta_kl}]\n", head=head).model.options[option]

    assert loaded("runs/full") == str(tmp_path / "runs" / "full")
    assert loaded("./other") == str(tmp_path / "other")
    assert loaded("org/full") == "org/full"


@pytest.mark.parametrize(("base", "revision"), [("org/name", "v1"), ("org/other", None)])
def test_the_base_is_that_of_the_revision_that_the_adapter_records(
    load: Load, tmp_path: Path, base: str, revision: str | None
) -> None:
    (tmp_path / "out").mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": "org/name", "revision": "v1"}
    (tmp_path / "out" / "adapter_config.json").write_text(json.dumps(config))
    head = f"version: 1\nmodels: {{base: {base}, ft: out}}\n"
    assert load("suite: [{name: a, kind: delta_kl}]\n", head=head).model.revision == revision


def test_named_data_becomes_the_items_of_a_probe(load: Load, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("one\n\ntwo\n")
    suite = load("data: {train: train.txt}\nsuite:\n  - {name: a, kind: target_gain, items: {data: train}}\n")
    spec: Any = suite.pairs[0][1]
    assert [(i.completion, i.label) for i in spec.items] == [("one", "train.txt:1"), ("two", "train.txt:3")]
    assert all(isinstance(i, TextItem) for i in spec.items)
    assert [i.cluster for i in spec.items] == ["train:1", "train:3"]  # and nothing of where the file lies
    assert suite.data == {"train": tmp_path / "train.txt"}


def test_named_data_becomes_plain_texts_or_cases_where_a_probe_takes_those(load: Load, tmp_path: Path) -> None:
    (tmp_path / "style.jsonl").write_text('{"prompt": "p", "completion": "c"}\n{"text": "t"}\n')
    case = {"prompt": "a", "gold": "b", "paraphrases": ["c", "d"]}
    (tmp_path / "cases.jsonl").write_text(json.dumps(case) + "\n\n" + json.dumps(case | {"prompt": "e"}) + "\n")
    suite = load(
        "data: {style: style.jsonl, cases: cases.jsonl}\nsuite:\n"
        "  - {name: a, kind: style_fingerprint, reference: x, prompts: {data: style}}\n"
        "  - {name: b, kind: adapter_revert, cases: {data: cases}}\n"
    )
    style, revert = (spec for _, spec in suite.pairs)
    assert style.prompts == ("p", "t")  # type: ignore[attr-defined]
    assert [c.prompt for c in revert.cases] == ["a", "e"]  # type: ignore[attr-defined]


def test_named_data_becomes_whole_sections_by_their_titles_where_a_probe_takes_those(
    load: Load, tmp_path: Path
) -> None:
    (tmp_path / "a.md").write_text("# One\n\nfirst part\n\nsecond part\n\n# Two\n\nthird part\n\n# One\n\nlast\n")
    suite = load("data: {doc: a.md}\nsuite:\n  - {name: a, kind: section_internalization, sections: {data: doc}}\n")
    spec: Any = suite.pairs[0][1]
    texts = [("One", "first part\n\nsecond part"), ("Two", "third part"), ("One (2)", "last")]
    assert [(i.label, i.completion) for i in spec.sections] == texts


def test_margins_are_for_the_probes_that_do_not_say(load: Load) -> None:
    text = "suite:\n  - {name: a, kind: external_perplexity}\n  - {name: b, kind: external_perplexity, margin: 0.2}\n"
    suite = load("defaults: {margins: {external_perplexity: 0.1}}\n" + text)
    assert [spec.margin for _, spec in suite.pairs] == [0.1, 0.2]  # type: ignore[attr-defined]


def test_every_fault_is_said_at_once_with_its_place(load: Load, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("x")
    text = """\
defaults: {draws: many, frmat: chat, format: cht, margins: {external_perplexit: 1}, score_weights: {adherance: 1}}
data: {train: trian.txt, ok: train.txt}
suite:
  - {name: a, kind: delta_kll}
  - {name: a, kind: target_gain, items: {data: trane}, min_gian: 3, min_gain: -1}
  - {kind: delta_kl}
  - 7
unknown: 1
"""
    assert _faults(load, text) == [
        "3:19: `defaults.draws`: should be a valid integer, unable to parse string as an integer, and is 'many'",
        "3:25: unknown key `frmat`; did you mean `format`?",
        "3:46: `defaults.format`: should be 'auto', 'chat' or 'raw', and is 'cht'; did you mean `chat`?",
        "3:61: no kind `external_perplexit` has a margin; did you mean `external_perplexity`?",
        f"3:101: `defaults.score_weights.adherance`: should be {CATEGORIES}",
        "4:15: trian.txt: no such file; did you mean `train.txt`?",
        "6:21: unknown kind `delta_kll`; did you mean `delta_kl`?",
        "7:12: the name `a` stands twice, first in line 6; rename one",
        "7:48: no data is called `trane`; did you mean `train`?",
        "7:56: unknown key `min_gian`; did you mean `min_gain`?",
        "7:79: `min_gain`: should be greater than 0, and is -1",
        "8:5: `name` is missing",
        "9:5: `suite.3`: should be a valid dictionary, and is 7",
        "10:1: unknown key `unknown`; known: data, defaults, models, name, suite, version",
    ]


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        ("{text: x, custer: y}", "unknown key `custer`; did you mean `cluster`?"),
        ("5", "`items.0`: should be a text, or a mapping with `text`, or `prompt` and `completion`, and is 5"),
        ("{prompt: [a]}", "`items.0.prompt`: should be a valid string, and is a list"),
    ],
)
def test_a_fault_inside_an_item_is_pointed_at(load: Load, item: str, fault: str) -> None:
    lines = _faults(load, f"suite:\n  - name: a\n    kind: target_gain\n    items:\n      - {item}\n")
    assert any(line.startswith("7:") and line.endswith(fault) for line in lines)


def test_a_fault_in_a_data_file_names_both_files(load: Load, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n{"txet": "b"}\n')
    text = "data: {d: d.jsonl}\nsuite:\n  - {name: a, kind: target_gain, items: {data: d}}\n"
    (line,) = _faults(load, text)
    assert line.startswith("3:11: ")
    assert "d.jsonl:2: has `txet`; did you mean `text`" in line


def test_what_a_probe_refuses_as_a_whole_is_said_at_the_probe(load: Load) -> None:
    text = "suite:\n  - {name: a, kind: target_gain, items: [x], held_out: [x]}\n"
    (line,) = _faults(load, text)
    assert line == (
        "4:5: 1 held-out items are also in the training data, such as 'x'; "
        "hold out items that the fine-tune has not seen"
    )


@pytest.mark.parametrize(
    ("models", "fault"),
    [
        ("{base: {kind: dmmy, base: b}, ft: {}}", "unknown kind of backend `dmmy`; did you mean `dummy`?"),
        ("{base: org/name, ft: {}}", "the fine-tune names no adapter; give `adapter: DIRECTORY`"),
        ("{base: ./absent, ft: a}", "no such model; check the path"),
        ("{base: org/name, ft: absent}", "no such directory; check the path"),
        ("{base: org/name, ft: {base: org/other, adapter: absent}}", "the fine-tune stands on another base"),
        ("{base: org/name}", "`ft` is missing"),
        ("{base: {base: b, dtpe: x}, ft: x}", "unknown key `dtpe`; did you mean `dtype`?"),
    ],
)
def test_faults_of_the_models_are_found_before_one_is_loaded(load: Load, models: str, fault: str) -> None:
    lines = _faults(load, "suite: [{name: a, kind: delta_kl}]\n", head=f"version: 1\nmodels: {models}\n")
    assert any(fault in line for line in lines), lines


@pytest.mark.parametrize(
    ("models", "fault"),
    [
        (
            "base: {kind: dummy, base: t}, ft: {options: {adaptr: noise}}",
            "2:55: unknown key `adaptr`; did you mean `adapter`?",
        ),
        (
            "base: {kind: dummy, base: t, options: {adapter: nois}}, ft: {}",
            "2:58: `adapter`: should be 'trained', 'noise' or 'none', and is 'nois'; did you mean `noise`?",
        ),
        (
            "base: {kind: api, base: t, options: {urll: 'http://h', url: 'http://h'}}, ft: {}",
            "2:47: unknown key `urll`; did you mean `url`?",
        ),
        ("base: {kind: api, base: t, options: {lora: 0}}, ft: {}", "2:46: `url` is missing"),
        (
            "base: {kind: api, base: t, options: {url: 'http://me:secret@h'}}, ft: {}",
            "2:52: `url`: must hold no user, password or query; a key comes from the environment (api_key_env)",
        ),
        (
            "base: {kind: two_model, base: t, options: {finetund: x, finetuned: x}}, ft: {}",
            "2:53: unknown key `finetund`; did you mean `finetuned`?",
        ),
        (
            "base: {kind: mlx, base: t, options: {rank: 8}}, ft: {}",
            "2:47: unknown key `rank`; a model of kind mlx has no options",
        ),
    ],
)
def test_options_are_looked_at_as_the_rest_of_the_file_is(load: Load, models: str, fault: str) -> None:
    head = f"version: 1\nmodels: {{{models}}}\n"
    assert _faults(load, "suite: [{name: a, kind: delta_kl}]\n", head=head) == [fault]


def test_a_kind_that_cannot_be_calibrated_and_a_margin_without_end_are_faults(load: Load) -> None:
    text = """\
defaults: {margins: {adapter_ablation: .inf}}
suite:
  - {name: n, kind: null_adapter, calibrate_kinds: [target_gain, delta_kll]}
  - {name: e, kind: external_perplexity, margin: .inf}
  - {name: b, kind: adapter_ablation}
"""
    no_null = "has no null ('delta_kl', 'target_gain' have), and is 'delta_kll'; did you mean `delta_kl`?"
    assert _faults(load, text) == [
        "3:40: `defaults.margins.adapter_ablation`: should be a finite number, and is inf",
        f"5:66: `calibrate_kinds.1`: {no_null}",
        "6:50: `margin`: should be a finite number, and is inf",
    ]


@pytest.mark.parametrize(
    ("alpha", "fault"),
    [
        ("0.5", "should be less than 0.5"),
        ("0.9", "should be less than 0.5, and is 0.9"),
        ("0", "should be greater than 0"),
    ],
)
def test_a_level_from_which_on_a_bound_is_none_is_a_fault(load: Load, alpha: str, fault: str) -> None:
    assert _faults(load, f"defaults: {{alpha: {alpha}}}\nsuite: [{{name: a, kind: delta_kl}}]\n") == [
        f"3:19: `defaults.alpha`: {fault}"
    ]
    assert load("defaults: {alpha: 0.49}\nsuite: [{name: a, kind: delta_kl}]\n").defaults.alpha == 0.49


def test_too_few_draws_are_a_fault(load: Load) -> None:
    (line,) = _faults(load, "defaults: {draws: 18}\nsuite: [{name: a, kind: delta_kl}]\n")
    assert (
        line == "3:19: 18 draws are too few: p is at least 1/19, so nothing could reach 0.05; ask for 19 draws or more"
    )


@pytest.mark.parametrize("text", ["- a\n", "7\n", "just words\n"])
def test_a_file_that_is_no_mapping_is_one_fault(load: Load, text: str) -> None:
    (line,) = _faults(load, text, head="")
    assert line.startswith("1:1: a suite file is a mapping")


def test_a_result_in_the_place_of_a_suite_is_one_line(load: Load) -> None:
    with pytest.raises(BadInputError, match=r"is a result, not a suite file; `sway report` shows it") as caught:
        load(SuiteResult(name="s").model_dump_json(), head="")
    assert not isinstance(caught.value, SpecError)


def test_an_empty_suite_and_another_version_are_faults(load: Load) -> None:
    lines = _faults(load, "suite: []\n", head=HEAD.replace("version: 1", "version: 2"))
    assert lines[0].startswith("1:10: `version`: should be 1, and is 2")
    assert "at least 1 item" in lines[1]


def test_the_error_is_a_line_a_fault(load: Load) -> None:
    with pytest.raises(BadInputError) as caught:
        load("suite: [{name: a, kind: x}, {name: a, kind: y}]\n")
    assert str(caught.value).count("\n") == 2
    assert caught.value.one_line().count(" | ") == 2


def test_loading_a_suite_imports_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "sway.yaml"
    path.write_text(HEAD + "suite: [{name: a, kind: delta_kl}, {name: n, kind: numeric_floor}]\n")
    script = f"import sys, dlm_sway; dlm_sway.load_spec({str(path)!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
