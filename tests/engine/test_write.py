from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.errors import BadInputError, CannotRunError
from dlm_sway.core.progress import Silent
from dlm_sway.core.store import ResultStore
from dlm_sway.core.views import BASE, FINETUNED
from dlm_sway.engine.ask import Ask, Scores, TextItem, Write, Written
from dlm_sway.engine.disk_store import DiskStore
from dlm_sway.engine.generate import generate
from dlm_sway.engine.run import Engine
from dlm_sway.engine.write import answer, write

PROMPTS = ("w50 w51", "w60", "w50 w51")
VIEWS = (BASE, FINETUNED)
TOOL = {"type": "function", "function": {"name": "ring", "parameters": {"type": "object", "properties": {}}}}


def dummy(**options: Any) -> DummyBackend:
    return DummyBackend(DummyOptions(**{"strength": 30.0, **options}))


def test_what_is_asked_for_is_what_the_engine_generates() -> None:
    backend = dummy()
    made = generate(Engine(backend), PROMPTS, views=VIEWS, max_new_tokens=6)
    found = write(Engine(backend), [Write(PROMPTS, VIEWS, 6)])[0]
    assert found.texts == made.texts
    assert found.texts[0] != found.texts[1]
    assert found.n_tokens.tolist() == [[ids.size for ids in row] for row in made.tokens]
    assert found.stopped.tolist() == made.stopped.tolist()


def test_scores_and_texts_come_back_in_the_order_asked_for() -> None:
    ask = Ask((TextItem("", "w50 w51 w52", "0", "0"),), (FINETUNED,), frozenset({"gain"}))
    first, second = Write(("w50",), VIEWS, 3), Write(("w60", "w70"), VIEWS, 3)
    found = answer(Engine(dummy()), [first, ask, second])
    assert [type(f) for f in found] == [Written, Scores, Written]
    assert (found[0].ask, found[2].ask) == (first, second)  # type: ignore[union-attr]
    assert found[2].n_tokens.shape == (2, 2)  # type: ignore[union-attr]
    assert answer(Engine(dummy()), []) == []


def test_greedy_asks_are_decoded_together_and_drawn_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(engine: Engine, prompts: Any, **how: Any) -> Any:
        sizes.append(len(prompts))
        return generate(engine, prompts, **how)

    monkeypatch.setattr("dlm_sway.engine.write.generate", counted)
    engine = Engine(dummy())
    write(engine, [Write(("w50",), VIEWS, 3), Write(PROMPTS, VIEWS, 3), Write(PROMPTS, VIEWS, 4)])
    assert sizes == [4, 3]
    sizes.clear()
    drawn = Write(("w50", "w50"), VIEWS, 3, temperature=1.0)
    other = Write(("w60", "w50"), VIEWS, 3, temperature=1.0)
    alone, beside = write(engine, [drawn])[0], write(Engine(dummy()), [other, drawn])[1]
    assert sizes == [2, 2, 2]
    assert alone.texts == beside.texts
    assert alone.texts[0][0] != alone.texts[0][1]


def test_a_conversation_with_tools_is_rendered_by_the_chat_template() -> None:
    backend = dummy(chat_template=True)
    turns = ({"role": "user", "content": "w50 w51"},)
    said, text, offered = write(
        Engine(backend),
        [Write((turns,), VIEWS, 5), Write(("w50 w51",), VIEWS, 5), Write(("w50 w51",), VIEWS, 5, tools=(TOOL,))],
    )
    assert said.texts == text.texts
    ids = backend.codec.encode_messages(turns, (TOOL,))
    assert offered.texts == generate(Engine(backend), [ids], views=VIEWS, max_new_tokens=5).texts
    assert (
        backend.codec.encode_messages(turns).tolist() == backend.codec.encode_prompt("w50 w51", format="chat").tolist()
    )


