"""Rules on scores: what log-probs and distributions are, and that different ways to one number agree."""

from __future__ import annotations

import math
from typing import Any, Final
from unittest import SkipTest

import numpy as np

from dlm_sway.core.errors import SwayError
from dlm_sway.testing._common import near, refuses, require

_STRADDLES: Final = "the tokens of the first text's beginning are not the beginning of its tokens; give other texts"


def rolling_logprobs_score_every_token_but_the_first(subject: Any) -> None:
    """rolling_logprob gives int64 tokens, one float32 log-prob fewer, none above 0, and their sum."""
    for text in subject.texts:
        with subject.backend.as_finetuned() as view:
            found = view.rolling_logprob(text)
        require(found.num_tokens == found.token_ids.size > 1, f"{found.num_tokens} tokens of {text!r}")
        require(found.logprobs.shape == (found.num_tokens - 1,), f"{found.logprobs.shape} log-probs")
        kinds = (found.token_ids.dtype, found.logprobs.dtype)
        require(kinds == (np.int64, np.float32), f"the dtypes are {kinds}")
        require((found.logprobs <= subject.atol).all(), "a log-prob is positive")
        off = abs(found.total_logprob - float(found.logprobs.astype(np.float64).sum()))
        require(off <= subject.atol * found.num_tokens, f"total_logprob is {off:.3g} off the sum")


def a_completion_is_scored_alone(subject: Any) -> None:
    """logprob_of is the rolling log-prob of prompt + completion less that of the prompt; empty ones are refused."""
    text = subject.texts[0]
    cut = text.index(" ", len(text) // 2)
    prompt, completion = text[:cut], text[cut:]
    with subject.backend.as_finetuned() as view:
        whole, part = view.rolling_logprob(text), view.rolling_logprob(prompt)
        refuses(lambda: view.logprob_of(prompt, ""), SwayError, "an empty completion")
        if not np.array_equal(whole.token_ids[: part.num_tokens], part.token_ids):
            raise SkipTest(_STRADDLES)
        expected = whole.total_logprob - float(whole.logprobs[: part.num_tokens - 1].astype(np.float64).sum())
        found = view.logprob_of(prompt, completion)
    off = abs(found - expected)
    require(off <= subject.atol * whole.num_tokens, f"{found:.6g} where the whole text says {expected:.6g}")


def distributions_are_sorted_and_whole(subject: Any) -> None:
    """next_token_dist is descending and distinct, holds at most top_k tokens, and with its tail sums to 1."""
    with subject.backend.as_finetuned() as view:
        for k in (5, 40):
            found = view.next_token_dist(subject.texts[0], top_k=k)
            require(found.token_ids.shape == found.logprobs.shape, "ids and log-probs differ in number")
            require(1 <= found.token_ids.size <= min(k, found.vocab_size), f"{found.token_ids.size} tokens of top {k}")
            require((np.diff(found.logprobs) <= 0).all(), "log-probs are not descending")
            require(np.unique(found.token_ids).size == found.token_ids.size, "a token stands there twice")
            tail = found.tail_logprob
            require(tail is None or (tail <= 0.0 and math.isfinite(tail)), f"tail_logprob is {tail}")
            if tail != 0.0:
                mass = float(np.exp(found.logprobs.astype(np.float64)).sum()) + (
                    0.0 if tail is None else math.exp(tail)
                )
                require(abs(mass - 1.0) <= max(1e-3, subject.atol), f"the mass is {mass:.6g}")


def a_batch_equals_its_prompts(subject: Any) -> None:
    """next_token_dist_batch gives, in order, what its prompts give one by one."""
    prompts = [*subject.texts, subject.texts[0][:4]]
    with subject.backend.as_finetuned() as view:
        batch = view.next_token_dist_batch(prompts, top_k=10)
        alone = [view.next_token_dist(p, top_k=10) for p in prompts]
    require(len(batch) == len(prompts), f"{len(batch)} answers for {len(prompts)} prompts")
    for left, right in zip(batch, alone, strict=True):
        near(subject, left.logprobs, right.logprobs, "a batch against its prompts")


def the_next_token_agrees_with_the_text(subject: Any) -> None:
    """The distribution after a prefix gives the token that follows the log-prob it has in the text."""
    text = subject.texts[0]
    codec = getattr(subject.backend, "codec", None)
    with subject.backend.as_finetuned() as view:
        whole = view.rolling_logprob(text)
        cut = text.index(" ", len(text) // 2)
        head = view.rolling_logprob(text[:cut])
        n = head.num_tokens
        if n >= whole.num_tokens or not np.array_equal(whole.token_ids[:n], head.token_ids):
            raise SkipTest(_STRADDLES)
        found = view.next_token_dist(text[:cut], top_k=10**6)
    prompt = None if codec is None else codec.encode_prompt(text[:cut])
    if prompt is not None and not np.array_equal(prompt, head.token_ids):
        raise SkipTest("its codec encodes a prompt unlike the beginning of a text")
    at = np.flatnonzero(found.token_ids == whole.token_ids[n])
    require(at.size or found.token_ids.size < found.vocab_size, "the token that follows is not in the distribution")
    if at.size:
        near(subject, found.logprobs[at], whole.logprobs[n - 1 : n], "the next token")


def generation_repeats(subject: Any) -> None:
    """Greedy text is the same twice, sampled text the same for the same seed, and both end at the limit."""
    prompt = subject.texts[0]
    with subject.backend.as_finetuned() as view:
        greedy = [view.generate(prompt, max_new_tokens=6) for _ in range(2)]
        sampled = [view.generate(prompt, max_new_tokens=6, temperature=1.0, seed=5) for _ in range(2)]
    require(greedy[0] == greedy[1], f"greedy: {greedy[0]!r}, then {greedy[1]!r}")
    require(sampled[0] == sampled[1], f"seed 5: {sampled[0]!r}, then {sampled[1]!r}")
    require(not greedy[0].startswith(prompt), "the prompt is part of what was generated")


RULES: Final = (
    rolling_logprobs_score_every_token_but_the_first,
    a_completion_is_scored_alone,
    distributions_are_sorted_and_whole,
    a_batch_equals_its_prompts,
    the_next_token_agrees_with_the_text,
    generation_repeats,
)
