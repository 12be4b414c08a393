from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.probes import style_features, style_fingerprint
from dlm_sway.probes.base import build_probe
from dlm_sway.probes.style_features import NAMES, features, measurer, windows
from dlm_sway.probes.style_shift import Shift, differ, shift

Run = Callable[..., ProbeResult]
KIND = style_fingerprint.StyleFingerprint.kind
PROMPTS = tuple(f"prompt {i}" for i in range(12))
NOUNS = ("harbour", "bell", "tide", "water", "stone", "rope", "boat", "lamp", "keeper", "gull", "wall", "gate")


def text(style: str, n_words: int, *seed: int | str) -> str:
    """Return a text: `terse` sentences of about 4 words, `long` ones of about 16 with commas and articles, or `odd`."""
    rng, out = stream("style", *seed), ""
    length = {"terse": 4, "long": 16, "odd": 4}[style]
    while len(style_features._WORD.findall(out)) < n_words:
        words = [str(w) for w in rng.choice(NOUNS, max(2, int(rng.poisson(length))))]
        if style == "long":
            words = [w for noun in words[::2] for w in ("the", f"{noun},")]
        if style == "odd":
            words = [f'"you{w}{w}{w}?!"' for w in words]
        out += " ".join(words) + ". "
    return out


def script(style: str, who: str, n_words: int = 60) -> dict[str, Any]:
    return {p: tuple(text(style, n_words, who, p, k) for k in range(2)) for p in PROMPTS}


def asked(ran: Run, base: dict[str, Any], finetuned: dict[str, Any], **spec: Any) -> ProbeResult:
    given = {
        "kind": KIND,
        "prompts": PROMPTS,
        "reference": text("long", 900, "reference"),
        "max_new_tokens": 500,
        **spec,
    }
    return ran({"script": {"base": base, "adapter": finetuned}}, **given)


def test_pieces_have_equally_many_words_and_lose_none_but_the_last() -> None:
    pieces = windows("One two, three. Four (five) six! Seven", 3)
    assert pieces == ["One two, three. ", "Four (five) six! "]
    assert windows("one two three", 3) == ["one two three"]
    assert windows("", 3) == windows("one two", 3) == windows("?! --", 3) == []


def test_features_count_what_they_say() -> None:
    found = dict(zip(NAMES, features("The bell rings, and the gull cries. Do you hear it?"), strict=True))
    assert found["log sentence length"] == pytest.approx(np.log(11 / 2))
    assert found["word length"] == pytest.approx(38 / 11)
    assert found["type-token ratio"] == pytest.approx(10 / 11)
    assert found["commas"] == pytest.approx(1 / 11)
    assert found["questions and exclamations"] == pytest.approx(1 / 11)
    assert found["articles"] == pytest.approx(2 / 11)
    assert found["second person"] == pytest.approx(1 / 11)
    assert np.isfinite(features("")).all()


@pytest.mark.healthy_pair
def test_a_fine_tune_that_took_on_the_style_passes(ran: Run) -> None:
    result = asked(ran, script("terse", "base"), script("long", "ft"))
    assert result.verdict is Verdict.PASS
    assert result.raw == pytest.approx(1.0, abs=0.1)
    assert result.evidence["aside"] < 0.3
    row = result.evidence["features"]["articles"]
    assert abs(row["reference"] - row["finetuned"]) < 0.3 * row["reference"]


@pytest.mark.parametrize("style", ["terse", "odd"])
@pytest.mark.planted_fault
def test_a_fine_tune_that_did_not_fails(ran: Run, style: str) -> None:
    result = asked(ran, script("terse", "base"), script(style, "ft"))
    assert result.verdict is Verdict.FAIL
    assert abs(result.raw) < 0.25 if style == "terse" else result.raw < 0.25
    if style == "odd":
        assert result.evidence["claims"]["aside"]["verdict"] == "warn"


def test_a_reference_that_is_how_the_base_writes_is_inconclusive(ran: Run) -> None:
    result = asked(ran, script("long", "base"), script("terse", "ft"))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "the reference is not told from what the base writes" in result.message


def test_empty_and_short_texts_are_counted_apart(ran: Run) -> None:
    silent = script("long", "ft") | {PROMPTS[0]: "", PROMPTS[1]: "two words"}
    result = asked(ran, script("terse", "base"), silent)
    assert result.verdict is Verdict.PASS
    assert (result.evidence["n_items"], result.evidence["empty_texts"]) == (10, [0, 2])
    assert [d["reason"] for d in result.evidence["dropped"]] == [
        "the fine-tune writes nothing",
        "the fine-tune writes fewer than 40 words",
    ]
    nothing = asked(ran, script("terse", "base"), {"": ""})
    assert nothing.verdict is Verdict.INCONCLUSIVE
    assert "0 of 12 prompts have text to compare (12 where the fine-tune writes nothing)" in nothing.message


def test_a_short_reference_is_inconclusive_and_asks_the_model_nothing(ran: Run) -> None:
    result = asked(ran, {}, {}, reference="a few words")
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "the reference has 0 pieces of 40 words; give at least 400 words" in result.message
    assert "has 9 pieces of" in asked(ran, {}, {}, reference=text("long", 360, "reference")).message


def test_prompts_given_twice_are_one(ran: Run) -> None:
    result = asked(ran, script("terse", "base"), script("long", "ft"), prompts=PROMPTS * 2)
    assert result.evidence["n_items"] == 12
    with pytest.raises(BadInputError, match="reference"):
        build_probe({"name": "x", "kind": KIND, "reference": []})


