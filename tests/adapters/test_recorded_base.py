"""An adapter's numbers are those of the revision that it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlm_sway.adapters.config import load_config
from dlm_sway.adapters.recorded_base import at_recorded_revision
from dlm_sway.core.model import ModelSpec


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    config = {"peft_type": "LORA", "base_model_name_or_path": "someone/base", "revision": "v1"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("base", "named", "revision"),
    [("someone/base", None, "v1"), ("someone/base", "v2", "v2"), ("another/base", None, None)],
)
def test_the_recorded_revision_is_that_of_the_recorded_base_and_yields_to_the_users(
    adapter: Path, base: str, named: str | None, revision: str | None
) -> None:
    spec = ModelSpec(base=base, adapter=adapter, revision=named)
    assert at_recorded_revision(spec) == spec.model_copy(update={"revision": revision})


def test_a_base_that_is_not_named_is_the_recorded_one(adapter: Path) -> None:
    assert load_config(adapter).base_revision(None) == "v1"


def test_a_folder_without_a_record_changes_nothing(tmp_path: Path) -> None:
    for spec in (ModelSpec(base="someone/base"), ModelSpec(base="someone/base", adapter=tmp_path / "gone")):
        assert at_recorded_revision(spec) is spec
