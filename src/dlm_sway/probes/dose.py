"""The advice on an adapter's scale: what is asked, what follows from the answers, and how it is said.

`adapter_ablation` and `sway check` share these. Advice is never applied; it ends in the command that would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from dlm_sway.core.result import Question, Verdict
from dlm_sway.core.views import scaled
from dlm_sway.data.control import control_passages
from dlm_sway.engine.ask import Ask, Reducer, Scores, TextItem
from dlm_sway.probes.base import Env
from dlm_sway.probes.claims import estimate_evidence
from dlm_sway.probes.inputs import clusters, subset
from dlm_sway.stats.dose import MARGIN, Dose, Items, Rival, dose

SCALES: Final = (0.25, 0.5, 0.75, 1.0, 1.25)
CHEAP_SCALES: Final = (0.25, 0.5, 0.75, 1.0)
CUT: Final = 96
WELL_SCALED: Final = 0.8
"""An advised scale under this is worth a warning."""
_GAIN: Final[frozenset[Reducer]] = frozenset({"gain"})


def sweep_asks(
    texts: Sequence[TextItem],
    controls: Sequence[TextItem],
    env: Env,
    *,
    name: str,
    lambdas: Sequence[float] = CHEAP_SCALES,
    text_tokens: int = 600,
    control_tokens: int = 1200,
) -> tuple[Ask, Ask]:
    """Return what a dose needs to be asked: a part of both sets under the adapter at several scales.

    The defaults are the cheap version, about 9,000 view-tokens with the base.

    Args:
        texts: what is meant to gain, held-out text where there is some.
        controls: other text; the shipped corpus when empty.
        env: of the run.
        name: of the probe, so that the choice of texts has a seed of its own.
        lambdas: rising positive scales with 1 among them, one of them up to 0.5.
        text_tokens: about how many tokens of `texts`.
        control_tokens: about how many tokens of `controls`.
    """
    passages = tuple(controls) or shipped_controls()
    views = tuple(map(scaled, lambdas))
    some = subset(texts, tokens=text_tokens, cut=CUT, rng=env.rng(name, "texts"))
    other = subset(passages, tokens=control_tokens, cut=CUT, rng=env.rng(name, "controls"))
    raw = env.format if controls else "raw"
    return (
        Ask(some, views, _GAIN, format=env.format, max_tokens=CUT),
        Ask(other, views, _GAIN, format=raw, max_tokens=CUT),
    )


def shipped_controls() -> tuple[TextItem, ...]:
    """Return the control corpus as items, its registers as strata."""
    return tuple(TextItem("", p.text, p.id, p.id, p.register) for p in control_passages())


def dose_of(
    texts: Scores, controls: Scores, *, rng: np.random.Generator, margin: float = MARGIN, alpha: float = 0.05
) -> Dose:
    """Return the advised scale from existing answers, both under the adapter at the same rising scales.

    Raises:
        BadInputError: the scales lack 1 or one up to 0.5, or a value is not finite.
    """
    lambdas = [view.lam for view in texts.views]
    return dose(lambdas, _items(texts), _items(controls), margin=margin, alpha=alpha, rng=rng)


def _items(scores: Scores) -> Items:
    return Items(scores.item_sums("gain"), scores.tokens, clusters(scores.items))


def dose_claim(found: Dose, *, what: str, adapter: str = "ADAPTER") -> Question:
    """Return the answer to "is the trained scale the right one?".

    Args:
        found: the dose.
        what: what gains, such as `held-out`.
        adapter: as the command to rescale it would name it.
    """
    line = dose_line(found, what=what)
    return Question(
        verdict=_verdict(found),
        effect=found.lam,
        unit="x the trained scale",
        interval=found.interval,
        null=f"margin {found.harms[0].margin} nat/token; paired with scale 1",
        message="; ".join(filter(None, (line, _command(found, adapter)))),
    )


def _command(found: Dose, adapter: str) -> str | None:
    return None if found.lam is None or found.lam == 1.0 else rescale_command(found.lam, adapter=adapter)


def rescale_command(lam: float, *, adapter: str = "ADAPTER") -> str:
    """Return the command that writes the adapter at `lam` of its scale beside it."""
    import shlex

    return f"sway rescale {shlex.quote(adapter)} --lam {lam:g} -o {shlex.quote(f'{adapter}-at-{lam:g}')}"


def dose_line(found: Dose, *, what: str) -> str:
    """Return the advice in one line, such as "at 0.5 of its scale: held-out gain 2.23 instead of 2.14, harm gone"."""
    full = found.lambdas.tolist().index(1.0)
    trained = found.harms[full]
    if found.lam is None:
        return _no_scale(found, what)
    if found.lam == 1.0:
        rest = "any other scale" if all(h.decision == "within" for h in found.harms) else "any other safe scale"
        return f"1.0 is as good as {rest}: {what} gain {found.gains[full]:.2f}, loss {_bound(trained.upper)}"
    at = found.lambdas.tolist().index(found.lam)
    harm = "harm gone" if trained.decision != "within" else "no harm at either"
    rising = ", and still rising" if found.reason == "still rising" and at == len(found.lambdas) - 1 else ""
    gains = f"{what} gain {found.gains[at]:.2f} instead of {found.gains[full]:.2f}"
    return f"at {found.lam:g} of its scale: {gains}{rising}, {harm}"


def _bound(upper: float | None) -> str:
    return "unknown" if upper is None else f"surely under {upper:.2f}" if upper > 0 else "none"


def _no_scale(found: Dose, what: str) -> str:
    lowest = f"{found.lambdas[0]:g}"
    if found.reason == "never safe":
        return f"no scale down to {lowest} is free of harm: {found.harms[0].estimate:+.2f} nat/token there already"
    if found.reason == "no gain":
        return f"no safe scale has a {what} gain worth the name: train again rather than rescale"
    if found.interval is None:
        return "too few texts to name a scale; give at least 5 of each kind, better 30"
    if found.rival is not None:
        return _rival_line(found.rival, what)
    need = f"; about {found.n_to_decide} control texts would" if found.n_to_decide else ""
    best = f", though {found.best:g} looks best" if found.best not in (None, 1.0) else ""
    return f"the texts do not decide whether another scale than 1.0 is better{best}{need}"


def _rival_line(rival: Rival, what: str) -> str:
    """Return what is known where a safe full scale is neither surely as good as another one nor surely worse."""
    change = rival.change
    by = f"{change.estimate:.2f}" if change.estimate > 0 else f"up to {change.high:.2f}, {change.estimate:.2f}"
    need = f"; about {rival.n_to_decide} {what} texts would tell" if rival.n_to_decide else ""
    ends = f"[{change.low:.2f}, {change.high:.2f}] nat/token"
    return f"not decided whether 1.0 is as good: {rival.lam:g} may be better by {by} {ends}{need}"


def _verdict(found: Dose) -> Verdict:
    if found.reason == "undecided":
        return Verdict.INCONCLUSIVE
    if found.lam is None or found.lam < WELL_SCALED or found.reason == "still rising":
        return Verdict.WARN
    return Verdict.PASS


def dose_evidence(found: Dose, *, what: str) -> dict[str, Any]:
    """Return the dose as JSON values."""
    kept, rival = found.kept, found.rival
    return {
        "line": dose_line(found, what=what),
        "lam": found.lam,
        "best_by_estimates": found.best,
        "reason": found.reason,
        "interval": None if found.interval is None else list(found.interval),
        "resamples_by_lam": {f"{lam:g}": share for lam, share in found.support.items()},
        "gain_change": None if found.gain_change is None else estimate_evidence(found.gain_change),
        "harm_change": None if found.harm_change is None else estimate_evidence(found.harm_change),
        "may_be_better": None if rival is None else _rival_evidence(rival),
        "kept_of_gain": None if kept is None else {"share": kept.estimate, "low": kept.low, "high": kept.high},
        "command": _command(found, "ADAPTER"),
        "by_lam": [
            {
                "lam": float(lam),
                "gain": float(g),
                "harm": h.estimate,
                "harm_upper": h.upper,
                "harm_decision": h.decision,
            }
            for lam, g, h in zip(found.lambdas, found.gains, found.harms, strict=True)
        ],
    }


def _rival_evidence(rival: Rival) -> dict[str, Any]:
    return {"lam": rival.lam, "n_to_decide": rival.n_to_decide, **estimate_evidence(rival.change)}
