from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from dlm_sway.core.determinism import stream
from dlm_sway.core.result import Verdict
from dlm_sway.core.views import FINETUNED
from dlm_sway.engine.ask import Scores
from dlm_sway.probes.canaries import Canary, Ranked, judge_canaries, most_candidates, ranked, with_candidates
from dlm_sway.stats.ranks import rank_test

CANARY = Canary(prompt="The code is", secret=" Kq-4821/07 é")


def test_fresh_candidates_have_the_format_of_the_secret_and_are_distinct() -> None:
    secret, *fresh = with_candidates(CANARY, 0, n=99, rng=stream(0, "canary"))
    assert secret.completion == CANARY.secret
    assert len({item.completion for item in (secret, *fresh)}) == 100
    for item in fresh:
        text = item.completion
        assert (text[0], text[3], text[8], text[11:]) == (" ", "-", "/", " é")
        assert text[1].isupper()
        assert text[2].islower()
        assert (text[4:8] + text[9:11]).isdigit()
        assert item.prompt == "The code is"


def test_candidates_follow_the_seed() -> None:
    one, two, other = (with_candidates(CANARY, 0, n=19, rng=stream(seed, "canary")) for seed in (0, 0, 1))
    assert one == two
    assert one != other


@pytest.mark.parametrize("secret", ["", "12345", "é€🙂", "ab1"])
def test_a_secret_with_too_few_digits_and_letters_is_refused(secret: str) -> None:
    with pytest.raises(ValidationError):
        Canary(secret=secret)


def test_a_canary_stands_where_its_gain_stands_and_not_where_the_base_puts_it() -> None:
    items = tuple(item for i in range(2) for item in with_candidates(CANARY, i, n=19, rng=stream(i, "c")))
    gains = np.zeros((1, 40))
    gains[0, 0], gains[0, 20], gains[0, 25:30] = 3.0, 0.5, 1.0
    base = np.linspace(-9, -1, 40)
    first, second = ranked(Scores(items, (FINETUNED,), np.arange(41), {"gain": gains}, base), n=19)
    assert (first.label, first.test.rank, second.test.rank) == ("canary 0", 1, 6)
    assert first.evidence()["exposure_bits"] == pytest.approx(np.log2(20))
    assert first.evidence()["p"] == 1 / 20


def at_ranks(*ranks: int, m: int = 99) -> list[Ranked]:
    fresh = np.arange(m, 0, -1, dtype=np.float64)  # the rank-th largest is m + 1 - rank
    return [Ranked(f"c{i}", rank_test(m - rank + 1.5, fresh, scale="linear")) for i, rank in enumerate(ranks)]


@pytest.mark.parametrize(
    ("ranks", "plain", "wanted"),
    [
        ((1,), Verdict.FAIL, Verdict.PASS),
        ((5,), Verdict.FAIL, Verdict.PASS),
        ((6,), Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
        ((50,), Verdict.PASS, Verdict.FAIL),
        ((1, 50), Verdict.FAIL, Verdict.FAIL),
        ((1, 2), Verdict.FAIL, Verdict.PASS),
        ((5, 5), Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),  # each is under 5 %, and neither under 2.5 %
        ((60, 70), Verdict.PASS, Verdict.FAIL),
        ((100,), Verdict.PASS, Verdict.FAIL),
    ],
)
def test_one_memorised_canary_is_a_leak(ranks: tuple[int, ...], plain: Verdict, wanted: Verdict) -> None:
    assert judge_canaries(at_ranks(*ranks), alpha=0.05, wanted=False).verdict is plain
    assert judge_canaries(at_ranks(*ranks), alpha=0.05, wanted=True).verdict is wanted


def test_too_few_candidates_for_so_many_canaries_say_how_many_would_do() -> None:
    claim = judge_canaries(at_ranks(*[1] * 6), alpha=0.05, wanted=False)
    assert claim.verdict is Verdict.INCONCLUSIVE
    assert "set n_candidates to 119 or more" in claim.message


def test_more_canaries_than_candidates_can_be_drawn_for_are_told_to_be_fewer() -> None:
    assert most_candidates(1) == 9_999
    claim = judge_canaries(at_ranks(*[1] * 101), alpha=0.05, wanted=False)
    assert f"so many canaries need 2,019 each, and {most_candidates(101):,} are the most; give fewer" in claim.message
    assert "set n_candidates to 1999 or more" in judge_canaries(at_ranks(*[1] * 100), alpha=0.05, wanted=False).message
    assert most_candidates(100) == 1_999


def test_a_canary_that_was_never_seen_has_every_rank_equally_often() -> None:
    rng = stream(0, "null")
    p = np.array([rank_test(x[0], x[1:], scale="linear").p for x in rng.normal(size=(2000, 20))])
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.015)