@pytest.mark.parametrize(
    ("options", "reason"), [({}, "no chat template"), ({"chat_template": True, "shows_tools": False}, "ignores tools")]
)
def test_tools_that_cannot_be_shown_are_refused(options: dict[str, Any], reason: str) -> None:
    backend = dummy(**options)
    assert reason in (backend.codec.tools_refusal() or "")
    with pytest.raises(BadInputError, match=reason):
        write(Engine(backend), [Write(("w50",), VIEWS, 5, tools=(TOOL,))])


def test_a_dummy_recites_its_script() -> None:
    script = {"base": {"a": "one two three", "": "else"}, "adapter": {"": ("first", "second")}}
    found = write(Engine(dummy(script=script)), [Write(("a", "b", "b"), VIEWS, 2)])[0]
    assert found.texts == (("one two", "else", "else"), ("first", "first", "second"))
    assert found.n_tokens.tolist() == [[2, 1, 1], [1, 1, 1]]
    assert found.stopped.tolist() == [[False, True, True], [True] * 3]
    assert found.n_tokens.dtype == np.int64
    turns = ({"role": "system", "content": "b"}, {"role": "user", "content": "a"})
    assert write(Engine(dummy(script=script)), [Write((turns,), VIEWS, 9)])[0].texts[0] == ("one two three",)
    with pytest.raises(BadInputError, match="no line for 'b'"):
        write(Engine(dummy(script={"base": {"a": "x"}})), [Write(("b",), (BASE,), 9)])


def test_who_has_no_script_is_decoded_from_logits() -> None:
    backend = dummy(script={"base": {"": "words"}})
    found = write(Engine(backend), [Write(("w50",), VIEWS, 4)])[0]
    made = generate(Engine(backend), ["w50"], views=(FINETUNED,), max_new_tokens=4)
    assert found.texts == (("words",), *made.texts)
    assert found.n_tokens.tolist() == [[1], [made.tokens[0][0].size]]


def test_a_prompt_longer_than_the_window_is_refused() -> None:
    with pytest.raises(BadInputError, match="reads 8"):
        write(Engine(dummy(max_length=8)), [Write((" ".join(["w50"] * 9),), VIEWS, 4)])


class Known(DummyBackend):
    """A dummy whose texts may be kept."""

    def fingerprint(self, memo: ResultStore | None = None) -> str:  # noqa: ARG002 (part of the protocol)
        return self.options.model_dump_json(exclude={"forwards"})


def test_texts_that_were_kept_are_not_written_again(tmp_path: Path) -> None:
    wanted = [Write(PROMPTS, VIEWS, 4), Write(("w60",), VIEWS, 4, temperature=1.0)]
    with DiskStore(tmp_path) as store:
        first = write(Engine(Known(DummyOptions(strength=30.0)), store=store), wanted)
        idle = Known(DummyOptions(strength=30.0, forwards=0))
        again = write(Engine(idle, store=store), wanted)
        assert [f.texts for f in again] == [f.texts for f in first]
        assert [f.n_tokens.tolist() for f in again] == [f.n_tokens.tolist() for f in first]
        assert [f.stopped.tolist() for f in again] == [f.stopped.tolist() for f in first]
        with pytest.raises(CannotRunError, match="the machine gave up"):
            write(Engine(idle, store=store, reuse=False), wanted)
        with pytest.raises(CannotRunError, match="the machine gave up"):
            write(Engine(idle, store=store), [Write(PROMPTS, VIEWS, 5)])


def test_who_asks_is_said_before_it_is_written() -> None:
    heard: list[object] = []

    class Listener(Silent):
        def asking(self, names: object) -> None:
            heard.append(names)

    ask = Ask((TextItem("", "w50 w51 w52", "0", "0"),), (FINETUNED,), frozenset({"gain"}))
    answer(Engine(dummy(), progress=Listener()), [ask, Write(PROMPTS, VIEWS, 2)], askers=["a", "b"])
    assert heard == [["a"], ["b"]]
