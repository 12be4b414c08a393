"""One loaded base for several adapters: the numbers of a base loaded anew, in one load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import (
    NO_NULL,
    STACKED,
    VIEW_BY_VIEW,
    adapter_of,
    base_of,
    lora,
    open_backend,
    save_adapter,
    save_base,
)

from dlm_sway.backends import hf_load, one_base
from dlm_sway.backends.one_base import OneBase
from dlm_sway.core.errors import AdapterError, ViewError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import BASE, FINETUNED, View

TEXT = "the bell is struck when the water falls"
VIEWS = (BASE, FINETUNED, View("rotation", seed=3))
NOT_GIVEN_BACK = {"prompt", "prefix"}


def spec_of(kind: str, arch: str = "llama", **changes: Any) -> ModelSpec:
    given = {"base": str(base_of(arch)), "adapter": adapter_of(arch, kind), "dtype": "fp32", "device": "cpu"}
    return ModelSpec.model_validate({**given, **changes})


def logprobs(backend: Any, view: View) -> np.ndarray:
    with backend.view(view) as opened:
        return opened.rolling_logprob(TEXT).logprobs


def views_of(backend: Any) -> list[np.ndarray]:
    return [logprobs(backend, view) for view in (VIEWS if backend.null_refusal() is None else VIEWS[:2])]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the bases that are loaded from here on."""
    made: list[str] = []
    real = hf_load.load_base

    def counted(spec: ModelSpec, *rest: Any) -> Any:
        made.append(spec.base)
        return real(spec, *rest)

    monkeypatch.setattr(hf_load, "load_base", counted)
    return made


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", [*STACKED, *VIEW_BY_VIEW, *NO_NULL])
def test_after_any_adapter_the_next_one_has_the_numbers_of_a_base_loaded_anew(
    arch: str, kind: str, loads: list[str]
) -> None:
    with OneBase() as bases:
        with bases.lent(spec_of(kind, arch)) as first:
            before = views_of(first)
        for other in ("qv", kind):
            with bases.lent(spec_of(other, arch)) as second:
                found = views_of(second)
            fresh = open_backend(base_of(arch), adapter_of(arch, other))
            assert second.id == fresh.id
            for ours, theirs in zip(found, views_of(fresh), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(before[1], found[1])
    compared_with = 2
    assert len(loads) - compared_with == (2 if kind in NOT_GIVEN_BACK else 1)


def test_the_fingerprint_is_that_of_the_adapter_which_is_on() -> None:
    made = spec_of("qv"), spec_of("dora")
    with OneBase() as bases:
        with bases.lent(made[0]):
            pass
        with bases.lent(made[1]) as second:
            fresh = open_backend(base_of("llama"), adapter_of("llama", "dora"))
            assert second.fingerprint() == fresh.fingerprint() is not None  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", [{"dtype": "bf16"}, {"base": "gpt2"}])
def test_another_base_or_dtype_is_loaded(change: dict[str, str], loads: list[str]) -> None:
    other = spec_of("qv", change["base"]) if "base" in change else spec_of("qv", **change)
    with OneBase() as bases:
        for spec in (spec_of("qv"), other):
            with bases.lent(spec):
                pass
    assert len(loads) == 2


def test_an_adapter_that_does_not_fit_closes_the_base_and_says_why(tmp_path: Path) -> None:
    wide = save_base(tmp_path / "wide", hidden_size=64)
    unfit = save_adapter(wide, tmp_path / "adapter", lora())
    with OneBase() as bases:
        with bases.lent(spec_of("qv")) as first:
            pass
        with pytest.raises(AdapterError, match="does not fit the base"), bases.lent(spec_of("qv", adapter=unfit)):
            pass
        with pytest.raises(ViewError, match="closed"), first.as_base():
            pass
        with bases.lent(spec_of("qv")) as again:
            assert logprobs(again, BASE).size


def test_an_error_in_the_block_keeps_nothing() -> None:
    with OneBase() as bases:
        with pytest.raises(KeyboardInterrupt), bases.lent(spec_of("qv")) as backend:
            raise KeyboardInterrupt
        with pytest.raises(ViewError, match="closed"), backend.as_base():
            pass


def test_a_backend_that_keeps_no_base_is_opened_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = one_base.open_backend
    monkeypatch.setattr(one_base, "open_backend", lambda spec, **words: opened.append(spec.kind) or real(spec, **words))
    with OneBase() as bases:
        for _ in range(2):
            with bases.lent(ModelSpec(base="tiny", kind="dummy")):
                pass
    assert opened == ["dummy", "dummy"]
