from __future__ import annotations

import importlib

import pytest

import dlm_sway
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.result import Verdict
from dlm_sway.suite.result import CheckResult


def test_the_curated_names_are_those_of_their_modules() -> None:
    assert dlm_sway.ModelSpec is ModelSpec
    assert dlm_sway.Verdict is Verdict
    assert dlm_sway.CheckResult is CheckResult
    assert dlm_sway.inspect_adapter is importlib.import_module("dlm_sway.adapters.checks").inspect_adapter


def test_every_curated_name_is_listed() -> None:
    assert dir(dlm_sway) == sorted(dlm_sway.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'chekc'"):
        dlm_sway.chekc  # noqa: B018 (the access is what is tested)
