"""`rank_profile`: how much of the adapter's rank carries its effect?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from dlm_sway.adapters.cuts import n_kept
from dlm_sway.backends.base import RankedModule
from dlm_sway.core.result import Category, ProbeResult, Question, Verdict
from dlm_sway.core.views import FINETUNED, View, rotations, top_ranks
from dlm_sway.data.prompts import GENERAL_PROMPTS
from dlm_sway.engine.ask import Ask, Reducer, Scores, TextItem
from dlm_sway.probes.base import Env, Found, Probe, ProbeSpec, Seen, register, result_of
from dlm_sway.probes.claims import extremes
from dlm_sway.probes.inputs import Items, clusters, subset
from dlm_sway.probes.unsaturated import CUT as NULL_CUT
from dlm_sway.probes.unsaturated import lam_star, pilot_ask, seen_by_nulls
from dlm_sway.stats.ranks import rank_test
from dlm_sway.stats.shares import Share, share

CUT: Final = 96
MOST: Final = 0.9
"""Share of the gain that, in under a quarter of the rank, makes the rest of it idle."""
QUARTER: Final = 0.25
NONE: Final = 0.1
"""Share of the gain under which a cut has lost it."""
FEWEST: Final = 5
_MODULES: Final = 200


class RankProfileSpec(ProbeSpec):
    """Spec of `rank_profile`.

    Attributes:
        items: the data the fine-tune was trained on; without it the cuts are judged by their effect on the prompts.
        prompts: texts for the effect; the built-in 32 when none are given.
        cuts: shares of each module's rank that are kept, the largest singular values first.
        rank_multipliers: ranks of the nulls over the adapter's rank.
        runs: number of nulls a multiplier.
        null_tokens: about how many tokens a null sees.
        text_tokens: about how many tokens of `items` are read.
    """

    kind: Literal["rank_profile"] = "rank_profile"
    items: Items = ()
    prompts: Items = ()
    cuts: tuple[float, ...] = (0.125, 0.25, 0.5, 0.75)
    rank_multipliers: tuple[float, ...] = (0.5, 1.0, 2.0)
    runs: int = Field(default=19, ge=2)
    null_tokens: int = Field(default=128, ge=16)
    text_tokens: int = Field(default=3000, ge=64)

    @field_validator("cuts")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or any(not 0 < cut < 1 for cut in value) or list(value) != sorted(set(value)):
            raise ValueError("cuts must rise and lie between 0 and 1")
        return value

    @field_validator("rank_multipliers")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not (np.isfinite(m) and m > 0) for m in value) or len(set(value)) < len(value):
            raise ValueError("rank multipliers must differ, be positive and finite")
        return value


@register("rank_profile")
class RankProfile(Probe[RankProfileSpec]):
    """How much of the adapter's rank carries its effect?

    Asks: what share of the gain on target text (without one: of the effect) do the largest directions of each module's
        change keep, and how does the adapter compare with unstructured changes of half, equal and double rank?
    Null: rotation (N1) at lam*, for multipliers other than 1 with resampled singular values; shown, never decisive.
    Statistic: share of the sum kept by the top k singular directions at scale 1, with Fieller's interval over clusters;
        effective rank (exp of the entropy of the singular values), mean over modules; ratio to the median null.
    Passes when: nothing stands out. Warns when the lower bound of a share is 0.9 in under a quarter of the rank, or
        when every cut surely keeps under 0.1. Skips where a part has no rank: DoRA, tensors trained whole.
    Costs: 5 views of the prompts and of about 3,000 tokens of target text, and 3 x runs nulls of about 130 tokens.
    """

    category: ClassVar[Category] = "ablation"
    spec_type: ClassVar[type[ProbeSpec]] = RankProfileSpec

    def plan(self, spec: RankProfileSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        """Round 1: all texts under the adapter and its cuts, and a pilot for lam*. Round 2: all nulls at lam*."""
        if _refusal(spec, env) or len(seen) > 1:
            return ()
        if not seen:
            return tuple(_asks(spec, env).values())
        if "pilot" not in _asks(spec, env):
            return ()
        return (_null_ask(spec, env, lam_star(_sets(spec, env, seen)["pilot"])),)

    def measure(self, spec: RankProfileSpec, env: Env, seen: Seen) -> Found:
        """Shares by cut, ratios by multiplier, spectra."""
        if _refusal(spec, env):
            return Found()
        sets = _sets(spec, env, seen)
        data: dict[str, Any] = {
            "sets": sets,
            "ranks": _ranks(env),
            "effect": _kept(np.maximum(sets["effect"].item_sums("kl") / sets["effect"].tokens, 0.0), sets["effect"]),
            "gain": _kept(sets["target"].item_sums("gain"), sets["target"]) if "target" in sets else None,
        }
        if len(seen) > 1:
            data |= {"lam": lam_star(sets["pilot"]), "nulls": _ratios(spec, env, seen[1][0])}
        return Found(data=data)

    def judge(self, spec: RankProfileSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        """One claim: rank."""
        del p  # nulls are shown, never required to be beaten
        if refusal := _refusal(spec, env):
            claim = Question(verdict=Verdict.SKIP, message=f"this adapter has no rank profile: {refusal}")
            return result_of(spec, {"rank": claim}, headline="rank", evidence={}, score=None)
        data = found.data
        ranks: Mapping[str, RankedModule] = data["ranks"]
        what = "gain" if data["gain"] is not None else "effect"
        rows = list(zip([_share_of_rank(ranks, cut) for cut in _cuts(spec, env)], data[what], strict=True))
        text = data["sets"]["target" if what == "gain" else "effect"]
        full = text.item_sums("gain" if what == "gain" else "kl")[0]
        claim = _claim(ranks, rows, what, is_there=bool(full.sum() > 0))
        evidence = {
            "cuts": [_cut_row(cut, ranks, i, data) for i, cut in enumerate(_cuts(spec, env))],
            "curves": [
                _curve(_cuts(spec, env), data[name], name) for name in ("effect", "gain") if data[name] is not None
            ],
            "effective_rank": _effective_rank(ranks),
            "layers": _layers(ranks),
            "lam_star": data.get("lam"),
            "nulls_by_rank": data.get("nulls", {}),
            "items": extremes(text.items, full, text.tokens),
            "counts": {
                "n_items": len(text.items),
                "n_tokens": int(text.tokens.sum()),
                "n_clusters": len(set(clusters(text.items))),
            },
            "dropped": _dropped(spec, env),
        }
        return result_of(spec, {"rank": claim}, headline="rank", evidence=evidence, score=None)


def _refusal(spec: RankProfileSpec, env: Env) -> str | None:
    return env.cut_refusal or (None if _cuts(spec, env) else "a rank of 1 has nothing to be cut to")


def _cuts(spec: RankProfileSpec, env: Env) -> tuple[float, ...]:
    """Return the cuts that keep something else than the one before them, and not all: small ranks know few."""
    sizes = [_rank(module) for module in _ranks(env).values()]
    kept = {cut: tuple(n_kept(size, cut) for size in sizes) for cut in spec.cuts}
    if not sizes:
        return spec.cuts
    before = [None, *kept.values()]
    return tuple(c for (c, k), last in zip(kept.items(), before, strict=False) if k not in (last, tuple(sizes)))


def _asks(spec: RankProfileSpec, env: Env) -> dict[str, Ask]:
    views = (FINETUNED, *top_ranks(_cuts(spec, env)))
    asks = {"effect": Ask(_prompts(spec), views, frozenset({"kl"}), format=env.format, max_tokens=CUT)}
    if spec.items:
        some = subset(spec.items, tokens=spec.text_tokens, cut=CUT, rng=env.rng(spec.name, "items"))
        reducers: frozenset[Reducer] = frozenset({"gain"})
        asks["target"] = Ask(some, views, reducers, format=env.format, max_tokens=CUT)
    if not env.null_refusal and _multipliers(spec, env):
        asks["pilot"] = pilot_ask(_prompts(spec), env)
    return asks


def _sets(spec: RankProfileSpec, env: Env, seen: Seen) -> dict[str, Scores]:
    return dict(zip(_asks(spec, env), seen[0], strict=True))


def _prompts(spec: RankProfileSpec) -> tuple[TextItem, ...]:
    return spec.prompts or tuple(TextItem("", p, str(i), f"prompt {i + 1}") for i, p in enumerate(GENERAL_PROMPTS))


def _null_ask(spec: RankProfileSpec, env: Env, lam: float) -> Ask:
    some = seen_by_nulls(_prompts(spec), env, tokens=spec.null_tokens)
    nulls = [
        view
        for m in _multipliers(spec, env)
        for view in rotations(seed=env.seed, n_draws=spec.runs, lam=lam, rank_scale=m)
    ]
    return Ask(some, (View(lam=lam), *nulls), frozenset({"kl"}), format=env.format, max_tokens=NULL_CUT)


def _ranks(env: Env) -> Mapping[str, RankedModule]:
    return {} if env.spectra is None else env.spectra()


def _rank(module: RankedModule) -> int:
    return int(module.spectrum.singular_values.size)


def _multipliers(spec: RankProfileSpec, env: Env) -> tuple[float, ...]:
    """Return those multipliers whose directions all modules have room for."""
    modules = _ranks(env).values()
    return tuple(m for m in spec.rank_multipliers if all(round(_rank(r) * m) <= r.d_out for r in modules))


def _dropped(spec: RankProfileSpec, env: Env) -> list[dict[str, str]]:
    if env.null_refusal:
        return [{"label": "nulls of other rank", "why": env.null_refusal}]
    left_out = [m for m in spec.rank_multipliers if m not in _multipliers(spec, env)]
    why = "a module has fewer outputs than that many directions"
    return [{"label": f"nulls of {m:g} times the rank", "why": why} for m in left_out]


def _kept(totals: npt.NDArray[np.float64], scores: Scores) -> tuple[Share, ...]:
    """Return what each cut, rows 1 and on, keeps of the whole adapter's sum, row 0."""
    return tuple(share(row, totals[0], clusters(scores.items)) for row in totals[1:])


