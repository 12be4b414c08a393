"""MLX computes what PyTorch does, view by view, on one copy of the weights; what it has no form for is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.models import (
    adapter_of,
    backend_of,
    base_of,
    byte_tokenizer,
    lora,
    open_backend,
    save_adapter,
    save_base,
)

from dlm_sway.adapters.convert import convert
from dlm_sway.adapters.tensors import TensorFile
from dlm_sway.backends import mlx as mlx_module
from dlm_sway.backends.array_dist import log_softmax
from dlm_sway.backends.registry import open_backend as open_by_spec
from dlm_sway.core.errors import AdapterError, BadInputError, CannotRunError, ViewError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import BASE, FINETUNED, View, scaled, top_ranks
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.generate import generate
from dlm_sway.engine.run import Engine
from dlm_sway.testing.backend_conformance import CHECKS, Check, Subject

pytest.importorskip("mlx_lm", reason="the mlx backend is tested where mlx and mlx-lm are installed")
tree_flatten = pytest.importorskip("mlx.utils").tree_flatten

TEXT = "the bell is struck when the water falls"
VIEWS = (
    BASE,
    FINETUNED,
    scaled(0.5),
    scaled(1.25),
    View("rotation", seed=5, draw=2),
    View("rotation", 0.4, 5, 2, rank_scale=0.5),
    View("sign_flip", seed=3),
    View("gaussian", seed=3, init_scale=0.1),
)


def opened(base: Path, adapter: Path, **spec: Any) -> Any:
    given = {"device": "cpu", **spec}
    return open_by_spec(ModelSpec(base=str(base), kind="mlx", adapter=adapter, **given))


@cache
def mlx_of(arch: str, kind: str) -> Any:
    """Return a backend, opened once a process: leave it as it was."""
    return opened(base_of(arch), adapter_of(arch, kind))


def logprobs(backend: Any, view: View, text: str = TEXT) -> np.ndarray:
    with backend.view(view) as found:
        return found.rolling_logprob(text).logprobs


@pytest.fixture(scope="module", params=["all-linear", "dora"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    found = Subject(lambda: opened(base_of("llama"), adapter_of("llama", request.param)))
    yield found
    found.close()


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_it_keeps_the_contract(check: Check, subject: Subject) -> None:
    check.verify(subject)


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("kind", ["qv", "all-linear", "rslora", "ranks", "embedding", "lm_head", "dora"])
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_every_view_is_that_of_pytorch(arch: str, kind: str, view: View) -> None:
    expected = logprobs(backend_of(arch, kind), view)
    np.testing.assert_allclose(logprobs(mlx_of(arch, kind), view), expected, atol=1e-3)


@pytest.mark.parametrize("view", [BASE, FINETUNED, View("rotation", seed=1)], ids=str)
def test_a_head_that_is_the_embedding_takes_terms_of_its_own(view: View, tied: tuple[Path, Path]) -> None:
    expected = logprobs(open_backend(*tied), view)
    np.testing.assert_allclose(logprobs(opened(*tied), view), expected, atol=1e-3)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base whose head is its embedding, and an adapter on both uses of it."""
    root = tmp_path_factory.mktemp("tied")
    base = save_base(root / "base", tie_word_embeddings=True)
    config = lora(target_modules=["q_proj", "lm_head", "embed_tokens"])
    return base, save_adapter(base, root / "adapter", config)


def test_gpt2_is_found_under_the_names_of_mlx(tmp_path: Path) -> None:
    """mlx_lm reads GPT-2 as it was published, without the prefix that transformers writes."""
    base = save_base(tmp_path / "base", "gpt2", tie_word_embeddings=True)
    path = base / "model.safetensors"
    published = {name.removeprefix("transformer."): x for name, x in load_file(path).items()}
    save_file(published, path, metadata={"format": "pt"})
    adapter = save_adapter(base, tmp_path / "adapter", lora("gpt2", target_modules=["c_attn", "c_fc"]))
    for view in (BASE, FINETUNED, View("rotation", seed=1)):
        expected = logprobs(open_backend(base, adapter), view)
        np.testing.assert_allclose(logprobs(opened(base, adapter), view), expected, atol=1e-3)


