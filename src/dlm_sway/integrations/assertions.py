"""Assertions for tests of merging and serving: what is loaded is the fine-tune, and it does no harm.

Each loads the model, asks one probe, and raises an AssertionError that says what was measured, how sure it is, and what
to do. Only a claim that holds passes: one that is undecided says what would decide it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from dlm_sway.core.result import ProbeResult, Question, Verdict
from dlm_sway.integrations.equivalent import assert_equivalent

if TYPE_CHECKING:
    from dlm_sway.backends.registry import Backend

__all__ = ["assert_applied", "assert_equivalent", "assert_no_harm"]

Texts: TypeAlias = "Sequence[str | Mapping[str, str]]"

_FEWEST_DRAWS: Final = 1  # neither claim rests on a null, and each draw costs time
_PASSES: Final = (Verdict.PASS, Verdict.WARN)


def assert_applied(
    base: str | Path, adapter: str | Path | None = None, *, prompts: Texts = (), seed: int = 0, **model: Any
) -> Question:
    """Raise unless the adapter changes what the base says by more than ten times the numeric noise floor.

    It does not ask whether the change was learned: arbitrary weights pass. `sway check` asks that.

    Args:
        base: directory or Hub id of the base.
        adapter: directory of the adapter.
        prompts: texts to look at; the built-in ones when empty.
        seed: of all resampling.
        **model: further fields of `ModelSpec`, such as `device`, `dtype` or `kind`.

    Returns:
        The claim, with its effect and interval in nat per token.

    Raises:
        AssertionError: it changes too little, or that cannot be told.
        BadInputError: the base or the adapter cannot be loaded.
    """
    __tracebackhide__ = True
    raw = {"name": "applied", "kind": "delta_kl", **({"prompts": list(prompts)} if prompts else {})}
    found = _asked(raw, _spec(base, adapter, model), seed=seed)
    remedy = f"run `sway inspect {adapter}`: it names tensors that land on no module, and scales that are 0"
    return _claim(found, "applied", "the adapter is not shown to be applied", remedy)


def assert_no_harm(
    base: str | Path,
    adapter: str | Path | None = None,
    *,
    passages: Texts = (),
    margin: float = 0.05,
    seed: int = 0,
    **model: Any,
) -> Question:
    """Raise unless the loss on other text is inside a margin, by its one-sided 95 % bound.

    Args:
        base: directory or Hub id of the base.
        adapter: directory of the adapter.
        passages: texts that should stay as probable as they were; the control corpus of sway when empty.
        margin: the largest loss that counts as no harm, nat per token.
        seed: of all resampling.
        **model: further fields of `ModelSpec`, such as `device`, `dtype` or `kind`.

    Returns:
        The claim, with its effect and interval in nat per token.

    Raises:
        AssertionError: it harms, or that is undecided.
        BadInputError: the base or the adapter cannot be loaded, or the margin is not positive.
    """
    __tracebackhide__ = True
    raw = {"name": "no-harm", "kind": "external_perplexity", "margin": margin}
    found = _asked(raw | ({"passages": list(passages)} if passages else {}), _spec(base, adapter, model), seed=seed)
    remedy = "train less or with plain text mixed in, or find a scale that does no harm with `sway check --data`"
    return _claim(found, "no_harm", f"the adapter is not shown to be harmless within {margin:g} nat/token", remedy)


def _spec(base: str | Path, adapter: str | Path | None, model: Mapping[str, Any]) -> Any:
    from pydantic import ValidationError

    from dlm_sway.adapters.recorded_base import at_recorded_revision
    from dlm_sway.core.errors import BadInputError
    from dlm_sway.core.model import ModelSpec

    try:
        spec = ModelSpec(base=str(base), adapter=None if adapter is None else Path(adapter), **model)
    except ValidationError as e:
        first = e.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise BadInputError(what, where="the model", remedy="give fields of ModelSpec") from None
    return at_recorded_revision(spec)


def _asked(raw: Mapping[str, Any], spec: Any, *, seed: int) -> ProbeResult:
    from dlm_sway.backends.registry import open_backend
    from dlm_sway.probes.base import RunContext, build_probe

    probe, own = build_probe(raw)
    backend: Backend = open_backend(spec)
    try:
        result: ProbeResult = probe.run(own, RunContext(backend=backend, seed=seed, n_draws=_FEWEST_DRAWS))
    finally:
        backend.close()
    return result


def _claim(found: ProbeResult, name: str, what: str, remedy: str) -> Question:
    from dlm_sway.report.numbers import effect, interval
    from dlm_sway.report.text import clean

    __tracebackhide__ = True
    raw = found.evidence.get("claims", {}).get(name)
    if raw is None:
        raise AssertionError(f"{what}: it could not be asked ({found.verdict}): {clean(found.message)}")
    claim = Question.model_validate(raw)
    if claim.verdict in _PASSES:
        return claim
    ends = claim.interval
    size = effect(claim.effect, claim.unit, like=ends or ())
    sure = interval(ends, like=() if claim.effect is None else (claim.effect,))
    lines = (
        f"{what} ({claim.verdict})",
        f"  effect:   {size or 'none'}{f' {sure}' if sure else ''}",
        f"  against:  {clean(claim.null)}" if claim.null else "",
        f"  found:    {clean(claim.message)}",
        f"  to do:    {clean(remedy)}" if claim.verdict is not Verdict.INCONCLUSIVE else "  to do:    give more texts",
    )
    raise AssertionError("\n".join(line for line in lines if line))