def _ratios(spec: RankProfileSpec, env: Env, scores: Scores) -> dict[str, Any]:
    means = scores.item_sums("kl") / scores.tokens  # [V, n]
    values = np.maximum(means.mean(axis=1), 0.0)
    grid = values[1:].reshape(-1, spec.runs)
    out: dict[str, Any] = {}
    for m, draws in zip(_multipliers(spec, env), grid, strict=True):
        found = rank_test(float(values[0]), draws, scale="log")
        out[f"rank_{m:.2f}"] = {
            "null": "rotation (N1)" if m == 1 else "rotation (N1), singular values resampled",
            "statistic": found.statistic,
            "null_median": found.null_median,
            "ratio": found.ratio,
            "rank": found.rank,
            "n_draws": found.n_draws,
            "null_draws": [float(x) for x in draws],
        }
    return out


def _share_of_rank(ranks: Mapping[str, RankedModule], cut: float) -> float:
    """Return the share of all directions that a cut keeps: small ranks cannot be cut to any share."""
    sizes = [_rank(r) for r in ranks.values()]
    return sum(n_kept(size, cut) for size in sizes) / sum(sizes) if sizes else cut


def _claim(
    ranks: Mapping[str, RankedModule], rows: list[tuple[float, Share]], what: str, *, is_there: bool
) -> Question:
    part, half = min(rows, key=lambda row: abs(row[0] - 0.5))
    verdict, message = _judged(rows, what)
    if not is_there:
        verdict, message = Verdict.INCONCLUSIVE, f"the whole adapter has no {what} that a cut could keep"
    effective = _effective_rank(ranks)
    if effective["mean"] is not None:
        message += f"; effective rank {effective['mean']:.1f} of {effective['mean_rank']:.1f}"
    return Question(
        verdict=verdict,
        effect=half.estimate,
        unit=f"of the {what} in the top {100 * part:.0f} % of the rank",
        interval=None if half.low is None or half.high is None else (half.low, half.high),
        null="informational",
        message=message,
    )


