from __future__ import annotations

import importlib

import pytest

from dlm_sway.core import extras
from dlm_sway.core.errors import ExitCode, MissingExtraError
from dlm_sway.core.extras import needs_extra


@pytest.fixture(autouse=True)
def _declared(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = {"torch": "hf", "mlx": "mlx", "huggingface-hub": "hf"}
    monkeypatch.setattr(extras, "_extras", lambda: declared)


@pytest.mark.parametrize("name", ["torch", "torch.nn", "huggingface_hub"])
def test_an_absent_package_names_all_packages_of_its_extra(name: str) -> None:
    with pytest.raises(MissingExtraError) as caught, needs_extra("loading a model"):
        raise ModuleNotFoundError(name=name)
    assert caught.value.remedy == "pip install torch huggingface-hub"
    assert caught.value.what == f"loading a model needs {name.partition('.')[0]}, which is not installed"
    assert caught.value.exit_code is ExitCode.ERROR


def test_an_absent_package_of_no_extra_is_named() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"needs no_such_package, .*; pip install no_such_pack"),
        needs_extra("it"),
    ):
        importlib.import_module("no_such_package.part")


def test_a_file_of_ours_that_is_gone_is_no_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError), needs_extra("it"):
        importlib.import_module("dlm_sway.no_such_file")


def test_other_errors_and_results_pass_through() -> None:
    with needs_extra("it"):
        value = 1
    assert value == 1
    with pytest.raises(KeyError), needs_extra("it"):
        raise KeyError("x")


def test_the_extras_are_those_that_the_distribution_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    extras._extras.cache_clear()
    lines = [
        "numpy>=1.26",
        "Some_Thing[fast]>=1,<2; extra == 'big'",
        'peft>=0.17 ; python_version > "3" and extra == "hf"',
    ]
    monkeypatch.setattr(extras, "requires", lambda _: lines)
    try:
        assert extras._extras() == {"some-thing": "big", "peft": "hf"}
    finally:
        extras._extras.cache_clear()


@pytest.mark.parametrize(
    ("platform", "command"), [("linux", "pip install 'fast[cpu]'"), ("darwin", "pip install fast")]
)
def test_a_package_is_asked_for_as_this_platform_needs_it(
    monkeypatch: pytest.MonkeyPatch, platform: str, command: str
) -> None:
    monkeypatch.undo()
    lines = [
        "fast[cpu]>=1; (sys_platform == 'linux') and extra == 'big'",
        "fast>=1; (sys_platform == 'darwin') and extra == 'big'",
    ]
    monkeypatch.setattr(extras, "requires", lambda _: lines)
    monkeypatch.setattr(extras.sys, "platform", platform)
    extras._extras.cache_clear()
    try:
        assert extras.install_command("fast") == command
    finally:
        extras._extras.cache_clear()
