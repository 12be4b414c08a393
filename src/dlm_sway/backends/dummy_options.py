"""What a dummy is, and what goes wrong in it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from dlm_sway.core.views import ViewKind

Who: TypeAlias = Literal["base"] | ViewKind


class DummyOptions(BaseModel):
    """The `options` of a spec of kind `dummy`. Frozen; unknown keys are refused.

    Attributes:
        vocab_size: K.
        seed: of the base.
        adapter: `trained` on texts, `noise` (random weights), or `none` (B is zero: it does nothing).
        adapter_seed: of random weights.
        rank: r of the adapter.
        strength: about how far it moves a logit.
        towards: texts that a trained adapter makes more probable.
        away: texts that it makes less probable.
        max_length: the context window, in tokens.
        chat_template: whether prompts can be rendered as a conversation.
        shows_tools: whether the chat template renders tools; without a template it does not matter.
        script: what each writes, by prompt (of a conversation: its last turn); the prompt `""` stands for all others,
            and several texts are for equal prompts, in turn. Who is not named is decoded from logits.
        refusal: why rotation nulls are refused; None: they are not.
        scale_refusal: why the adapter's effect cannot be scaled; None: it can.
        cut_refusal: why the adapter cannot be cut to its largest directions; None: it can.
        nan_in: views whose logits are NaN.
        forwards: forward passes after which the machine gives up; None: never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(default=96, ge=8)
    seed: int = 0
    adapter: Literal["trained", "noise", "none"] = "noise"
    adapter_seed: int = 0
    rank: int = Field(default=8, ge=1, le=32)
    strength: float = 3.0
    towards: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    max_length: int = Field(default=1024, ge=2)
    chat_template: bool = False
    shows_tools: bool = True
    script: dict[Who, dict[str, str | tuple[str, ...]]] = Field(default_factory=dict)
    refusal: str | None = None
    scale_refusal: str | None = None
    cut_refusal: str | None = None
    nan_in: frozenset[Who] = frozenset()
    forwards: int | None = None