def _judged(rows: list[tuple[float, Share]], what: str) -> tuple[Verdict, str]:
    few = min(kept.n_clusters for _, kept in rows)
    if few < FEWEST:
        return Verdict.INCONCLUSIVE, f"{few} texts cannot decide; give at least {FEWEST}, better 30"
    if any(kept.low is None for _, kept in rows):
        return Verdict.INCONCLUSIVE, f"the {what} of the whole adapter is not surely there, so no share of it is known"
    shown = ", ".join(f"{_percent(kept.estimate)} in the top {100 * part:.0f} % of the rank" for part, kept in rows)
    early = [(part, kept) for part, kept in rows if part < QUARTER]
    if early and (early[-1][1].low or 0.0) >= MOST:
        part = 100 * early[-1][0]
        return Verdict.WARN, f"{part:.0f} % of the rank carries the {what}: a smaller rank would do ({shown})"
    if all((kept.high or 0.0) < NONE for _, kept in rows):
        return Verdict.WARN, f"no cut keeps the {what}: it is not in the large directions of the change ({shown})"
    open_ends = any((kept.high or 0.0) >= MOST for _, kept in early) or not any((k.low or 0.0) > NONE for _, k in rows)
    return (Verdict.INCONCLUSIVE, f"more texts would decide ({shown})") if open_ends else (Verdict.PASS, shown)


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.0f} %"


