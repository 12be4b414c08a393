from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from dlm_sway.core.collection import collect_seldom, no_collection, spare_the_end


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    was_on, thresholds = gc.isenabled(), gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    (gc.enable if was_on else gc.disable)()


def test_nothing_is_collected_inside_and_all_is_as_before_after() -> None:
    gc.enable()
    with no_collection():
        assert not gc.isenabled()
        with no_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_inside_turns_it_on_again() -> None:
    gc.enable()
    with pytest.raises(ValueError, match="no such model"), no_collection():
        raise ValueError("no such model")
    assert gc.isenabled()


def test_who_turned_it_off_keeps_it_off() -> None:
    gc.disable()
    with no_collection():
        pass
    assert not gc.isenabled()


def test_a_process_that_ends_is_not_searched_for_garbage() -> None:
    before = gc.get_threshold()
    collect_seldom()
    assert gc.get_threshold() == (20_000, *before[1:])
    spare_the_end()
    assert len(gc.get_objects()) < gc.get_freeze_count()
