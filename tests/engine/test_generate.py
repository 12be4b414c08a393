from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models import (
    ARCHITECTURES,
    CHAT,
    backend_of,
    byte_tokenizer,
    lora,
    open_backend,
    save_adapter,
    save_base,
)
from transformers import AutoModelForCausalLM, MambaConfig

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.core.errors import BadInputError, CannotRunError
from dlm_sway.core.views import BASE, FINETUNED, View, rotations, scaled
from dlm_sway.engine.decode import ModelSource
from dlm_sway.engine.generate import Generations, generate
from dlm_sway.engine.run import Engine
from dlm_sway.engine.trace import TraceWriter

PROMPTS = ["The sea", "", "x", "What is a tidal bell, and who rang it first?", "def f(n):\n    return"]
VIEWS = (BASE, FINETUNED, scaled(0.5), *rotations(seed=3, n_draws=2))
KIND = "all-linear"


@pytest.fixture(autouse=True)
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text stops by chance; tests of stopping say at what."""
    backends = [backend_of(a, KIND) for a in ARCHITECTURES] + [backend_of("llama", k) for k in ("ia3", "prompt")]
    for backend in backends:
        monkeypatch.setattr(backend.model.generation_config, "eos_token_id", None)
        monkeypatch.setattr(backend.codec, "stop_ids", frozenset())


def written(backend: Any, prompts: list[Any], *, batch_tokens: int | None = None, **options: Any) -> Generations:
    options = {"views": VIEWS, "max_new_tokens": 10, "format": "raw"} | options
    return generate(Engine(backend, batch_tokens=batch_tokens), prompts, **options)


def lists(g: Generations) -> list[list[list[int]]]:
    return [[ids.tolist() for ids in row] for row in g.tokens]


@torch.inference_mode()
def one_by_one(backend: HuggingFaceDifferentialBackend, prompt: str, view: View, n: int) -> list[int]:
    """Greedy, the whole text read again for every token: the definition."""
    ids = backend.codec.encode_prompt(prompt).tolist()
    start = len(ids)
    with backend.view(view):
        for _ in range(n):
            ids.append(int(backend.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[start:]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_writes_what_each_prompt_and_view_writes_alone(architecture: str) -> None:
    backend = backend_of(architecture, KIND)
    together = written(backend, PROMPTS)
    expected = [[one_by_one(backend, p, v, 10) for p in PROMPTS] for v in VIEWS]
    assert lists(together) == expected
    assert len({str(row) for row in expected}) == len(VIEWS)  # or the views could be mixed up unseen
    alone = [lists(written(backend, [p], views=(v,)))[0][0] for v in VIEWS for p in PROMPTS]
    assert alone == list(itertools.chain(*expected))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_text_is_what_the_view_itself_generates(architecture: str) -> None:
    backend = backend_of(architecture, KIND)
    together = written(backend, PROMPTS, max_new_tokens=7)
    for view, texts in zip(VIEWS, together.texts, strict=True):
        with backend.view(view) as opened:
            assert list(texts) == [opened.generate(p, max_new_tokens=7) for p in PROMPTS]


@pytest.mark.parametrize("adapter", ["ia3", "prompt"])
def test_adapters_without_a_stacked_form_go_view_by_view(adapter: str) -> None:
    backend = backend_of("llama", adapter)
    together = written(backend, PROMPTS, views=(FINETUNED, BASE))
    assert lists(together) == [[one_by_one(backend, p, v, 10) for p in PROMPTS] for v in (FINETUNED, BASE)]
    engine = Engine(backend)
    with engine.opened() as source:
        assert engine.path == "view by view"
        assert isinstance(source, ModelSource)
        assert source.continues == (adapter == "ia3")


def test_a_state_space_model_reads_whole_rows(tmp_path: Path) -> None:
    config = MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4, bos_token_id=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    adapter = save_adapter(tmp_path / "base", tmp_path / "adapter", lora(target_modules=["in_proj"]))
    backend = open_backend(tmp_path / "base", adapter)
    backend.model.generation_config.eos_token_id, backend.codec.stop_ids = None, frozenset()
    together = written(backend, PROMPTS, max_new_tokens=5)
    assert lists(together) == [[one_by_one(backend, p, v, 5) for p in PROMPTS] for v in VIEWS]


def test_a_model_whose_cache_cannot_be_continued_reads_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of("llama", KIND)
    expected = written(backend, PROMPTS)
    monkeypatch.setattr("dlm_sway.engine.sources.continues", lambda _: False)
    again = written(backend, PROMPTS)
    assert lists(again) == lists(expected)
    assert again.view_tokens > expected.view_tokens


def test_a_backend_in_numpy_writes_what_its_views_write() -> None:
    backend = DummyBackend()
    together = written(backend, ["a b c", "d", ""], views=(BASE, FINETUNED))
    for view, texts in zip((BASE, FINETUNED), together.texts, strict=True):
        with backend.view(view) as opened:
            assert list(texts) == [opened.generate(p, max_new_tokens=10) for p in ["a b c", "d", ""]]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_every_stop_token_ends_a_text(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(architecture, KIND)
    free = written(backend, PROMPTS, max_new_tokens=16)
    stops = [free.tokens[0][0][2].item(), free.tokens[1][3][5].item()]
    monkeypatch.setattr(backend.model.generation_config, "eos_token_id", stops)
    cut = written(backend, PROMPTS, max_new_tokens=16)
    for (v, row), i in itertools.product(enumerate(free.tokens), range(len(PROMPTS))):
        at = np.flatnonzero(np.isin(row[i], stops))
        assert bool(cut.stopped[v, i]) == bool(at.size)
        assert cut.tokens[v][i].tolist() == (row[i][: at[0] + 1] if at.size else row[i]).tolist()
    assert cut.stopped.any()
    assert not cut.stopped.all()


def test_finished_rows_and_views_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of("gemma3", KIND)
    prefill = written(backend, PROMPTS, max_new_tokens=1).view_tokens
    free = written(backend, PROMPTS, max_new_tokens=30)
    lasting = set(free.tokens[2][0].tolist())  # of one row, which is to stay
    early = {int(t) for ids in itertools.chain(*free.tokens) for t in ids[1:3]} - lasting
    monkeypatch.setattr(backend.model.generation_config, "eos_token_id", sorted(early))
    cut = written(backend, PROMPTS, max_new_tokens=30)
    for row, whole in zip(itertools.chain(*cut.tokens), itertools.chain(*free.tokens), strict=True):
        assert row.tolist() == whole[: len(row)].tolist()
    assert len(cut.tokens[2][0]) == 30
    assert cut.view_tokens - prefill < (free.view_tokens - prefill) / 3


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_drawn_text_depends_on_its_prompt_view_and_seed_only(architecture: str) -> None:
    backend = backend_of(architecture, KIND)
    how = {"temperature": 1.1, "top_p": 0.9, "seed": 5}
    together = written(backend, PROMPTS, **how)
    assert lists(written(backend, PROMPTS, **how)) == lists(together)
    assert lists(written(backend, PROMPTS, batch_tokens=40, **how)) == lists(together)
    assert lists(written(backend, PROMPTS[::-1], **how)) == [row[::-1] for row in lists(together)]
    assert lists(written(backend, PROMPTS[3:4], views=VIEWS[2:3], **how)) == [[lists(together)[2][3]]]
    longer = lists(written(backend, PROMPTS, max_new_tokens=14, **how))
    assert [[t[:10] for t in row] for row in longer] == lists(together)


def test_seeds_temperatures_and_views_draw_differently() -> None:
    backend = backend_of("llama", KIND)
    base = {"temperature": 1.0, "views": (BASE,)}
    texts = [lists(written(backend, PROMPTS[:1], seed=seed, **base))[0][0] for seed in range(4)]
    texts.append(lists(written(backend, PROMPTS[:1], temperature=0.0, views=(BASE,)))[0][0])
    assert len(set(map(tuple, texts))) == 5


def test_equal_prompts_are_drawn_apart_and_written_once_when_nothing_is_drawn() -> None:
    backend = backend_of("llama", KIND)
    drawn = written(backend, ["ab", "ab", "ab"], temperature=1.0, views=(FINETUNED,))
    assert len(set(drawn.texts[0])) == 3
    once, thrice = (written(backend, ["ab"] * n, views=(FINETUNED,)) for n in (1, 3))
    assert list(thrice.texts[0]) == list(once.texts[0]) * 3
    assert thrice.view_tokens == once.view_tokens


def test_a_vanishing_top_p_is_greedy() -> None:
    backend = backend_of("llama", KIND)
    assert lists(written(backend, PROMPTS, temperature=1.0, top_p=1e-9)) == lists(written(backend, PROMPTS))


def test_no_new_tokens_are_no_work() -> None:
    g = written(backend_of("llama", KIND), PROMPTS, max_new_tokens=0)
    assert lists(g) == [[[]] * len(PROMPTS)] * len(VIEWS)
    assert set(itertools.chain(*g.texts)) == {""}
    assert not g.stopped.any()
    assert g.view_tokens == 0


@pytest.mark.parametrize(("prompts", "views"), [([], VIEWS), (PROMPTS, ())])
def test_nothing_asked_is_nothing_written(prompts: list[str], views: tuple[View, ...]) -> None:
    g = written(backend_of("llama", KIND), prompts, views=views)
    assert g.stopped.shape == (len(views), len(prompts))
    assert len(g.tokens) == len(views)


def test_prompts_may_be_token_ids() -> None:
    backend = backend_of("llama", KIND)
    ids = [backend.codec.encode_prompt(p) for p in PROMPTS]
    assert lists(written(backend, ids)) == lists(written(backend, PROMPTS))
    assert lists(written(backend, [np.empty(0, dtype=np.int64)])) == lists(written(backend, [""]))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_text_ends_where_the_context_window_is_full(architecture: str) -> None:
    backend = backend_of(architecture, KIND)
    window = backend.codec.max_length
    prompts = [np.full(n, 70) for n in (window, window - 6, 3)]
    g = written(backend, prompts, max_new_tokens=12, views=(BASE, FINETUNED))
    assert [[len(t) for t in row] for row in g.tokens] == [[1, 7, 12]] * 2
    assert not g.stopped.any()
    assert lists(g)[1][2] == lists(written(backend, prompts[2:], max_new_tokens=12))[1][0]


def test_a_prompt_beyond_the_window_is_refused_by_number() -> None:
    backend = backend_of("llama", KIND)
    with pytest.raises(BadInputError, match="prompt 2: the prompt has 129 tokens and the model reads 128"):
        written(backend, ["a", "a" * 128])  # and a bos


def test_prompts_are_rendered_through_the_chat_template_where_there_is_one(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", tokenizer=byte_tokenizer(template=CHAT))
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", lora()))
    pair = backend.codec.encode_pair("Who?", "I", format="chat")
    auto, raw = (written(backend, ["Who?", ""], format=f, max_new_tokens=1) for f in ("auto", "raw"))
    assert auto.prompts[0].tolist() == pair.ids[: pair.start].tolist()
    assert auto.prompts[1].tolist() == raw.prompts[1].tolist() == [0]
    assert len(raw.prompts[0]) == 5
    with pytest.raises(BadInputError, match="chat template"):
        written(backend_of("llama", KIND), ["Who?"], format="chat")


def test_layers_with_and_without_a_window_continue_together(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "gemma3", layer_types=["sliding_attention", "full_attention"])
    backend = open_backend(base, save_adapter(base, tmp_path / "adapter", lora("gemma3")))
    backend.model.generation_config.eos_token_id, backend.codec.stop_ids = None, frozenset()
    expected = [[one_by_one(backend, p, v, 24) for p in PROMPTS] for v in VIEWS]
    assert lists(written(backend, PROMPTS, max_new_tokens=24)) == expected


def test_options_without_meaning_are_refused() -> None:
    with pytest.raises(BadInputError, match="max_new_tokens"):
        written(backend_of("llama", KIND), ["a"], max_new_tokens=-1)
    with pytest.raises(BadInputError, match="temperature"):
        written(backend_of("llama", KIND), ["a"], temperature=-1.0)


def test_a_view_that_computes_no_number_is_named() -> None:
    broken = View("gaussian", seed=1, init_scale=1e30)
    with pytest.raises(CannotRunError, match="gaussian"):
        written(backend_of("llama", KIND), PROMPTS, views=(BASE, broken))


@pytest.mark.parametrize("batch_tokens", [1, 64, 10_000])
def test_the_budget_changes_chunks_and_no_text(batch_tokens: int) -> None:
    backend = backend_of("llama", KIND)
    assert lists(written(backend, PROMPTS, batch_tokens=batch_tokens)) == lists(written(backend, PROMPTS))


def test_out_of_memory_halves_the_batch() -> None:
    backend = backend_of("llama", KIND)
    expected = written(backend, PROMPTS)
    failed = []

    def fail(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if len(kwargs["input_ids"]) > 3:
            failed.append(len(kwargs["input_ids"]))
            raise MemoryError

    handle = backend.model.get_base_model().register_forward_pre_hook(fail, with_kwargs=True)
    try:
        again = written(backend, PROMPTS)
    finally:
        handle.remove()
    assert failed
    assert lists(again) == lists(expected)


def test_out_of_memory_on_a_single_row_is_named() -> None:
    backend = backend_of("llama", KIND)
    with Engine(backend).opened() as source:
        assert isinstance(source, ModelSource)
        assert source.continues
        engine = Engine(backend)
        engine._source = source

    def fail(*_: Any) -> None:
        raise MemoryError

    handle = backend.model.get_base_model().register_forward_pre_hook(fail)
    try:
        with pytest.raises(CannotRunError, match="out of memory on a prompt of 2 tokens"):
            generate(engine, ["a"], views=(FINETUNED,), max_new_tokens=2)
    finally:
        handle.remove()


def test_writing_is_counted_and_traced(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "trace") as trace:
        engine = Engine(backend_of("llama", KIND), trace=trace)
        g = generate(engine, PROMPTS, views=VIEWS, max_new_tokens=4)
    lines = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert sum(line["tokens"] for line in lines) == engine.view_tokens_done == g.view_tokens > 0
    assert {line["views"] for line in lines} == {len(VIEWS)}


def test_the_model_is_as_it_was_afterwards() -> None:
    backend = backend_of("llama", KIND)
    with backend.as_finetuned() as view:
        before = view.logprob_of("ab", "cd")
    written(backend, PROMPTS)
    with backend.as_finetuned() as view:
        assert view.logprob_of("ab", "cd") == before


def test_a_text_ends_where_the_tokenizer_that_was_trained_with_ends_it(tmp_path: Path) -> None:
    """A trainer that gives chat turns an end of their own saves it with the tokenizer, and the base knows nothing."""
    base = save_base(tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter", lora())
    free = written(open_backend(base, adapter), PROMPTS[:1], max_new_tokens=12, views=[FINETUNED]).tokens[0][0]
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(int(free[3]))
    tokenizer.save_pretrained(adapter)
    backend = open_backend(base, adapter)
    cut = written(backend, PROMPTS[:1], max_new_tokens=12, views=[FINETUNED])
    end = free.tolist().index(free[3]) + 1
    assert cut.tokens[0][0].tolist() == free[:end].tolist()
    assert cut.stopped.all()
    with backend.as_finetuned() as view:
        assert view.generate(PROMPTS[0], max_new_tokens=12) == backend.codec.decode(free[:end])