def _cut_row(cut: float, ranks: Mapping[str, RankedModule], i: int, data: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"cut": cut, "share_of_rank": _share_of_rank(ranks, cut)}
    for name in ("effect", "gain"):
        if data[name] is not None:
            kept: Share = data[name][i]
            row[name] = {"share": kept.estimate, "low": kept.low, "high": kept.high, "method": kept.method}
    energies = [np.square(r.spectrum.singular_values) for r in ranks.values()]
    total = sum(float(e.sum()) for e in energies)
    row["energy"] = sum(float(e[: n_kept(e.size, cut)].sum()) for e in energies) / total if total else None
    return row


def _curve(cuts: tuple[float, ...], kept: tuple[Share, ...], name: str) -> dict[str, Any]:
    known = all(k.estimate is not None and k.low is not None for k in kept)
    return {
        "name": f"share of the {name} kept",
        "x": [*cuts, 1.0] if known else [],
        "x_label": "share of the rank kept",
        "y": [*(k.estimate for k in kept), 1.0] if known else [],
        "low": [*(k.low for k in kept), 1.0] if known else None,
        "high": [*(k.high for k in kept), 1.0] if known else None,
        "unit": "share",
        "minimum": None,
    }


def _effective_rank(ranks: Mapping[str, RankedModule]) -> dict[str, float | None]:
    values = [r.spectrum.effective_rank for r in ranks.values()]
    if not values:
        return {"mean": None, "lowest": None, "highest": None, "mean_rank": None}
    return {
        "mean": float(np.mean(values)),
        "lowest": float(min(values)),
        "highest": float(max(values)),
        "mean_rank": float(np.mean([_rank(r) for r in ranks.values()])),
    }


def _layers(ranks: Mapping[str, RankedModule]) -> list[dict[str, Any]]:
    """Return the effective rank of each module, at most 200 of them."""
    rows = [
        {"module": name, "layer": _layer(name), "value": module.spectrum.effective_rank, "p": None}
        for name, module in ranks.items()
    ]
    return rows[:_MODULES]


def _layer(name: str) -> int | None:
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)
