"""Looks at a training by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from dlm_sway.backends.base import Encoded
from dlm_sway.integrations.watch import Watch

LENGTH = 11


class Bench:
    """A model whose passes take a second a token, and a training that takes what it is told to."""

    def __init__(
        self, *, target: float = 0.5, elsewhere: float = -0.25, n: int = 40, share: float | None = 0.05
    ) -> None:
        self.now, self.passes, self.lift = 0.0, 0, {0: target, 1: elsewhere}
        texts = [[Encoded(np.full(LENGTH, kind), 1) for _ in range(n)] for kind in (0, 1)]
        self.watch = Watch(texts[0], texts[1], share=share, clock=lambda: self.now)
        self.watch.begin(lambda _: 1e-6)

    def score(self, texts: Sequence[Encoded], *, base: bool) -> list[npt.NDArray[np.float64]]:
        self.passes += len(texts)
        self.now += sum(len(text.ids) for text in texts)
        return [np.full(text.n_scored, -3.0 + (0.0 if base else self.lift[int(text.ids[0])])) for text in texts]

    def train(self, seconds: float) -> None:
        self.now += seconds


def test_a_look_tells_gain_harm_and_movement() -> None:
    bench = Bench(share=None)
    seen = bench.watch.look(7, bench.score)
    assert seen is not None
    assert (seen.step, seen.change, seen.moved) == (7, pytest.approx(0.5), True)
    assert seen.gain.estimate == pytest.approx(0.5)
    assert seen.harm.estimate == pytest.approx(0.25)
    assert (seen.gain.n_items, seen.harm.n_items) == (40, 40)
    assert seen.numbers()["sway/watch/harm"] == pytest.approx(0.25)
    assert "step 7: the adapter changed 0.5 nat/token; gain +0.500 [+0.500, +0.500] on target" in seen.line()


def test_an_adapter_that_says_the_same_has_not_moved() -> None:
    seen = (bench := Bench(target=0.0, share=None)).watch.look(1, bench.score)
    assert seen is not None
    assert not seen.moved
    assert "has not moved" in seen.line()


@pytest.mark.parametrize("lift", [np.nan, -np.inf])
@pytest.mark.parametrize("where", ["target", "elsewhere"])
def test_a_training_that_diverges_is_told_and_not_ended(where: str, lift: float) -> None:
    seen = (bench := Bench(**{where: lift}, share=None)).watch.look(3, bench.score)
    assert seen is not None
    assert "step 3: the model gives log-probs that are not finite" in seen.line()
    assert not seen.harmed(0.0) or where == "target"
    assert all(np.isfinite(value) for value in seen.numbers().values())
    assert "sway/watch/moved" not in seen.numbers()


def test_a_change_as_small_as_numerics_is_no_movement() -> None:
    seen = (bench := Bench(target=9e-6, share=None)).watch.look(1, bench.score)
    assert seen is not None
    assert not seen.moved


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_looks_stay_under_their_share_once_the_pace_is_known(share: float) -> None:
    bench = Bench(share=share)
    bench.train(10_000)
    for step in range(40):
        bench.train(700)
        bench.watch.look(step, bench.score)
    assert len(bench.watch.looks) > 4
    assert all(look.overhead <= share for look in bench.watch.looks)
    assert bench.watch.looks[-1].overhead > 0.5 * share


def test_a_look_that_has_no_time_yet_is_left_out_and_counted() -> None:
    bench = Bench()
    bench.train(5000)
    assert bench.watch.look(1, bench.score) is not None
    bench.train(1)
    assert bench.watch.look(2, bench.score) is None
    assert bench.watch.waited == 1


def test_more_time_reads_more_texts_and_target_and_elsewhere_alike() -> None:
    sizes = []
    for seconds in (6000, 18_000):
        bench = Bench()
        bench.train(seconds)
        seen = bench.watch.look(1, bench.score)
        assert seen is not None
        assert abs(seen.gain.n_items - seen.harm.n_items) <= 1
        sizes.append(seen.gain.n_items)
    assert sizes[1] >= 2 * sizes[0]


def test_the_base_is_asked_once_a_text() -> None:
    bench = Bench(share=None)
    for step in range(3):
        bench.watch.look(step, bench.score)
    assert bench.passes == 80 + 3 * 80


def test_harm_stops_only_by_the_whole_of_its_interval() -> None:
    seen = (bench := Bench(share=None)).watch.look(1, bench.score)
    assert seen is not None
    assert seen.harmed(0.2)
    assert not seen.harmed(0.25)
    alone = (bench := Bench(share=None, n=1)).watch.look(1, bench.score)
    assert alone is not None
    assert alone.harm.low is None
    assert not alone.harmed(0.0)


def test_the_same_seed_reads_the_same_texts_and_says_the_same() -> None:
    lines = []
    for _ in range(2):
        bench = Bench()
        bench.train(5000)
        seen = bench.watch.look(1, bench.score)
        lines.append("" if seen is None else seen.line())
    assert lines[0] == lines[1] != ""
