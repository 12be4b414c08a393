"""The assertion of merging and serving: what is delivered is what was tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dlm_sway.chain.behaviour import judge
from dlm_sway.chain.given import MAX_TOKENS, ChainRequest, Given
from dlm_sway.chain.margins import bits_of, bits_served, margin_of
from dlm_sway.chain.reference import Reference, observe, take_reference
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.progress import Silent
from dlm_sway.core.result import Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Ask, TextItem

if TYPE_CHECKING:
    from dlm_sway.chain.result import Finding

_FEWEST = 2


def assert_equivalent(
    base: str | Path,
    a: str | Path,
    b: str | Path,
    texts: Sequence[str],
    *,
    margin: float | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Finding:
    """Raise unless `b` is the fine-tune `a` of `base`: log-probs equal within a margin, and all of the effect left.

    Three claims, each with an interval: the mean log-prob is within its margin, between 0.9 and 1.1 of the adapter's
    effect is left, and what comes beside it is smaller than the effect (`chain.behaviour.decide`).

    Args:
        base: directory or Hub id of the base.
        a: directory of the adapter that was tested.
        b: another adapter's directory, a merged model's directory, a GGUF file, or the address of a server.
        texts: what both read, at least two, the first 128 tokens of each; best what the adapter was trained on.
        margin: of the mean log-prob, nat per token; None for what the dtype of `b` and the numeric floor make.
        device: where models compute here.
        seed: of resampling.

    Returns:
        The finding, with the effect that is left and its intervals.

    Raises:
        AssertionError: `b` is another model, or that cannot be told.
        BadInputError: something cannot be loaded, there are too few texts, or the two cut text into other tokens.
        CannotRunError: the server cannot be asked, or a model gives log-probs that are no numbers.
    """
    __tracebackhide__ = True
    if len(texts) < _FEWEST:
        remedy = f"give at least {_FEWEST}, better 30"
        raise BadInputError(f"{len(texts)} texts cannot show that two models are one", where="texts", remedy=remedy)
    given = Given(ChainRequest(adapter=Path(a), base=str(base), device=device, seed=seed), Silent())
    items = tuple(TextItem("", text, str(i), str(i)) for i, text in enumerate(texts))
    with given.adapted(Path(a)) as tested:
        taken = take_reference(tested, items, given.config, max_tokens=MAX_TOKENS)
    logprobs, bits = _read(given, str(b), taken)
    by_rule = margin_of(bits, floor=taken.floor, effect=taken.mean_effect)
    found = judge(taken, logprobs, given.config, margin=by_rule if margin is None else margin, seed=seed)
    if found.verdict is not Verdict.PASS:
        cause = f"; {found.cause}" if found.cause else ""
        remedy = f"\n  to do: {found.remedy}" if found.remedy else ""
        raise AssertionError(f"{b} is not shown to be {a} ({found.verdict}): {found.message}{cause}{remedy}")
    return found


def _read(given: Given, b: str, taken: Reference) -> tuple[npt.NDArray[np.float64], float | None]:
    """Return the log-probs that `b` gives the texts' tokens, float64[P] in nats, and how many bits a weight has."""
    if b.startswith(("http://", "https://")):
        with given.server(b) as server:
            return observe(server, taken).logprobs, bits_served(server.bits_per_weight())
    path = Path(b)
    if (path / "adapter_config.json").is_file():
        with given.adapted(path) as other:
            return _tuned(other, taken), bits_of(other.dtype)
    with given.whole(path) as whole:
        return observe(whole, taken).logprobs, bits_of(whole.dtype)


def _tuned(backend: Any, taken: Reference) -> npt.NDArray[np.float64]:
    from dlm_sway.engine.run import Engine

    asked = Ask(taken.asked, (FINETUNED,), frozenset({"gain"}), max_tokens=taken.max_tokens)
    (scores,) = Engine(backend).answer([asked])
    logprobs: npt.NDArray[np.float64] = scores.base_logprob + scores.values["gain"][0]
    return logprobs
