"""A callback for the Trainer of transformers, which TRL's trainers take too: how far has this adapter come?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from dlm_sway.core.errors import BadInputError, SwayError
from dlm_sway.core.extras import needs_extra
from dlm_sway.integrations.watch import Look, Watch
from dlm_sway.probes.inputs import Items

if TYPE_CHECKING:
    from dlm_sway.backends.base import Encoded, Format
    from dlm_sway.backends.encoding import TextEncoder
    from dlm_sway.integrations.trackers import Tracker

_WHERE: Final = "sway_callback"
_FEWEST: Final = 2


def sway_callback(
    target: Sequence[str | Mapping[str, str]],
    *,
    elsewhere: Sequence[str | Mapping[str, str]] | None = None,
    stop_at_harm: float | None = None,
    max_overhead: float | None = 0.05,
    max_tokens: int = 128,
    format: Format = "auto",  # noqa: A002 (DESIGN 5's word)
    tokenizer: Any = None,
    tracker: Tracker | None = None,
    seed: int = 0,
    say: Callable[[str], object] = print,
) -> Any:
    """Return a `TrainerCallback` that looks at the adapter whenever the trainer saves.

    It scores the model in training, with its adapter on and off, so no second model is loaded; modes and random states
    are put back. What it saw is in its `looks`, and in the trainer's log history. It is a look on the way: `sway check`
    on a checkpoint gives the verdict.

    Args:
        target: texts of what is to be learned, best held out; plain, or with `prompt` and `completion`.
        elsewhere: texts that should stay as probable as they were; the control texts that come with sway when None.
        stop_at_harm: stop the training where the loss elsewhere is over this by the whole of its interval, nat/token.
        max_overhead: share of the training's time that it may take, and so how many texts it reads; None: all, always.
        max_tokens: read at most so many scored tokens of a text.
        format: how prompts are rendered.
        tokenizer: the trainer's own when None.
        tracker: gets the numbers of each look too.
        seed: of the order that texts are read in, and of the intervals.
        say: prints a line.

    Raises:
        BadInputError: fewer than two texts of a sort, or a number that makes no sense.
        MissingExtraError: transformers is not installed.
    """
    with needs_extra("a callback for the Trainer"):
        from transformers import TrainerCallback
    if elsewhere is None:
        from dlm_sway.data.control import control_passages

        elsewhere = [passage.text for passage in control_passages()]
    texts = {"target": _items(target, "target"), "elsewhere": _items(elsewhere, "elsewhere")}
    _require(
        max_overhead is None or max_overhead > 0, f"max_overhead={max_overhead}", "give a share such as 0.05, or None"
    )
    _require(stop_at_harm is None or stop_at_harm >= 0, f"stop_at_harm={stop_at_harm}", "give nat/token, 0 or more")
    _require(max_tokens > 0, f"max_tokens={max_tokens}", "give 1 or more")
    # A class made here, since its base can only be imported here.
    made = type("SwayCallback", (_Looks, TrainerCallback), {})()
    made.set_up(
        texts=texts,
        read=lambda encoder, items: _encoded(encoder, items, format=format, most=max_tokens),
        share=max_overhead,
        seed=seed,
        stop_at=stop_at_harm,
        tokenizer=tokenizer,
        tracker=tracker,
        say=say,
    )
    return made


class _Looks:
    """The events that matter; the trainer calls them with its arguments, its state and its control."""

    def set_up(
        self,
        *,
        texts: Mapping[str, Items],
        read: Callable[[TextEncoder, Items], list[Encoded]],
        share: float | None,
        seed: int,
        stop_at: float | None,
        tokenizer: Any,
        tracker: Tracker | None,
        say: Callable[[str], object],
    ) -> None:
        """Keep what the trainer cannot say."""
        self._texts, self._read, self._share, self._seed = texts, read, share, seed
        self._stop_at, self._tokenizer, self._tracker, self._say = stop_at, tokenizer, tracker, say
        self._watch: Watch | None = None

    @property
    def looks(self) -> list[Look]:
        """What was seen so far."""
        return [] if self._watch is None else self._watch.looks

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read the texts, and measure what numerics alone change."""
        from dlm_sway.backends.encoding import TextEncoder, context_window
        from dlm_sway.integrations.live import numeric_floor, require_peft, trained_in_place, undisturbed

        del control
        model = kwargs["model"]
        require_peft(model)
        self._require_whole(args)
        self._originals = trained_in_place(model)
        gone = bool(self._originals) and state.global_step > 0
        _require(not gone, "the base's own biases were trained before this", "begin anew, or run `sway check` later")
        if not state.is_world_process_zero:
            return
        tokenizer = self._tokenizer or kwargs.get("processing_class")
        _require(callable(tokenizer), "the trainer has no tokenizer", "give one: tokenizer=")
        encoder = TextEncoder(tokenizer, max_length=context_window(model.config, tokenizer))
        texts = {name: self._read(encoder, items) for name, items in self._texts.items()}
        self._watch = Watch(texts["target"], texts["elsewhere"], share=self._share, seed=self._seed)
        with undisturbed(model):
            self._watch.begin(lambda text: numeric_floor(model, text))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look; stop the training where that was asked for."""
        from dlm_sway.integrations.live import logprobs, undisturbed

        del args
        watch, model = self._watch, kwargs["model"]
        if watch is None:
            return
        with undisturbed(model):
            own = self._originals
            seen = watch.look(state.global_step, lambda t, *, base: logprobs(model, t, base=base, originals=own))
        if seen is None:
            return
        self._say(seen.line())
        state.log_history.append({"step": seen.step, **seen.numbers()})
        if self._tracker is not None:
            self._tracker.log_metrics(seen.numbers(), step=seen.step)
        if self._stop_at is not None and seen.harmed(self._stop_at):
            self._say(f"sway: step {seen.step}: stopping, the harm is over {self._stop_at:g} nat/token")
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say what all of it took, and what was left out for it."""
        del args, state, control, kwargs
        if self._watch is None:
            return
        n, waited = len(self.looks), self._watch.waited
        overhead = f", {self.looks[-1].overhead:.1%} overhead" if self.looks else ""
        left = f"; {waited} left out to stay under max_overhead" if waited else ""
        self._say(f"sway: {n} looks{overhead}{left}")

    def _require_whole(self, args: Any) -> None:
        """Refuse trainings in which one process alone cannot run the model, or cannot stop the others."""
        sharded = bool(getattr(args, "fsdp", None)) or bool(getattr(args, "deepspeed", None))
        _require(not sharded, "the model is spread over processes", "run `sway check` on the checkpoints")
        alone = self._stop_at is None or getattr(args, "world_size", 1) == 1
        _require(alone, "stop_at_harm works in one process", "leave it out, or train on one device")


def _items(raw: Sequence[Any], name: str) -> Items:
    _require(not isinstance(raw, str), f"{name} is one text", "give a list of texts")
    try:
        found: Items = TypeAdapter(Items).validate_python(list(raw))
    except ValidationError as e:
        raise BadInputError(f"{name}: {e.errors()[0]['msg']}", where=_WHERE, remedy="give texts") from None
    few = f"{name} has {len(found)} texts"
    _require(len(found) >= _FEWEST, few, "give two or more; 30 make an interval that decides something")
    return found


def _encoded(encoder: TextEncoder, items: Items, *, format: Format, most: int) -> list[Encoded]:  # noqa: A002 (as above)
    found: list[Encoded] = []
    for item in items:
        try:
            text = encoder.encode_pair(item.prompt, item.completion, format=format)
        except SwayError:
            continue  # without a token there is nothing to score
        end = min(text.start + most, encoder.max_length)
        if end > text.start:
            found.append(replace(text, ids=text.ids[:end]))
    _require(len(found) >= _FEWEST, f"{len(items)} texts have {len(found)} that can be scored", "give other texts")
    return found


def _require(holds: bool, what: str, remedy: str) -> None:
    if not holds:
        raise BadInputError(what, where=_WHERE, remedy=remedy)