def test_gemma_reads_windows_and_two_rotary_bases(tmp_path: Path) -> None:
    """mlx_lm rounds the scale of Gemma's embeddings to bf16, so it is off by what that rounding makes."""
    base = save_base(tmp_path / "base", "gemma3", num_hidden_layers=6)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"final_logit_softcapping": None}))
    adapter = save_adapter(base, tmp_path / "adapter", lora("gemma3", target_modules="all-linear"))
    for view in (BASE, FINETUNED, scaled(0.5)):
        expected = logprobs(open_backend(base, adapter), view)
        np.testing.assert_allclose(logprobs(opened(base, adapter), view), expected, atol=2e-3)


def test_texts_are_as_long_as_windows_that_mlx_lm_does_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond its window a Mistral was another model by 1.5 nat per token, and nothing said so."""
    base = save_base(tmp_path / "base", "mistral")
    adapter = save_adapter(base, tmp_path / "adapter", lora(target_modules=["q_proj"]))
    reference, here = open_backend(base, adapter), opened(base, adapter)
    assert (reference.codec.max_length, here.codec.max_length) == (128, 16)
    assert "of 128 tokens, texts are read up to 16" in caplog.text
    text = TEXT[:15]
    assert 14 <= len(here.codec.encode(text)) <= 16
    for view in (BASE, FINETUNED):
        np.testing.assert_allclose(logprobs(here, view, text), logprobs(reference, view, text), atol=1e-3)


def test_the_rotary_base_that_transformers_saves_is_read(tmp_path: Path) -> None:
    """mlx_lm would take its own default, 10,000, and say nothing."""
    rope = {"rope_theta": 100.0, "rope_type": "default"}
    base = save_base(tmp_path / "base", rope_parameters=rope)
    adapter = save_adapter(base, tmp_path / "adapter", lora())
    expected = logprobs(open_backend(base, adapter), BASE)
    assert np.abs(expected - logprobs(mlx_of("llama", "qv"), BASE)).max() > 0.01
    np.testing.assert_allclose(logprobs(opened(base, adapter), BASE), expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["all-linear", "ranks", "embedding", "lm_head", "dora"])
def test_all_views_are_one_pass_and_agree_with_the_views_one_by_one(kind: str) -> None:
    backend = mlx_of("llama", kind)
    engine = Engine(backend)
    texts = (TEXT, "water, and the line below", "a b c d")
    views = VIEWS[1:]
    (scores,) = engine.answer(
        [Ask(tuple(TextItem("", t, t, t) for t in texts), views, frozenset({"gain"}), format="raw")]
    )
    assert engine.path == "stacked"
    alone = np.stack([np.concatenate([logprobs(backend, view, t) for t in texts]) for view in views])
    np.testing.assert_allclose(scores.base_logprob + scores.values["gain"], alone, atol=1e-3)


def test_logits_in_blocks_are_the_logits_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = mlx_of("llama", "qv")
    ids = np.arange(40, dtype=np.int64).reshape(2, 20) + 2
    keep = np.array([(i, p) for i in range(2) for p in range(20)])
    with backend.exclusive():
        ((_, whole),) = backend.logit_blocks(ids, keep, [FINETUNED])
        monkeypatch.setattr(mlx_module, "_BLOCK_BYTES", 1)
        blocks = list(backend.logit_blocks(ids, keep, [FINETUNED]))
    assert [b for b, _ in blocks] == [slice(0, 16), slice(16, 32), slice(32, 48)]
    np.testing.assert_array_equal(np.concatenate([z for _, z in blocks], axis=1), whole)


def test_a_model_that_cannot_be_halved_gives_whole_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    from dlm_sway.backends.mlx_layers import Net

    expected = logprobs(mlx_of("llama", "lm_head"), FINETUNED)
    monkeypatch.setattr(Net, "_halves_agree", lambda _: False)
    backend = opened(base_of("llama"), adapter_of("llama", "lm_head"))
    np.testing.assert_allclose(logprobs(backend, FINETUNED), expected, atol=1e-5)
    item = TextItem("", TEXT, "0", "0")
    (scores,) = Engine(backend).answer([Ask((item,), (FINETUNED,), frozenset({"gain"}), format="raw")])
    np.testing.assert_allclose(scores.base_logprob + scores.values["gain"][0], expected, atol=1e-5)


@pytest.mark.parametrize("view", VIEWS[4:], ids=str)
def test_a_null_is_the_same_bytes_as_under_pytorch(view: View) -> None:
    theirs = {site.name: site.draw(view) for site in backend_of("llama", "ranks").sites.low_rank}
    ours = {site.name: mlx_of("llama", "ranks").sites.drawn(site, view) for site in mlx_of("llama", "ranks").sites.all}
    assert theirs.keys() == ours.keys()
    for name, (a, b) in theirs.items():
        np.testing.assert_array_equal(ours[name][0], a.numpy())
        np.testing.assert_array_equal(ours[name][1], b.numpy())


def test_the_weights_are_one_copy_that_no_view_touches() -> None:
    backend = opened(base_of("llama"), adapter_of("llama", "dora"))
    before = {name: (id(x), np.array(x)) for name, x in tree_flatten(backend._net.model.parameters())}
    file = TensorFile(base_of("llama") / "model.safetensors")
    assert sum(x.nbytes for _, x in before.values()) == sum(info.n_bytes for info in file.infos.values())
    for view in VIEWS:
        logprobs(backend, view)
    for name, x in tree_flatten(backend._net.model.parameters()):
        assert id(x) == before[name][0]
        np.testing.assert_array_equal(np.array(x), before[name][1])


def test_an_error_in_a_pass_leaves_the_base_in_place() -> None:
    backend = mlx_of("llama", "qv")
    with backend.exclusive():
        blocks = backend.logit_blocks(np.full((1, 4), 5), np.array([[0, 3]]), [FINETUNED])
        next(blocks)
        with pytest.raises(KeyError):
            blocks.throw(KeyError("x"))
    assert all(site.slot.terms is None for site in backend.sites.all)


def test_bulk_work_needs_the_model_to_be_held() -> None:
    backend = mlx_of("llama", "qv")
    with pytest.raises(ViewError, match="not held for bulk work; enter `exclusive"):
        next(backend.logit_blocks(np.full((1, 4), 5), np.array([[0, 3]]), []))


@pytest.mark.parametrize("kind", ["all-linear", "embedding", "lm_head"])
def test_gradients_are_those_of_pytorch(kind: str) -> None:
    found = []
    for backend in (backend_of("llama", kind), mlx_of("llama", kind)):
        ids = backend.codec.encode(TEXT)
        with backend.exclusive():
            found.append(backend.factor_gradients(ids[:-1], 4, ids[5:]))
        assert backend.gradient_refusal() is None
    assert found[0].keys() == found[1].keys()
    for name, g in found[0].items():
        np.testing.assert_allclose(found[1][name], g, atol=1e-3 * float(np.abs(g).max()), err_msg=name)


def test_dora_has_no_gradient_and_no_cut_and_says_so() -> None:
    backend = mlx_of("llama", "dora")
    assert "plain LoRA" in backend.gradient_refusal()
    assert "DoRA trained a magnitude" in backend.cut_refusal()
    assert set(backend.without_gradient()) == set(backend.spectra())
    with pytest.raises(CannotRunError, match="cannot be cut"), backend.view(top_ranks([0.5])[0]):
        pass


def test_a_cut_and_the_spectra_are_those_of_pytorch() -> None:
    ours, theirs = mlx_of("llama", "ranks"), backend_of("llama", "ranks")
    (view,) = top_ranks([0.5])
    np.testing.assert_allclose(logprobs(ours, view), logprobs(theirs, view), atol=1e-3)
    assert ours.cut_refusal() is None
    for name, ranked in theirs.spectra().items():
        np.testing.assert_allclose(ours.spectra()[name].spectrum.singular_values, ranked.spectrum.singular_values)


def test_generation_is_greedy_like_pytorch_and_ends_at_the_stop_token() -> None:
    texts = []
    for backend in (backend_of("llama", "qv"), mlx_of("llama", "qv")):
        with backend.as_finetuned() as view:
            texts.append(view.generate(TEXT, max_new_tokens=12))
    assert texts[0] == texts[1]
    assert mlx_of("llama", "qv").codec.stop_ids == {1}


def test_the_engine_writes_what_it_writes_with_pytorch() -> None:
    made = [generate(Engine(b), [TEXT], views=(BASE, FINETUNED), max_new_tokens=6) for b in both("qv")]
    assert made[0].texts == made[1].texts


def both(kind: str) -> tuple[Any, Any]:
    return backend_of("llama", kind), mlx_of("llama", kind)


def test_an_adapter_of_mlx_lm_is_opened_as_it_is(tmp_path: Path) -> None:
    adapter = adapter_of("llama", "ranks")
    convert(adapter, to="mlx", out=tmp_path / "mlx", base=str(base_of("llama")))
    ours = logprobs(opened(base_of("llama"), tmp_path / "mlx"), FINETUNED)
    np.testing.assert_allclose(ours, logprobs(mlx_of("llama", "ranks"), FINETUNED), atol=1e-4)


def test_mlx_lm_loads_what_is_converted(tmp_path: Path) -> None:
    import mlx.core as mx
    from mlx_lm.utils import load_adapters, load_model

    base = base_of("llama")
    convert(adapter_of("llama", "ranks"), to="mlx", out=tmp_path / "mlx", base=str(base))
    model = load_adapters(load_model(base)[0], str(tmp_path / "mlx"))
    model.eval()
    ids = mlx_of("llama", "ranks").codec.encode(TEXT)
    logits = np.array(model(mx.array(ids[None].astype(np.int32)))[0])  # [N, K]
    ours = log_softmax(logits[:-1])[np.arange(len(ids) - 1), ids[1:]]
    np.testing.assert_allclose(ours, logprobs(mlx_of("llama", "ranks"), FINETUNED), atol=1e-3)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_sixteen_bits_are_what_they_are_called(dtype: str) -> None:
    backend = opened(base_of("llama"), adapter_of("llama", "qv"), dtype=dtype)
    assert backend.dtype == {"bf16": "bfloat16", "fp16": "float16"}[dtype]
    for view in (BASE, FINETUNED):
        np.testing.assert_allclose(logprobs(backend, view), logprobs(mlx_of("llama", "qv"), view), atol=0.3)


def quantised(out: Path) -> Path:
    """Save the tiny Llama as mlx_lm quantises it."""
    from mlx_lm.utils import load_model, quantize_model, save

    model, config = load_model(base_of("llama"))
    model, config = quantize_model(model, config, group_size=32, bits=8)
    tokenizer = byte_tokenizer()
    save(out, base_of("llama"), model, tokenizer, config)
    return out


def test_a_quantised_base_takes_an_adapter(tmp_path: Path) -> None:
    backend = opened(quantised(tmp_path / "q8"), adapter_of("llama", "all-linear"))
    full = mlx_of("llama", "all-linear")
    for view in (BASE, FINETUNED, View("rotation", seed=1)):
        np.testing.assert_allclose(logprobs(backend, view), logprobs(full, view), atol=0.3)
    effects = [logprobs(b, FINETUNED) - logprobs(b, BASE) for b in (backend, full)]
    assert np.corrcoef(*effects)[0, 1] > 0.99
    with pytest.raises(AdapterError, match="needs the rows of an unquantised linear module"):
        opened(tmp_path / "q8", adapter_of("llama", "dora"))


def test_results_are_kept_under_the_files_and_what_computes(tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(adapter_of("llama", "qv"), tmp_path / "adapter"))
    first, again = (opened(base_of("llama"), adapter).fingerprint() for _ in range(2))
    other = open_backend(base_of("llama"), adapter).fingerprint()
    bf16 = opened(base_of("llama"), adapter, dtype="bf16").fingerprint()
    assert first == again
    assert len({first, other, bf16} - {None}) == 3


def test_what_peft_saves_along_is_no_obstacle_unless_it_was_trained(tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(adapter_of("llama", "lm_head"), tmp_path / "adapter"))
    own = load_file(base_of("llama") / "model.safetensors")["model.embed_tokens.weight"]
    path, name = adapter / "adapter_model.safetensors", "base_model.model.model.embed_tokens.weight"
    save_file(load_file(path) | {name: own}, path)
    expected = logprobs(mlx_of("llama", "lm_head"), FINETUNED)
    np.testing.assert_array_equal(logprobs(opened(base_of("llama"), adapter), FINETUNED), expected)
    save_file(load_file(path) | {name: own + 1}, path)
    with pytest.raises(AdapterError, match=r"embed_tokens.weight was trained whole"):
        opened(base_of("llama"), adapter)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("saved-norm", "trained whole"),
        ("saved-head", "trained whole"),
        ("lora-bias", "no factors of a linear module: .*lora_B.bias"),
        ("ia3", "a IA3 adapter has no low-rank factors"),
        ("pissa", "it began as pissa"),
        ("alora", "with alora_invocation_tokens a module computes something else"),
        ("dora-embedding", "DoRA magnitude, which needs the rows"),
    ],
)
def test_an_adapter_without_a_form_here_is_refused_with_what_to_do(kind: str, message: str) -> None:
    with pytest.raises(AdapterError, match=f"{message}.*(use a backend of kind hf|use kind hf)"):
        opened(base_of("llama"), adapter_of("llama", kind))


def test_layers_that_the_base_lacks_are_refused_and_not_sent_to_hf_which_refuses_them_too(tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(adapter_of("llama", "qv"), tmp_path / "adapter"))
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"layer_replication": [[0, 2], [1, 2]]}))
    with pytest.raises(AdapterError, match="layer_replication builds layers") as refusal:
        opened(base_of("llama"), adapter)
    assert "kind hf" not in str(refusal.value)


@pytest.mark.parametrize("arch", ["gemma3", "gpt2"])
def test_a_base_that_mlx_lm_would_compute_otherwise_is_refused(arch: str, tmp_path: Path) -> None:
    message = {"gemma3": "does not read final_logit_softcapping = 5.0", "gpt2": "lm_head|head of its own"}[arch]
    changes = {"gemma3": {"num_hidden_layers": 6}}.get(arch, {})
    base = save_base(tmp_path / "base", arch, **changes)
    adapter = save_adapter(base, tmp_path / "adapter", lora(arch))
    with pytest.raises((CannotRunError, BadInputError), match=message):
        opened(base, adapter)


def test_an_adapter_of_another_base_is_refused_by_the_module(tmp_path: Path) -> None:
    base = save_base(tmp_path / "wide", hidden_size=64)
    with pytest.raises(AdapterError, match=r"q_proj maps 64 to 64, and its factors 32 to 32.*name the base"):
        opened(base, adapter_of("llama", "qv"))
    deep = save_adapter(save_base(tmp_path / "deep", num_hidden_layers=3), tmp_path / "adapter", lora())
    with pytest.raises(AdapterError, match=r"layers.2.self_attn.q_proj is no module of this base"):
        opened(base_of("llama"), deep)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": None}, "no adapter is named"),
        ({"options": {"speed": 3}}, "unknown option speed"),
        ({"quantization": "4bit"}, "does not quantise for mlx; .*mlx_lm.convert -q"),
        ({"device": "cuda:7"}, "device 'cuda:7' is not available to mlx here"),
        ({"base": "/nowhere/at/all"}, "no such base model"),
    ],
)
def test_what_it_cannot_do_is_said(changes: dict[str, Any], message: str) -> None:
    given = {"base": str(base_of("llama")), "kind": "mlx", "adapter": adapter_of("llama", "qv"), "device": "cpu"}
    with pytest.raises(BadInputError, match=message):
        open_by_spec(ModelSpec(**given | changes))


def test_loading_keeps_the_limit_of_open_files() -> None:
    program = (
        "import resource; before = resource.getrlimit(resource.RLIMIT_NOFILE); "
        "from dlm_sway.backends.mlx_load import load_library; load_library(); "
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == before"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_few_views_ride_together_where_factors_are_large() -> None:
    sites = mlx_of("llama", "all-linear").sites
    assert sites.views_per_pass() > 100
    small = type(sites)(sites.all, max_bytes=1)
    assert small.views_per_pass() == 1
    first, again = (small.drawn(small.all[0], View("rotation", seed=1)) for _ in range(2))
    np.testing.assert_array_equal(first[1], again[1])
    assert first[1] is not again[1]