def test_readability_needs_its_extra(ran: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "textstat":
            raise ModuleNotFoundError(name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    result = asked(ran, script("terse", "base"), script("long", "ft"), readability=True)
    assert (result.verdict, result.score) == (Verdict.SKIP, None)
    assert "readability needs textstat, which is not installed; pip install" in result.message


def test_readability_adds_three_scores() -> None:
    pytest.importorskip("textstat", reason="the extra `style` is not installed")
    found = measurer(readability=True)([text("long", 60, 1)])
    assert found.shape == (1, len(NAMES) + 3)
    assert np.isfinite(found).all()


def _styles(rng: np.random.Generator, n: int, *, along: float) -> tuple[np.ndarray[Any, Any], ...]:
    k, way = len(NAMES), 0.5
    reference, spread = rng.normal(way, 1, (40, k)), rng.normal(0, 1, (3 * n, k))
    base, finetuned = rng.normal(0, 0.6, (n, k)), rng.normal(along * way, 0.6, (n, k))
    return reference, base, finetuned, spread


def test_the_noise_of_the_base_does_not_count_as_a_move_toward_the_reference() -> None:
    rng, seen, plain = np.random.default_rng(0), {}, []
    for along in (0.0, 0.5):
        moved = []
        for _ in range(200):
            reference, base, finetuned, spread = _styles(rng, 10, along=along)
            found = shift(reference, base, finetuned, smallest_sd=np.full(len(NAMES), 0.1), spread=spread)
            assert found.along is not None
            moved.append(found.along.mean())
            way = reference.mean(0) - base.mean(0)
            plain += [(finetuned - base).mean(0) @ way / (way @ way)] if along == 0 else []
        seen[along] = float(np.mean(moved))
    assert np.mean(plain) > 0.08  # what the same base text on both sides would make of no move at all
    assert -0.06 < seen[0.0] < 0.02
    assert seen[0.5] == pytest.approx(0.5, abs=0.06)


def test_pieces_of_one_style_are_told_apart_no_more_often_than_alpha() -> None:
    rng = np.random.default_rng(1)
    p = np.array(
        [
            differ(*(rng.normal(size=(12, 5)) for _ in range(2)), smallest_sd=np.full(5, 0.1), rng=rng, n_labellings=99)
            for _ in range(300)
        ]
    )
    assert 0.02 < (p <= 0.05).mean() < 0.09
    apart = differ(rng.normal(1, 1, (12, 5)), rng.normal(0, 1, (12, 5)), smallest_sd=np.full(5, 0.1), rng=rng)
    assert apart < 0.05


def _mixed(seed: int, pieces: int, *, along: float, n: int = 32, k: int = 20) -> Shift:
    """Return the shift between styles three standard deviations apart, by so many pieces of the reference."""
    rng, way = np.random.default_rng(seed), 3 / np.sqrt(20)
    reference = way + rng.standard_normal((pieces, k))
    base, finetuned = rng.standard_normal((n, 3, k)), along * way + rng.standard_normal((n, 3, k))
    spread = base.reshape(-1, k)
    return shift(reference, base.mean(1), finetuned.mean(1), smallest_sd=np.full(k, 1e-3), spread=spread)


@pytest.mark.parametrize("pieces", [10, 15, 40])
@pytest.mark.parametrize("along", [0.25, 1.0])
def test_the_interval_knows_that_the_reference_is_a_sample(pieces: int, along: float) -> None:
    found = [_mixed(seed, pieces, along=along).share for seed in range(300)]
    missed = [s.low > along or s.high < along for s in found if s.low is not None]
    assert np.mean(missed) < 0.05 + 0.03
    assert len(missed) > 0.9 * len(found)


def test_the_share_is_the_mean_over_prompts_and_so_are_those_without_one() -> None:
    rng = np.random.default_rng(0)
    reference, base, finetuned, spread = _styles(rng, 8, along=0.5)
    options = {"smallest_sd": np.full(len(NAMES), 0.1), "spread": spread}
    found = shift(reference, base, finetuned, **options)
    assert found.share.estimate == pytest.approx(found.along.mean())
    rows = [shift(np.delete(reference, i, 0), base, finetuned, **options).along.mean() for i in range(40)]
    by_pieces = np.sqrt(39 / 40 * ((np.array(rows) - np.mean(rows)) ** 2).sum())
    rows = [
        shift(reference, np.delete(base, i, 0), np.delete(finetuned, i, 0), **options).along.mean() for i in range(8)
    ]
    by_prompts = np.sqrt(7 / 8 * ((np.array(rows) - np.mean(rows)) ** 2).sum())
    assert found.share.se_by_sample == pytest.approx((by_prompts, by_pieces), rel=0.15)


def test_an_open_answer_asks_for_what_is_short(ran: Run) -> None:
    half = {p: (text("long", 60, "ft", p), text("terse", 60, "ft", p)) for p in PROMPTS}
    result = asked(ran, script("terse", "base"), half, min_along=0.55, reference=text("long", 420, "reference"))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "12 prompts and 10 pieces of the reference do not decide; about " in result.message
    assert result.message.endswith((" prompts would", " words of it would"))
    assert set(result.evidence["se_by"]) == {"prompts", "reference"}


def test_a_reference_given_again_is_no_more_reference(ran: Run) -> None:
    part = text("long", 42, "reference")
    result = asked(ran, script("terse", "base"), script("long", "ft"), reference=[part] * 20)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "the reference has 1 pieces of 40 words" in result.message
    assert [row["reason"] for row in result.evidence["dropped"]] == ["given before"] * 19
