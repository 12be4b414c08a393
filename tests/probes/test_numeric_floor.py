from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.result import Verdict
from dlm_sway.core.views import View
from dlm_sway.probes.drive import Driven

Drive = Callable[..., Driven]
FLOOR = {"kind": "numeric_floor"}


class Wobbling(DummyBackend):
    """A dummy whose first logit depends on the size of the batch, as rounding does on a real machine."""

    def logits(self, ids: npt.NDArray[np.int64], keep: npt.NDArray[np.int64], view: View) -> npt.NDArray[np.float32]:
        found = super().logits(ids, keep, view)
        found[:, 0] += 0.1 * (len(ids) > 1)
        return found


@pytest.mark.healthy_pair
def test_a_machine_that_does_not_round_by_the_batch_has_no_floor(driven: Drive) -> None:
    found = driven({}, FLOOR)
    assert (found.floor.max_kl, found.floor.median_kl, found.floor.max_logprob) == (0.0, 0.0, 0.0)
    assert (found.results[0].verdict, found.results[0].raw) == (Verdict.SKIP, 0.0)


def test_the_floor_is_how_far_the_base_is_from_itself_in_another_batch(driven: Drive) -> None:
    found = driven(Wobbling(), FLOOR)
    assert 0 < found.floor.median_kl < found.floor.max_kl < 0.01
    assert 0 < found.floor.max_logprob <= 0.1 + 1e-5
    result = found.results[0]
    assert result.raw == found.floor.max_kl
    assert result.message == (
        f"numeric floor: KL {found.floor.max_kl:.2e} nat/position; effects count from ten times that"
    )


@pytest.mark.parametrize(("strength", "verdict"), [(0.02, Verdict.FAIL), (0.3, Verdict.PASS)])
@pytest.mark.planted_fault
def test_an_effect_counts_from_ten_times_the_floor(driven: Drive, strength: float, verdict: Verdict) -> None:
    found = driven(Wobbling(DummyOptions(strength=strength)), {"kind": "delta_kl"})
    claim = found.results[0].evidence["claims"]["applied"]
    assert claim["verdict"] == verdict
    assert (claim["effect"] > 10 * found.floor.max_kl) == (verdict is Verdict.PASS)
    assert claim["effect"] > 0
