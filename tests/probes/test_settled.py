from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.probes.base import Env, Found, NullTest, ProbeSpec
from dlm_sway.probes.claims import null_evidence
from dlm_sway.probes.directional import directional
from dlm_sway.probes.settled import settled
from dlm_sway.stats.paired import gain


class Judge:
    """Judges by p alone, unless its effect is too small anyway."""

    def __init__(self, *, big_enough: bool = True) -> None:
        self.big_enough = big_enough

    def at_end(self, found: Found, *, above: bool) -> Found:  # noqa: ARG002 (as probes have it)
        return found

    def judge(self, spec: ProbeSpec, env: Env, found: Found, p: Any) -> ProbeResult:  # noqa: ARG002 (as above)
        passes = self.big_enough and all(p[t.name] <= env.alpha for t in found.tests)
        return ProbeResult(name="x", kind="x", verdict=Verdict.PASS if passes else Verdict.FAIL)


def _settled(*beaten_by: int, m: int = 19, most: int = 39, judge: Any = None) -> bool:
    tests = tuple(
        NullTest(f"t{i}", 0.0, np.where(np.arange(m) < k, 1.0, -1.0), "linear") for i, k in enumerate(beaten_by)
    )
    measured = (judge or Judge(), ProbeSpec(name="x", kind="x"), Env(), Found(tests))
    return settled([measured], n_draws=most)


@pytest.mark.parametrize(
    ("beaten_by", "most", "done"), [(0, 39, False), (1, 39, False), (2, 39, True), (4, 99, False), (5, 99, True)]
)
def test_a_test_is_decided_once_it_was_beaten_too_often(beaten_by: int, most: int, *, done: bool) -> None:
    assert _settled(beaten_by, most=most) is done


def test_one_test_that_is_open_keeps_the_probe_open() -> None:
    assert _settled(0, m=19) is False
    assert _settled(0, 5) is True  # the other has failed, and with it the probe


def test_a_verdict_that_the_null_has_no_part_in_is_decided() -> None:
    assert _settled(0, judge=Judge(big_enough=False)) is True
    spec = ProbeSpec(name="x", kind="x")
    for found in (None, Found()):
        open_probe: Any = (Judge(), spec, Env(), found)
        assert settled([open_probe], n_draws=99) is True


class Directional:
    """Judges as probes of a signed effect do: a raw p from which random directions do as well, and an adjusted one."""

    def at_end(self, found: Found, *, above: bool) -> Found:  # noqa: ARG002 (as probes have it)
        return found

    def judge(self, spec: ProbeSpec, env: Env, found: Found, p: Any) -> ProbeResult:  # noqa: ARG002 (as above)
        (test,) = found.tests
        effect = gain(np.full(30, 0.7) + 0.1 * np.arange(30) % 3, np.ones(30, dtype=int), rng=np.random.default_rng(0))
        verdict, _ = directional(effect, 0.1, null_evidence(test, p[test.name]), env, units="prompts")
        return ProbeResult(name="x", kind="x", verdict=verdict)


def test_where_the_rank_itself_decides_stopping_gives_the_verdict_of_all_draws() -> None:
    rng = np.random.default_rng(0)
    probe, spec, env = Directional(), ProbeSpec(name="x", kind="x"), Env()
    stopped: list[Verdict] = []
    for _ in range(300):
        draws, real = rng.normal(size=99), rng.choice([0.9, 0.0, 3.0])

        def judged(m: int, real: float = real, draws: Any = draws) -> tuple[Any, Verdict]:
            test = NullTest("t", real, draws[:m], "linear")
            p = {"t": (1 + np.count_nonzero(draws[:m] >= real)) / (m + 1)}
            return (probe, spec, env, Found((test,))), probe.judge(spec, env, Found((test,)), p).verdict

        for m in (19, 39):
            measured, verdict = judged(m)
            if settled([measured], n_draws=99):
                assert verdict is judged(99)[1]
                stopped.append(verdict)
                break
    assert stopped.count(Verdict.FAIL) > 50


def test_stopping_never_gives_another_verdict_than_all_draws() -> None:
    rng = np.random.default_rng(0)
    stopped = 0
    for _ in range(2000):
        draws = rng.normal(size=99)
        real = rng.normal() + rng.choice([0.0, 2.0])
        for m in (19, 39):
            tests = (NullTest("t", real, draws[:m], "linear"),)
            measured: Any = (Judge(), ProbeSpec(name="x", kind="x"), Env(), Found(tests))
            if settled([measured], n_draws=99):
                stopped += 1
                assert (1 + (draws >= real).sum()) / 100 > 0.05
                break
    assert stopped > 500
