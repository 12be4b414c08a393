"""Two whole checkpoints: what a merged adapter is, they are; and what cannot be compared is refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models import CHAT, adapter_of, backend_of, base_of, byte_tokenizer, open_backend, save_base
from transformers import MixtralConfig, MixtralForCausalLM

from dlm_sway.backends.registry import open_backend as open_by_spec
from dlm_sway.backends.two_model import TwoModelBackend
from dlm_sway.core.errors import BadInputError, NullRuleError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import BASE, FINETUNED, View, scaled
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.run import Engine
from dlm_sway.probes.base import RunContext, build_probe
from dlm_sway.probes.drive import drive
from dlm_sway.testing.backend_conformance import CHECKS, Check, Subject

TEXT = "the bell is struck when the water falls"
VIEWS = (FINETUNED, scaled(0.3), scaled(1.25), View("rotation", seed=5), View("rotation", 0.4, 5, 2))


def merge(arch: str, kind: str, out: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Merge an adapter into its base and save the whole model."""
    opened = open_backend(base_of(arch), adapter_of(arch, kind))
    opened.model.to(dtype).merge_and_unload().save_pretrained(out)
    opened.codec.tokenizer.save_pretrained(out)
    opened.close()
    return out


def opened(base: Path, finetuned: Path, **spec: Any) -> TwoModelBackend:
    given = {"dtype": "fp32", "device": "cpu", **spec}
    return open_by_spec(ModelSpec(base=str(base), kind="two_model", options={"finetuned": str(finetuned)}, **given))  # type: ignore[return-value]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An architecture, and its adapter on all linear layers merged in fp32."""
    return request.param, merge(request.param, "all-linear", tmp_path_factory.mktemp("merged") / "model")


@pytest.fixture(scope="module")
def subject(pair: tuple[str, Path]) -> Iterator[Subject]:
    found = Subject(lambda: opened(base_of(pair[0]), pair[1]))
    yield found
    found.close()


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_it_keeps_the_contract(check: Check, subject: Subject) -> None:
    check.verify(subject)


def logprobs(backend: Any, view: View) -> np.ndarray:
    with backend.view(view) as found:
        return found.rolling_logprob(TEXT).logprobs


@pytest.mark.parametrize("view", [BASE, FINETUNED, scaled(0.3), scaled(1.25)], ids=str)
def test_a_merged_adapter_is_the_adapter(pair: tuple[str, Path], subject: Subject, view: View) -> None:
    expected = logprobs(backend_of(pair[0], "all-linear"), view)
    np.testing.assert_allclose(logprobs(subject.backend, view), expected, atol=1e-3)


def test_all_views_are_one_pass_and_agree_with_the_views_one_by_one(subject: Subject) -> None:
    backend = subject.backend
    engine = Engine(backend)
    (scores,) = engine.answer([Ask((TextItem("", TEXT, "0", "0"),), VIEWS, frozenset({"gain"}), format="raw")])
    assert engine.path == "stacked"
    alone = np.stack([logprobs(backend, view) for view in VIEWS])
    np.testing.assert_allclose(scores.base_logprob + scores.values["gain"], alone, atol=1e-3)


def test_only_tensors_that_differ_are_kept_and_nulls_turn_them_all(subject: Subject, pair: tuple[str, Path]) -> None:
    backend = subject.backend
    names = {site.name for site in backend.sites.dense}
    adapted = {site.name for site in backend_of(pair[0], "all-linear").sites.low_rank}
    assert names == {f"{name}.weight" for name in adapted}
    for site in backend.sites.dense:
        ((live, null),) = site.tensors(View("rotation", seed=3))
        assert live is site.live
        size = torch.linalg.norm(site.live.detach() - site.original)
        assert float(torch.linalg.norm(null - site.original)) == pytest.approx(float(size), rel=1e-4)


def test_a_copy_of_the_base_has_no_null_and_says_so(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(base_of("llama"), tmp_path / "copy"))
    backend = opened(base_of("llama"), copy)
    assert backend.null_refusal() == "the fine-tune has the base's very weights"
    np.testing.assert_array_equal(logprobs(backend, BASE), logprobs(backend, FINETUNED))


