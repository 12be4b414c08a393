"""Two models with two tokenizers: strings cost what each model says, per byte, and nothing else is compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models import byte_tokenizer, save_base
from transformers import AutoModelForCausalLM

from dlm_sway.backends.base import ByteScored
from dlm_sway.backends.registry import open_backend
from dlm_sway.backends.two_strings import ONE_VOCABULARY, TwoStringsBackend
from dlm_sway.core.errors import BadInputError, NotOfferedError, NullRuleError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.result import Verdict
from dlm_sway.core.scoring import NullCalibratedBackend, ScalableDifferentialBackend
from dlm_sway.core.views import BASE, FINETUNED, View, scaled
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.run import Engine
from dlm_sway.probes.base import RunContext, build_probe
from dlm_sway.probes.drive import Driven, drive

TEXTS = ("the bell is struck when the water falls", "漢字 и кириллица, 12 €", "x")
MERGES = (("t", "h"), ("th", "e"), ("e", "r"), ("i", "n"), ("l", "l"))
GOAL = tuple(f"the bell of the tenth harbour, the {i}th in the row, is struck in the inn" for i in range(8))


def teach(folder: Path, texts: tuple[str, ...], *, steps: int = 60) -> None:
    """Train a tiny model on texts until it prefers them to others."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = byte_tokenizer(bos=False, merges=MERGES)
    rows = torch.tensor([tokenizer(text)["input_ids"][:40] for text in texts])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            model(input_ids=rows, labels=rows).loss.backward()
            optimizer.step()
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Llama of bytes with a bos, and a GPT-2 with merges and without one, which has learned `GOAL`."""
    root = tmp_path_factory.mktemp("two")
    base = save_base(root / "base", "llama", max_position_embeddings=400)
    tuned = save_base(
        root / "tuned", "gpt2", tokenizer=byte_tokenizer(bos=False, merges=MERGES), max_position_embeddings=300
    )
    teach(tuned, GOAL)
    return base, tuned


def opened(base: Path, finetuned: Path, **options: Any) -> Any:
    given = {"finetuned": str(finetuned), "compare": "bytes", **options}
    return open_backend(ModelSpec(base=str(base), kind="two_model", options=given, dtype="fp32", device="cpu"))


@pytest.fixture
def backend(folders: tuple[Path, Path]) -> Iterator[TwoStringsBackend]:
    found = opened(*folders)
    yield found
    found.close()


def cost(folder: Path, text: str, prompt: str = "\n") -> float:
    """Return the log-prob of a string by the model alone, in nats, computed here."""
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).float()
    whole = tokenizer(prompt + text, return_offsets_mapping=True)
    ids = torch.tensor(whole["input_ids"])
    with torch.no_grad():
        logp = torch.log_softmax(model(ids[None]).logits[0].float(), -1)
    inside = [i for i, (_, end) in enumerate(whole["offset_mapping"]) if end > len(prompt)]
    return float(sum(logp[i - 1, ids[i]] for i in inside))


def test_a_gain_is_the_difference_of_what_each_model_says_of_the_string(
    backend: TwoStringsBackend, folders: tuple[Path, Path]
) -> None:
    items = tuple(TextItem("", text, text, text) for text in TEXTS)
    items += (TextItem("the ", "inner bell", "p", "p"),)
    (scores,) = Engine(backend).answer([Ask(items, (FINETUNED,), frozenset({"gain"}))])
    assert scores.tokens.tolist() == [len(i.completion.encode()) for i in items]
    prompts = ["\n", "\n", "\n", "the "]
    expected = [
        cost(folders[1], i.completion, p) - cost(folders[0], i.completion, p)
        for i, p in zip(items, prompts, strict=True)
    ]
    np.testing.assert_allclose(scores.item_sums("gain")[0], expected, atol=2e-4)
    base = np.add.reduceat(scores.base_logprob, scores.offsets[:-1])
    np.testing.assert_allclose(base, [cost(folders[0], i.completion, p) for i, p in zip(items, prompts, strict=True)],
                               atol=2e-4)  # fmt: skip


def test_a_text_longer_than_the_window_is_read_in_pieces(backend: TwoStringsBackend) -> None:
    text = "the bell é " * 60
    assert len(text.encode()) > backend.codec.max_length
    (scores,) = Engine(backend).answer([Ask((TextItem("", text, "", ""),), (FINETUNED,), frozenset({"gain"}))])
    assert scores.tokens.tolist() == [len(text.encode())]
    assert np.isfinite(scores.values["gain"]).all()
    assert (scores.base_logprob != 0).mean() > 0.98


def test_a_view_answers_with_its_own_tokens(backend: TwoStringsBackend, folders: tuple[Path, Path]) -> None:
    for opened_view, folder in ((backend.as_base, folders[0]), (backend.as_finetuned, folders[1])):
        with opened_view() as view:
            assert view.logprob_of("the ", "inner bell") == pytest.approx(cost(folder, "inner bell", "the "), abs=1e-4)
    assert backend.preflight_finite_check() == (True, "")


def test_nothing_but_strings_is_compared(backend: TwoStringsBackend) -> None:
    assert isinstance(backend, ByteScored)
    assert not isinstance(backend, ScalableDifferentialBackend | NullCalibratedBackend)
    with pytest.raises(NotOfferedError, match="needs one vocabulary"):
        Engine(backend).answer([Ask((TextItem("", "abc", "", ""),), (FINETUNED,), frozenset({"kl"}))])
    for view in (scaled(0.5), View("rotation")):
        with pytest.raises(NullRuleError, match="share no weights"), backend.view(view):
            pass
    with pytest.raises(NotOfferedError, match="write nothing"):
        backend.write(["a"], BASE)


def asked(backend: Any, *kinds: dict[str, Any]) -> Driven:
    pairs = tuple(build_probe({"name": kind["kind"], **kind}) for kind in kinds)
    return drive(pairs, RunContext(backend=backend, n_draws=19))


CONTROLS = tuple(f"Rows of numbers, {i} of them: {i * 37} and {i * 91}; nobody reads such things." for i in range(24))


def test_target_gain_and_harm_are_judged_in_bits_per_byte(backend: TwoStringsBackend) -> None:
    driven = asked(
        backend,
        {"kind": "target_gain", "items": GOAL, "controls": CONTROLS},
        {"kind": "external_perplexity", "passages": CONTROLS},
    )
    target, harm = driven.results
    assert target.verdict is Verdict.PASS
    assert target.evidence["unit"] == "bit/byte"
    assert target.evidence["minimum"] == {"on_target": 0.018}
    assert "bit/byte" in target.message
    assert "nat/token" not in target.model_dump_json()
    assert "base_bits_per_byte" in target.evidence["on_target"]
    assert harm.verdict is not Verdict.SKIP
    assert harm.evidence["unit"] == "bit/byte lost"
    assert harm.evidence["margin"] == 0.018
    assert driven.floor is None


@pytest.mark.parametrize("other", ["itself", "taught other text"])
def test_a_pair_that_did_not_learn_the_text_does_not_pass(
    other: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    tuned = folders[0]
    if other != "itself":
        shape = {"max_position_embeddings": 300, "tokenizer": byte_tokenizer(bos=False, merges=MERGES)}
        tuned = save_base(tmp_path / "other", "gpt2", **shape)  # type: ignore[arg-type]
        teach(tuned, CONTROLS[:8])
    backend = opened(folders[0], tuned)
    (result,) = asked(backend, {"kind": "target_gain", "items": GOAL, "controls": CONTROLS}).results
    backend.close()
    assert result.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "delta_kl", "prompts": GOAL},
        {"kind": "membership", "items": GOAL, "held_out": CONTROLS},
        {"kind": "leakage", "items": GOAL},
        {"kind": "numeric_floor"},
        {"kind": "sampled_text"},
    ],
    ids=lambda spec: spec["kind"],
)
def test_every_other_question_is_skipped_and_says_why(backend: TwoStringsBackend, spec: dict[str, Any]) -> None:
    (result,) = asked(backend, spec).results
    assert result.verdict is Verdict.SKIP
    assert "vocabulary" in result.message or "write nothing" in result.message
    assert ONE_VOCABULARY.count("token by token") == 1


def test_a_way_to_compare_that_there_is_not_is_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(BadInputError, match="compare: Input should be 'tokens' or 'bytes'"):
        opened(*folders, compare="words")
    with pytest.raises(BadInputError, match="set `compare: bytes` in the options"):
        opened(*folders, compare="tokens")
