"""The vLLM backend against a fake of vLLM's interface: every view is what `hf` says it is, through folders alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fake_vllm import Logprob, Seen, install
from tests.models import adapter_of, backend_of, base_of, byte_tokenizer, save_base

from dlm_sway.backends.base import AdapterBackend, ScalarBackend
from dlm_sway.backends.registry import open_backend
from dlm_sway.backends.vllm import VllmBackend
from dlm_sway.backends.vllm_folders import _KEPT
from dlm_sway.core.errors import AdapterError, BadInputError, CannotRunError, MissingExtraError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.result import Verdict
from dlm_sway.core.views import BASE, FINETUNED, View, rotations, scaled
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.run import Engine
from dlm_sway.probes.base import RunContext, build_probe
from dlm_sway.probes.drive import drive
from dlm_sway.testing.backend_conformance import CHECKS, Check, Subject

TEXTS = ("the bell is struck when the water falls", "a b c d e f g", "water, and")
ITEMS = tuple(TextItem("", text, str(i), str(i)) for i, text in enumerate(TEXTS))
VIEWS = (
    FINETUNED,
    scaled(0.3),
    scaled(1.25),
    View("rotation", seed=5, draw=1),
    View("rotation", 0.4, 5, 2),
    View("rotation", seed=5, rank_scale=0.5),
    View("sign_flip", seed=5),
    View("gaussian", seed=5),
    View("top_rank", rank_scale=0.5),
)


def spec_of(own: Path, **changes: Any) -> ModelSpec:
    options = {"top_k": 300, **changes.pop("options", {})}
    given = {"base": str(base_of("llama")), "kind": "vllm", "adapter": own, "options": options, **changes}
    return ModelSpec.model_validate(given)


@pytest.fixture(scope="module")
def fake() -> Iterator[Seen]:
    with pytest.MonkeyPatch.context() as patch:
        yield install(patch)


@pytest.fixture(scope="module")
def backend(fake: Seen) -> Iterator[VllmBackend]:
    """A backend on an adapter with ranks and alphas of its own for some modules."""
    del fake
    found = open_backend(spec_of(adapter_of("llama", "ranks")))
    assert isinstance(found, VllmBackend)
    yield found
    found.close()


def test_it_offers_what_it_says(backend: VllmBackend) -> None:
    assert isinstance(backend, AdapterBackend)
    assert isinstance(backend, ScalarBackend)
    assert backend.source_name == "vLLM; divergences are lower bounds from the top 300"
    theirs = backend_of("llama", "ranks").spectra()
    found = backend.spectra()
    assert found.keys() == theirs.keys()
    for name, module in found.items():
        np.testing.assert_allclose(module.spectrum.singular_values, theirs[name].spectrum.singular_values, rtol=1e-4)


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_it_keeps_the_contract(check: Check, fake: Seen) -> None:
    del fake
    subject = Subject(lambda: open_backend(spec_of(adapter_of("llama", "qv"))), texts=TEXTS)
    try:
        check.verify(subject)
    finally:
        subject.close()


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_every_view_is_that_of_hf(backend: VllmBackend, view: View) -> None:
    ask = Ask(ITEMS, (view,), frozenset({"gain", "kl"}), format="raw")
    (ours,), (theirs,) = (Engine(b).answer([ask]) for b in (backend, backend_of("llama", "ranks")))
    for name in ("gain", "kl"):
        np.testing.assert_allclose(ours.values[name], theirs.values[name], atol=1e-4)
    np.testing.assert_allclose(ours.base_logprob, theirs.base_logprob, atol=1e-4)


def test_what_follows_a_prompt_is_asked_for_too(backend: VllmBackend) -> None:
    ask = Ask(ITEMS, (FINETUNED,), frozenset({"kl", "top1"}), position="last", format="raw")
    (ours,), (theirs,) = (Engine(b).answer([ask]) for b in (backend, backend_of("llama", "ranks")))
    np.testing.assert_allclose(ours.values["kl"], theirs.values["kl"], atol=1e-4)
    np.testing.assert_array_equal(ours.values["top1"], theirs.values["top1"])


def test_the_engine_is_made_for_the_adapter(backend: VllmBackend, fake: Seen) -> None:
    del backend
    made = next(m for m in fake.made if m["max_logprobs"] == 300)
    assert made["enable_lora"]
    assert made["max_lora_rank"] == 8
    assert made["max_model_len"] == 128
    assert not made["enable_prefix_caching"]


def test_log_probs_of_prompts_are_asked_for_one_at_a_time(backend: VllmBackend) -> None:
    """The fake dies of several at once, as vLLM was seen to."""
    Engine(backend).answer([Ask(ITEMS, rotations(seed=9, n_draws=3), frozenset({"gain"}), format="raw")])


def test_folders_are_few_written_again_when_needed_and_gone_in_the_end(fake: Seen) -> None:
    backend = open_backend(spec_of(adapter_of("llama", "qv")))
    assert isinstance(backend, VllmBackend)
    root = Path(backend._folders._root.name)
    ask = Ask(ITEMS[:1], rotations(seed=1, n_draws=_KEPT + 3), frozenset({"gain"}), format="raw")
    (first,) = Engine(backend).answer([ask])
    assert len(list(root.iterdir())) == _KEPT
    (again,) = Engine(backend).answer([ask])
    np.testing.assert_array_equal(first.values["gain"], again.values["gain"])
    numbers = {request.lora_int_id for _, _, request in fake.requests if request and root.name in request.lora_path}
    assert numbers == set(range(1, _KEPT + 4))
    config = json.loads((next(root.iterdir()) / "adapter_config.json").read_text())
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert config["lora_alpha"] == config["r"]
    shut = fake.shut
    backend.close()
    backend.close()
    assert not root.exists()
    assert fake.shut == shut + 1


def test_text_is_written_and_sampled_with_seeds_of_its_own(backend: VllmBackend) -> None:
    drawn = {"max_new_tokens": 6, "temperature": 1.0, "seed": 3, "format": "raw"}
    first = backend.write(["a b", "a b", "c"], FINETUNED, **drawn)
    assert [r.text for r in first] == [r.text for r in backend.write(["a b", "a b", "c"], FINETUNED, **drawn)]
    assert first[0].text != first[1].text
    greedy = backend.write(["the bell"], FINETUNED, max_new_tokens=5, format="raw")[0]
    with backend_of("llama", "ranks").as_finetuned() as view:
        assert greedy.text == view.generate("the bell", max_new_tokens=5)
    with backend.as_base() as view:
        assert isinstance(view.generate("the bell", max_new_tokens=2), str)


def test_a_probe_is_calibrated_on_its_nulls(backend: VllmBackend) -> None:
    pair = build_probe({"name": "kl", "kind": "delta_kl", "prompts": list(TEXTS)})
    (result,) = drive((pair,), RunContext(backend=backend, n_draws=19, format="raw")).results
    assert result.evidence["claims"]["applied"]["verdict"] == "pass"
    assert result.verdict is not Verdict.SKIP
    assert len(result.evidence["null_draws"]) == 19


@pytest.mark.parametrize("kind", ["dora", "saved-head", "ia3", "embedding"])
def test_an_adapter_that_vllm_would_misread_is_refused(kind: str, fake: Seen) -> None:
    del fake
    with pytest.raises(AdapterError):
        open_backend(spec_of(adapter_of("llama", kind)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": None}, "no adapter is named"),
        ({"quantization": "4bit"}, "quantization is 4bit, by bitsandbytes; name vLLM's own"),
        ({"options": {"speed": 1}}, "unknown option speed"),
        ({"options": {"engine": {"model": "x"}}}, "engine sets model"),
    ],
)
def test_what_it_does_not_do_is_refused(changes: dict[str, Any], message: str, fake: Seen) -> None:
    del fake
    with pytest.raises(BadInputError, match=message):
        open_backend(spec_of(adapter_of("llama", "qv"), **changes))


def test_without_vllm_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    with pytest.raises(MissingExtraError, match="needs vllm, which is not installed; pip install vllm"):
        open_backend(spec_of(adapter_of("llama", "qv")))


def test_a_base_that_it_cannot_load_is_one_clear_error(fake: Seen, tmp_path: Path) -> None:
    del fake
    base = save_base(tmp_path / "base", tokenizer=byte_tokenizer())
    (base / "model.safetensors").unlink()
    with pytest.raises(CannotRunError, match="vLLM cannot load the base: "):
        open_backend(spec_of(adapter_of("llama", "qv"), base=str(base)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: setattr(out, "prompt_logprobs", None), "gives log-probs at 0 of"),
        (lambda out: out.prompt_logprobs.pop(), "gives log-probs at"),
        (lambda out: out.prompt_logprobs.__setitem__(-1, {1: 0.5}), "in a form that is not known"),
        (lambda out: out.prompt_logprobs.__setitem__(-1, {1: Logprob(float("nan"), 1)}), "what is no log-prob"),
        (lambda out: out.prompt_logprobs.__setitem__(-1, {0: Logprob(-1.0, 1)}), "names no log-prob of token"),
    ],
    ids=["none", "short", "form", "nan", "other"],
)
def test_what_is_no_log_prob_is_one_clear_error(
    change: Any, message: str, backend: VllmBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = backend._llm.generate

    def spoiled(*args: Any, **options: Any) -> Any:
        found = ask(*args, **options)
        change(found[0])
        return found

    monkeypatch.setattr(backend._llm, "generate", spoiled)
    with backend.as_base() as view, pytest.raises(CannotRunError, match=message):
        view.rolling_logprob(TEXTS[0])
    assert BASE.lam == 0.0