def save_mixture(out: Path, *, moved: str = "") -> Path:
    """Save a mixture of experts, whose weights lie in one bare tensor a layer; `moved` ones differ from the base's."""
    config = MixtralConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=3,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = MixtralForCausalLM(config)
        for name, p in model.named_parameters():
            p.add_(0.2 * torch.randn_like(p))
            if moved and moved in name:
                p.add_(0.5 * p.std() * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(out)
    byte_tokenizer().save_pretrained(out)
    return out


def test_experts_in_one_tensor_have_no_null_and_are_named(tmp_path: Path) -> None:
    """Their first axis counts experts: to turn it would move whole experts, and leave some as they were trained."""
    base, name = save_mixture(tmp_path / "base"), "model.layers.0.mlp.experts.gate_up_proj"
    backend = opened(base, save_mixture(tmp_path / "tuned", moved="gate_up_proj"))
    assert [site.name for site in backend.sites.dense] == [name]
    assert backend.null_refusal() == f"no rotation rule for {name}"
    with pytest.raises(NullRuleError, match="gate_up_proj"), backend.view(View("rotation", seed=1)):
        pass
    plain = opened(base, base)
    np.testing.assert_array_equal(logprobs(backend, BASE), logprobs(plain, BASE))
    engine = Engine(backend)
    (scores,) = engine.answer([Ask((TextItem("", TEXT, "0", "0"),), VIEWS[:3], frozenset({"gain"}), format="raw")])
    alone = np.stack([logprobs(backend, view) for view in VIEWS[:3]])
    np.testing.assert_allclose(scores.base_logprob + scores.values["gain"], alone, atol=1e-3)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_a_router_is_turned_like_any_linear_map(tmp_path: Path) -> None:
    backend = opened(save_mixture(tmp_path / "base"), save_mixture(tmp_path / "tuned", moved="gate.weight"))
    assert [site.name for site in backend.sites.dense] == ["model.layers.0.mlp.gate.weight"]
    assert backend.null_refusal() is None


def test_weights_stay_mapped_from_their_files(pair: tuple[str, Path], subject: Subject) -> None:
    """The base's tensors lie in the file's own mapping, one behind another, and not in memory of their own."""
    pointers = sorted((s.original.data_ptr(), s.original.nbytes) for s in subject.backend.sites.dense)
    size = (base_of(pair[0]) / "model.safetensors").stat().st_size
    assert pointers[-1][0] + pointers[-1][1] - pointers[0][0] <= size


def test_another_tokenizer_is_refused_with_the_first_difference(tmp_path: Path) -> None:
    other = save_base(tmp_path / "other", tokenizer=byte_tokenizer(merges=(("t", "h"),)))
    with pytest.raises(BadInputError, match=r"differ in 1 tokens, such as 'th'.*same ones.*bits per byte"):
        opened(base_of("llama"), other)
    silent = save_base(tmp_path / "silent", tokenizer=byte_tokenizer(bos=False))
    with pytest.raises(BadInputError, match=r"cut 'The river.*' apart from token 0 on: \[0,"):
        opened(base_of("llama"), silent)


def test_another_template_is_no_other_tokenizer(tmp_path: Path) -> None:
    tuned = save_base(tmp_path / "tuned", tokenizer=byte_tokenizer(template=CHAT))
    assert opened(base_of("llama"), tuned).codec.has_chat_template


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 310}, r"2 parameters do not correspond: lm_head.weight is \[300, 32\] in the base and \[310"),
        ({"tie_word_embeddings": True}, r"lm_head.weight is \[300, 32\] in the base and absent"),
        ({"rms_norm_eps": 0.1}, "the configs differ: rms_norm_eps 1e-06 and 0.1"),
    ],
)
def test_another_architecture_is_refused_by_what_differs(changes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=message):
        opened(base_of("llama"), save_base(tmp_path / "other", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {}}, "finetuned is missing; set finetuned to the directory or Hub id of the fine-tune"),
        ({"options": {"finetuned": "x", "speed": 3}}, "unknown option speed"),
        ({"adapter": "runs/a", "options": {"finetuned": "x"}}, "two whole models take no adapter"),
        ({"quantization": "4bit", "options": {"finetuned": "x"}}, "not quantised on load"),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_is_loaded(changes: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        open_by_spec(ModelSpec(base="nowhere", kind="two_model", **changes))


def test_results_are_kept_under_the_files_of_both(tmp_path: Path) -> None:
    base = base_of("llama")
    tuned = Path(shutil.copytree(base, tmp_path / "tuned"))
    weights = load_file(tuned / "model.safetensors")
    marks = []
    for step in (0.1, 0.2):
        weights["model.norm.weight"] = weights["model.norm.weight"] + step
        save_file(weights, tuned / "model.safetensors", metadata={"format": "pt"})
        marks.append(opened(base, tuned).fingerprint())
    config = json.loads((tuned / "config.json").read_text())
    (tuned / "config.json").write_text(json.dumps(config | {"use_cache": False, "unsloth_version": "2026.1"}))
    marks.append(opened(base, tuned).fingerprint())
    assert len({m for m in marks if m}) == 3


@pytest.mark.parametrize(
    ("tied", "dtype", "refused"), [(True, "bf16", True), (True, "fp32", False), (False, "bf16", False)]
)
def test_what_16_bits_would_round_away_has_no_null(tied: bool, dtype: str, refused: bool, tmp_path: Path) -> None:
    """A tied embedding has no stacked form, and put into the model a delta below a step of bf16 would be rounded."""
    base = save_base(tmp_path / "base", tie_word_embeddings=tied)
    weights = load_file(base / "model.safetensors")
    moved = {name: weight + 3e-4 * torch.randn_like(weight) for name, weight in weights.items()}
    tuned = Path(shutil.copytree(base, tmp_path / "tuned"))
    save_file(moved, tuned / "model.safetensors", metadata={"format": "pt"})
    backend = opened(base, tuned, dtype=dtype)
    ctx = RunContext(backend=backend, n_draws=19, format="raw")
    spec = {"kind": "delta_kl", "name": "drift", "prompts": [TEXT, "a b c d", "water, and"]}
    driven = drive([build_probe(spec)], ctx)
    said = driven.results[0].model_dump_json()
    assert driven.engine.path == ("view by view" if tied else "stacked")
    assert ("use --dtype fp32" in said) is refused
    assert ("bfloat16 would round the nulls and scales of model.embed_tokens.weight" in said) is refused
    backend.close()
