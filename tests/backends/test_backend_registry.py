from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NoReturn

import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.registry import Backend, backend_kinds, open_backend
from dlm_sway.core.errors import BadInputError, MissingExtraError
from dlm_sway.core.model import ModelSpec


def test_a_dummy_is_opened_from_a_spec_with_its_options() -> None:
    spec = ModelSpec(base="toy", kind="dummy", options={"vocab_size": 64, "adapter": "none"})
    backend = open_backend(spec)
    assert isinstance(backend, DummyBackend)
    assert isinstance(backend, Backend)
    assert backend.kind == "dummy"
    assert (backend.id, backend.options.vocab_size, backend.options.adapter) == ("toy", 64, "none")


def test_an_unknown_kind_offers_the_nearest() -> None:
    with pytest.raises(BadInputError, match=r"unknown backend kind 'dumy'; did you mean 'dummy'\?"):
        open_backend(ModelSpec(base="toy", kind="dumy"))


def test_the_kinds_are_known_without_importing_torch() -> None:
    program = (
        "import sys; from dlm_sway.backends.registry import backend_kinds; "
        "print(*backend_kinds(), 'torch' in sys.modules, 'dlm_sway.backends.hf' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"api", "custom", "dummy", "hf", "two_model"} <= set(out.stdout.split()[:-2])
    assert out.stdout.split()[-2:] == ["False", "False"]
    assert out.stdout.split()[:-2] == list(backend_kinds())


def test_a_missing_package_becomes_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: ModelSpec) -> NoReturn:
        raise ModuleNotFoundError(name="torch")

    monkeypatch.setattr(DummyBackend, "from_spec", absent)
    with pytest.raises(MissingExtraError, match=r"a backend of kind 'dummy' needs torch, .*; pip install .*torch"):
        open_backend(ModelSpec(base="toy", kind="dummy"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary": 3}, "unknown option vocabulary"),
        ({"vocab_size": 3}, "vocab_size: Input should be greater than or equal to 8"),
        ({"adapter": "lora"}, "adapter: Input should be 'trained', 'noise' or 'none'"),
    ],
)
def test_a_wrong_option_of_a_dummy_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        open_backend(ModelSpec(base="toy", kind="dummy", options=options))


def test_a_dummy_refuses_an_adapter_directory() -> None:
    with pytest.raises(BadInputError, match="a dummy loads no adapter; describe it in `options`"):
        open_backend(ModelSpec(base="toy", kind="dummy", adapter="runs/a"))


def test_the_hugging_face_backend_needs_an_adapter() -> None:
    with pytest.raises(BadInputError, match="toy: no adapter is named; set `adapter` to its directory"):
        open_backend(ModelSpec(base="toy"))


def test_the_project_declares_every_built_in_that_registers() -> None:
    # The environment may be older than pyproject.toml, or newer: what is shipped is what stands there.
    root = Path(__file__).parents[2]
    declared = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    decorated = re.compile(r'^@register\("(\w+)"\)$', re.MULTILINE)
    for group, package in (("dlm_sway.backends", "backends"), ("dlm_sway.probes", "probes")):
        files = sorted((root / "src" / "dlm_sway" / package).glob("*.py"))
        registered = {kind: f"{group}.{f.stem}" for f in files for kind in decorated.findall(f.read_text("utf-8"))}
        assert registered
        assert declared.get(group) == registered
