from __future__ import annotations

from typing import Any

import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.probes.base import Pairs, build_probe
from dlm_sway.suite.arrange import Arranged, arrange


def _pairs(*raw: dict[str, Any]) -> Pairs:
    return tuple(build_probe(entry) for entry in raw)


D = {"name": "d", "kind": "delta_kl", "prompts": ["a", "b", "c"]}
T = {"name": "t", "kind": "target_gain", "items": ["a", "b", "c"], "held_out": ["d", "e"]}
E = {"name": "e", "kind": "external_perplexity"}
N = {"name": "null", "kind": "null_adapter", "runs": 7}


def _names(pairs: Pairs) -> list[str]:
    return [spec.name for _, spec in pairs]


def _arranged(*raw: dict[str, Any], **settings: Any) -> Arranged:
    return arrange(_pairs(*raw), **{"n_draws": 39, **settings})


@pytest.mark.parametrize("order", [(N, D, T), (D, N, T), (D, T, N)])
def test_calibration_comes_first_wherever_it_stands(order: tuple[dict[str, Any], ...]) -> None:
    found = _arranged(*order)
    assert _names(found.of_model) == ["null", "d", "t"]
    assert _names(found.pairs) == [entry["name"] for entry in order]
    assert found.added is None


def test_a_suite_without_calibration_gets_it_with_its_draws() -> None:
    found = _arranged(D, E, n_draws=19)
    assert found.added == "null_adapter"
    assert _names(found.pairs) == ["null_adapter", "d", "e"]
    assert found.of_model[0][1].runs == 19  # type: ignore[attr-defined]


def test_it_is_not_added_where_nothing_has_a_null_to_show_or_where_it_is_skipped() -> None:
    assert _names(_arranged(E).pairs) == ["e"]
    assert _names(_arranged(D, skip=("null_adapter",)).pairs) == ["d"]


def test_the_added_name_is_free() -> None:
    assert _arranged(D | {"name": "null_adapter"}).added == "null_adapter-2"


def test_only_keeps_what_is_named_and_its_calibration() -> None:
    assert _names(_arranged(N, D, T, E, only=("t",)).pairs) == ["null", "t"]
    assert _names(_arranged(N, D, T, E, only=("e",)).pairs) == ["e"]
    assert _names(_arranged(N, D, E, only=("null", "e")).pairs) == ["null", "e"]


def test_a_style_probe_needs_the_model_also_where_its_reference_is_too_short_to_ask_anything() -> None:
    found = _arranged({"name": "s", "kind": "style_fingerprint", "reference": "One. Two."})
    assert (_names(found.of_model), found.of_files) == (["s"], ())


def test_probes_of_conversations_need_the_model() -> None:
    tool = {"type": "function", "function": {"name": "ring", "parameters": {"type": "object", "properties": {}}}}
    calls = {"name": "calls", "kind": "tool_use_fidelity", "cases": [{"prompt": "Ring.", "tools": [tool]}]}
    turns = {"name": "turns", "kind": "multi_turn_coherence_decay", "prompts": ["Who rings?", "Why?"]}
    found = _arranged(calls, turns)
    assert {"calls", "turns"} <= set(_names(found.of_model))
    assert found.of_files == ()


def test_skip_leaves_out_what_is_named() -> None:
    assert _names(_arranged(N, D, E, skip=("d",)).pairs) == ["e"]
    assert _names(_arranged(N, D, E, skip=("null", "null_adapter")).pairs) == ["d", "e"]


def test_a_name_that_is_not_there_offers_the_nearest() -> None:
    with pytest.raises(BadInputError, match=r"no probe is called 'tt'.*did you mean `t`"):
        _arranged(D, T, only=("tt",))


def test_nothing_left_is_refused() -> None:
    with pytest.raises(BadInputError, match="no probe is left"):
        _arranged(E, skip=("e",))


def test_a_limit_cuts_each_list_of_items() -> None:
    spec: Any = _arranged(T, limit=1).of_model[1][1]
    assert ([i.completion for i in spec.items], [i.completion for i in spec.held_out]) == (["a"], ["d"])
    with pytest.raises(BadInputError, match="leaves nothing"):
        _arranged(T, limit=0)


def test_a_limit_leaves_lists_of_names_alone() -> None:
    raw = {"name": "n", "kind": "null_adapter", "calibrate_kinds": ["delta_kl", "target_gain"]}
    spec: Any = _arranged(raw, D, limit=1).of_model[0][1]
    assert spec.calibrate_kinds == ("delta_kl", "target_gain")
