"""The callback in a real Trainer on a tiny model."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from tests.models import base_of, byte_tokenizer, lora, open_backend, save_adapter
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from dlm_sway.backends.encoding import TextEncoder
from dlm_sway.core.errors import BadInputError
from dlm_sway.integrations import live
from dlm_sway.integrations.trainer_callback import sway_callback

TAUGHT = [f"the bell rings at {hour} and the tide turns" for hour in ("one", "two", "three", "four", "five", "six")]
OTHER = [
    "a cat sat on a mat",
    "two plus two is four",
    "rain fell on the roof",
    "she wrote a letter",
    "birds sing early",
]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' and PEFT's own remarks on how a tiny model is trained
        yield


def _model(**options: Any) -> Any:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(base_of("llama"), dtype=torch.float32)
    return peft.get_peft_model(base, lora(lora_dropout=0.2, **options))


def _train(callback: Any, out: Path, *, steps: int = 6, model: Any = None, rate: float = 5e-2) -> Trainer:
    tokenizer = byte_tokenizer()
    rows = [{"input_ids": ids, "labels": ids} for ids in (tokenizer(text)["input_ids"][:32] for text in TAUGHT)]
    trainer = Trainer(
        model=model or _model(),
        args=TrainingArguments(
            output_dir=str(out),
            max_steps=steps,
            save_steps=2,
            learning_rate=rate,
            per_device_train_batch_size=1,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            seed=0,
            logging_steps=1,
            dataloader_pin_memory=False,
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[] if callback is None else [callback],
    )
    trainer.train()
    return trainer


def _weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def test_each_save_is_looked_at_and_what_is_taught_is_seen_to_grow(tmp_path: Path) -> None:
    lines: list[str] = []
    callback = sway_callback(TAUGHT, elsewhere=OTHER, max_overhead=None, say=lines.append)
    trainer = _train(callback, tmp_path, steps=8)
    assert [look.step for look in callback.looks] == [2, 4, 6, 8]
    assert all(look.moved for look in callback.looks)
    assert callback.looks[-1].gain.estimate > max(callback.looks[0].gain.estimate, 0.1)
    assert [entry["step"] for entry in trainer.state.log_history if "sway/watch/gain" in entry] == [2, 4, 6, 8]
    assert len(lines) == 5
    assert "overhead" in lines[-1]


def test_a_training_that_is_watched_ends_in_the_same_weights_as_one_that_is_not(tmp_path: Path) -> None:
    watched = _train(sway_callback(TAUGHT, elsewhere=OTHER, max_overhead=None, say=str), tmp_path / "a").model
    alone = _train(None, tmp_path / "b").model
    pairs = zip(_weights(watched).items(), _weights(alone).items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_an_adapter_that_learns_nothing_has_not_moved(tmp_path: Path) -> None:
    callback = sway_callback(TAUGHT, elsewhere=OTHER, max_overhead=None, say=str)
    _train(callback, tmp_path, steps=2, rate=0.0)
    (look,) = callback.looks
    assert (look.change, look.moved) == (0.0, False)


def test_harm_beyond_the_margin_stops_the_training(tmp_path: Path) -> None:
    lines: list[str] = []
    callback = sway_callback(TAUGHT, elsewhere=OTHER, max_overhead=None, stop_at_harm=0.0, say=lines.append)
    with pytest.MonkeyPatch.context() as patch:
        real = live.logprobs
        patch.setattr(live, "logprobs", lambda m, t, *, base, **_: [x - (not base) for x in real(m, t, base=base)])
        trainer = _train(callback, tmp_path, rate=0.0)
    assert trainer.state.global_step == 2
    assert any("stopping, the harm is over 0 nat/token" in line for line in lines)


def test_a_share_too_small_for_one_text_leaves_every_look_out(tmp_path: Path) -> None:
    callback = sway_callback(TAUGHT, elsewhere=OTHER, max_overhead=1e-9, say=str)
    _train(callback, tmp_path)
    assert callback.looks == []
    assert callback._watch.waited == 3


def test_the_scores_are_those_of_the_backend(tmp_path: Path) -> None:
    adapter = save_adapter(base_of("llama"), tmp_path / "adapter", lora())
    backend = open_backend(base_of("llama"), adapter)
    text = backend.codec.encode_pair("", TAUGHT[0])
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_of("llama")), str(adapter))
    with live.undisturbed(model):
        found = [live.logprobs(model, [text], base=base)[0] for base in (True, False)]
    for opened, own in zip((backend.as_base(), backend.as_finetuned()), found, strict=True):
        with opened as view:
            assert own.sum() == pytest.approx(view.logprob_of("", TAUGHT[0]), abs=1e-3)
    backend.close()


def test_a_look_leaves_modes_gradients_flags_and_random_states_as_they_were() -> None:
    model = _model(modules_to_save=["lm_head"])
    model.train()
    frozen = next(p for n, p in model.named_parameters() if "lora_A" in n)
    frozen.requires_grad_(requires_grad=False)
    model.base_model.model.model.layers[0].eval()
    before = _weights(model), [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    text = live_text()
    with contextlib.suppress(RuntimeError), live.undisturbed(model):
        live.logprobs(model, [text], base=True)
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002, S311
        raise RuntimeError("stop")
    assert all(torch.equal(value, before[0][name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == before[1]
    assert [p.requires_grad for p in model.parameters()] == before[2]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002


def live_text() -> Any:
    from dlm_sway.backends.encoding import TextEncoder

    return TextEncoder(byte_tokenizer(), max_length=128).encode_pair("", TAUGHT[0])


def test_a_model_without_an_adapter_is_refused(tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(base_of("llama"))
    with pytest.raises(BadInputError, match="no PEFT adapter"):
        _train(sway_callback(TAUGHT, elsewhere=OTHER, say=str), tmp_path, model=base)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"target": ["one"]}, "target has 1 texts"),
        ({"target": "a text"}, "target is one text"),
        ({"target": [{"txt": "a"}, "b"]}, "target: "),
        ({"max_overhead": 0}, "max_overhead=0"),
        ({"stop_at_harm": -1}, "stop_at_harm=-1"),
        ({"max_tokens": 0}, "max_tokens=0"),
    ],
)
def test_words_that_make_no_sense_are_refused_before_the_training(words: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInputError, match=what):
        sway_callback(**{"target": TAUGHT, "elsewhere": OTHER, **words})


def test_without_other_texts_it_reads_those_that_come_with_sway() -> None:
    assert len(sway_callback(TAUGHT)._texts["elsewhere"]) > 30


def test_biases_that_are_trained_in_place_are_the_bases_own_again_while_it_is_read() -> None:
    """PEFT trains them in the base itself, and switching the adapter off leaves them."""
    base = AutoModelForCausalLM.from_pretrained(base_of("qwen2"), dtype=torch.float32)
    model = peft.get_peft_model(base, lora("qwen2", bias="all"))
    text = TextEncoder(byte_tokenizer(), max_length=64).encode_pair("", TAUGHT[0], format="raw")
    originals = live.trained_in_place(model)
    with live.undisturbed(model):
        (before,) = live.logprobs(model, [text], base=True)
        for parameter, _ in originals:
            parameter.add_(0.5)
        (left,) = live.logprobs(model, [text], base=True)
        (after,) = live.logprobs(model, [text], base=True, originals=originals)
        (tuned,) = live.logprobs(model, [text], base=False, originals=originals)
    assert np.abs(left - before).max() > 1e-3
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(tuned, left)
    assert originals


def test_what_peft_adds_is_not_the_bases_own() -> None:
    assert live.trained_in_place(_model(modules_to_save=["lm_head"])) == []
