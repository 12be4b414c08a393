from __future__ import annotations

import pytest

from dlm_sway.core.errors import BadInputError
from dlm_sway.probes import registry
from dlm_sway.probes.registry import probe_class, probes, register


def test_the_built_in_probes_are_found_by_kind() -> None:
    found = probes()
    assert list(found) == sorted(found)
    assert {"delta_kl", "external_perplexity", "null_adapter", "numeric_floor", "target_gain"} <= set(found)
    for kind, cls in found.items():
        assert cls.kind == kind
        assert cls.spec_type.model_fields["kind"].default == kind


def test_an_unknown_kind_offers_the_nearest() -> None:
    with pytest.raises(BadInputError, match=r"unknown probe kind 'target_gian'; did you mean 'target_gain'\?"):
        probe_class("target_gian")


def test_a_plugin_registers_as_the_built_ins_do() -> None:
    mine = type("Mine", (probe_class("numeric_floor"),), {})
    try:
        register("mine")(mine)
        assert probe_class("mine") is mine
        assert (mine.kind, probe_class("numeric_floor").kind) == ("mine", "numeric_floor")
    finally:
        registry._REGISTRY._classes.pop("mine")


def test_a_kind_is_not_taken_twice() -> None:
    probes()
    with pytest.raises(ValueError, match="probe kind 'delta_kl' is both"):
        register("delta_kl")(type("Other", (probe_class("numeric_floor"),), {}))
    assert probe_class("delta_kl").__name__ == "DeltaKL"
