"""What is scored once, by content: never again, never for something else, never lost while it is needed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.errors import CannotRunError
from dlm_sway.core.store import MemoryStore, ResultStore
from dlm_sway.core.views import BASE, FINETUNED, View, rotations, scaled
from dlm_sway.engine.ask import Ask, Scores, TextItem
from dlm_sway.engine.cache import BASE_LOGPROB, ResultCache
from dlm_sway.engine.disk_store import DiskStore
from dlm_sway.engine.rows import Row
from dlm_sway.engine.run import Engine
from dlm_sway.engine.trace import TraceWriter
from dlm_sway.engine.trace_summary import read_trace
from dlm_sway.probes.base import RunContext, build_probe
from dlm_sway.probes.drive import drive

TEXTS = [" ".join(f"w{3 + (7 * i + j * j) % 90}" for j in range(6 + i)) for i in range(5)]
ITEMS = tuple(TextItem("", text, str(i), str(i)) for i, text in enumerate(TEXTS))
VIEWS = (FINETUNED, scaled(0.5), *rotations(seed=0, n_draws=3))


class Known(DummyBackend):
    """A dummy whose results may be kept."""

    def fingerprint(self, memo: ResultStore | None = None) -> str:  # noqa: ARG002 (part of the protocol)
        return self.options.model_dump_json(exclude={"forwards"})


def _known(**options: Any) -> Known:
    return Known(DummyOptions(**options))


def _ask(**parts: Any) -> Ask:
    return Ask(**{"items": ITEMS, "views": VIEWS, "reducers": frozenset({"kl", "gain"}), **parts})


def _same(a: Scores, b: Scores) -> bool:
    return np.array_equal(a.base_logprob, b.base_logprob) and all(
        np.array_equal(a.values[name], b.values[name]) for name in a.values
    )


def _close(a: Scores, b: Scores) -> bool:
    """Return whether two answers agree to the rounding that another shape of the batch makes."""
    return all(np.allclose(a.values[name], b.values[name], rtol=1e-5, atol=1e-6) for name in a.values)


def _row(*ids: int, first: int = 0, last: int = 1) -> Row:
    return Row(np.array(ids), first, np.array([*ids[first + 1 :], last]))


def test_what_a_round_scored_is_not_scored_in_the_next(tmp_path: Path) -> None:
    backend = _known()
    with TraceWriter(tmp_path / "t") as trace:
        engine = Engine(backend, trace=trace)
        first = engine.answer([_ask()])[0]
        done = backend.forwards_done
        assert _same(engine.answer([_ask()])[0], first)
        assert backend.forwards_done == done
        assert engine.cached_positions == first.tokens.sum() * (1 + len(VIEWS))
        engine.answer([_ask(reducers=frozenset({"kl", "top1"}))])
        assert backend.forwards_done > done
    found = read_trace(tmp_path / "t")
    assert found.total.hit == engine.cached_positions
    assert found.total.tokens == engine.view_tokens_done


def test_a_second_run_with_the_store_makes_no_pass(tmp_path: Path) -> None:
    with DiskStore(tmp_path) as store:
        first = Engine(_known(), store=store).answer([_ask()])[0]
    again = _known()
    with DiskStore(tmp_path) as store:
        engine = Engine(again, store=store)
        assert _same(engine.answer([_ask()])[0], first)
    assert again.forwards_done == 0
    assert engine.work()["view_tokens"] == 0
    assert engine.cached_positions == first.tokens.sum() * (1 + len(VIEWS))


@pytest.mark.parametrize("change", [{"seed": 1}, {"adapter_seed": 1}, {"strength": 2.0}, {"rank": 4}])
def test_another_model_or_adapter_shares_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    with DiskStore(tmp_path) as store:
        first = Engine(_known(), store=store).answer([_ask()])[0]
        other = _known(**change)
        engine = Engine(other, store=store)
        assert not _same(engine.answer([_ask()])[0], first)
        assert engine.cached_positions == 0
        assert _same(engine.answer([_ask()])[0], Engine(_known(**change)).answer([_ask()])[0])


def test_a_model_that_is_not_known_by_content_is_kept_in_memory_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with DiskStore(tmp_path) as store:
        engine = Engine(DummyBackend(), store=store)
        engine.answer([_ask()])
        engine.answer([_ask()])
        assert engine.cached_positions > 0
        assert store.info().entries == 0
        assert engine.kept.startswith("nothing is kept")
    assert [r.message for r in caplog.records] == [
        "results are not kept beyond this run: its files are unknown, or changed after loading"
    ]


def test_results_that_are_needed_stay_whatever_the_bound() -> None:
    forgetful = Engine(_known(), batch_tokens=8)
    forgetful._results = ResultCache(forgetful.backend, max_bytes=0)
    expected = Engine(_known(), batch_tokens=8).answer([_ask()])[0]
    assert _same(forgetful.answer([_ask()])[0], expected)
    assert _same(forgetful.answer([_ask()])[0], expected)
    assert forgetful.cached_positions == 0


class _Lossy(MemoryStore):
    """Loses some entries, and cuts some others short."""

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        found = super().get_many(keys)
        return {k: v[:-4] if k[0] % 4 == 1 else v for k, v in found.items() if k[0] % 4 != 0}


def test_results_that_are_lost_or_cut_short_are_scored_again() -> None:
    store = _Lossy(max_bytes=2**24)
    first = Engine(_known(), store=store).answer([_ask()])[0]
    again = _known()
    engine = Engine(again, store=store)
    assert _close(engine.answer([_ask()])[0], first)
    assert again.forwards_done > 0
    assert engine.cached_positions > 0


def test_a_number_that_is_not_finite_is_not_kept_for_other_runs() -> None:
    row, store = _row(3, 4), MemoryStore(max_bytes=2**16)
    cache = ResultCache(_known(), store)
    cache.recall([], path="p")
    grid = np.array([[1.0, np.nan], [1.0, 2.0]], dtype=np.float32)
    cache.keep([row], (FINETUNED, scaled(0.5)), {"kl": grid, BASE_LOGPROB: np.zeros(2, np.float32)})
    assert (row, FINETUNED, "kl") in cache
    later = ResultCache(_known(), store)
    later.recall([(row, (FINETUNED, scaled(0.5)), frozenset({"kl"}))], path="p")
    assert (row, FINETUNED, "kl") not in later
    assert (row, scaled(0.5), "kl") in later


def test_a_position_without_a_target_is_kept_with_its_nan() -> None:
    row, store = Row(np.array([3, 4]), 1, np.array([-1])), MemoryStore(max_bytes=2**16)
    cache = ResultCache(_known(), store)
    cache.recall([], path="p")
    nan = np.full((1, 1), np.nan, dtype=np.float32)
    cache.keep([row], (FINETUNED,), {"gain": nan, BASE_LOGPROB: nan[0]})
    later = ResultCache(_known(), store)
    assert later.recall([(row, (FINETUNED,), frozenset({"gain"}))], path="p") == 2
    assert np.isnan(later.get(row, FINETUNED, "gain")).all()


def test_a_run_that_stops_in_the_middle_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = _known()
    expected = Engine(whole, batch_tokens=8).answer([_ask()])[0]
    with DiskStore(tmp_path) as store:
        stopping = Engine(_known(forwards=whole.forwards_done // 2), batch_tokens=8, store=store)
        with pytest.raises(CannotRunError, match="gave up"):
            stopping.answer([_ask()])
    rest = _known()
    with DiskStore(tmp_path) as store:
        assert _close(Engine(rest, batch_tokens=8, store=store).answer([_ask()])[0], expected)
    one_pass = 1 + len(VIEWS)
    assert 0 < rest.forwards_done <= whole.forwards_done - 2 * one_pass


class _Interrupted(Known):
    """Meets Ctrl-C after sixty passes."""

    def _forward(self, *args: Any) -> Any:
        if self.forwards_done > 60:
            raise KeyboardInterrupt
        return super()._forward(*args)


class _Unknown(DummyBackend):
    """Meets Ctrl-C, and does not say what its numbers follow from."""

    def _forward(self, *args: Any) -> Any:
        if self.forwards_done > 60:
            raise KeyboardInterrupt
        return super()._forward(*args)


class _Changed(_Interrupted):
    """Has files that cannot be known."""

    def fingerprint(self, memo: ResultStore | None = None) -> str | None:  # type: ignore[override] # noqa: ARG002
        return None


@pytest.mark.parametrize(
    ("backend", "cache", "why"),
    [
        (_Unknown, False, "nothing is kept: this backend does not say what its numbers follow from, so a run begins"),
        (_Changed, True, "nothing is kept, since the model's files are unknown or the cache cannot be written"),
    ],
)
def test_a_run_that_can_keep_nothing_says_so_and_does_not_name_an_option(
    tmp_path: Path, backend: type[DummyBackend], cache: bool, why: str
) -> None:
    context = RunContext(backend=backend(), n_draws=19, cache=tmp_path if cache else None, batch_tokens=64)
    with pytest.raises(KeyboardInterrupt) as stopped:
        drive((build_probe({"name": "kl", "kind": "delta_kl"}),), context)
    assert stopped.value.__notes__[0].startswith(why)


def test_ctrl_c_says_what_is_kept(tmp_path: Path) -> None:
    notes = []
    for cache in (None, tmp_path):
        context = RunContext(backend=_Interrupted(), n_draws=19, cache=cache, batch_tokens=64)
        with pytest.raises(KeyboardInterrupt) as stopped:
            drive((build_probe({"name": "kl", "kind": "delta_kl"}),), context)
        notes += stopped.value.__notes__
    assert notes[0] == "nothing is kept; with --resume a run keeps what it has scored"
    assert notes[1].endswith(" view-tokens are kept: run again with --resume")
    done, planned = (int(word.replace(",", "")) for word in notes[1].split()[:3:2])
    assert 0 < done < planned


def test_a_second_suite_makes_passes_for_the_noise_floor_alone(tmp_path: Path) -> None:
    pairs = tuple(
        build_probe({"name": kind, "kind": kind}) for kind in ("null_adapter", "delta_kl", "external_perplexity")
    )
    results, forwards, lines = [], [], []
    for i in range(2):
        backend = _known()
        context = RunContext(backend=backend, n_draws=19, cache=tmp_path / "c", trace=tmp_path / f"{i}")
        driven = drive(pairs, context)
        results.append([r.model_dump_json(exclude={"duration_s"}) for r in driven.results])
        forwards.append(backend.forwards_done)
        lines.append([json.loads(line) for line in (tmp_path / f"{i}").read_text().splitlines()])
    floor = _known()
    drive((), RunContext(backend=floor))
    assert results[0] == results[1]
    assert forwards[1] == floor.forwards_done < forwards[0]
    assert {name for line in lines[0] for name in line["probes"]} == {"delta_kl", "external_perplexity", "null_adapter"}
    assert {line["path"] for line in lines[1]} == {"cache"}


_LAM = st.sampled_from([0.0, 0.5, 1.0, 1.25, 0.02])
_VIEWS = st.builds(
    View,
    st.sampled_from(["adapter", "rotation", "sign_flip", "gaussian", "top_rank"]),
    _LAM,
    st.integers(0, 2),
    st.integers(0, 2),
    _LAM,
    _LAM,
)


@settings(deadline=None)
@given(_VIEWS, _VIEWS, st.sampled_from(["kl", "gain"]), st.sampled_from(["kl", "gain"]))
def test_two_views_never_share_a_result(one: View, two: View, of_one: str, of_two: str) -> None:
    row, store = _row(3, 4, 5), MemoryStore(max_bytes=2**16)
    made = ResultCache(_known(), store)
    made.recall([], path="p")
    values = {of_one: np.ones((1, 3), np.float32), BASE_LOGPROB: np.zeros(3, np.float32)}
    made.keep([row], (one,), values)
    found = ResultCache(_known(), store)
    found.recall([(row, (two,), frozenset({of_two}))], path="p")
    assert ((row, two, of_two) in found) == ((one, of_one) == (two, of_two))


def test_a_scale_is_no_standard_deviation_and_no_rank() -> None:
    row, store = _row(3, 4), MemoryStore(max_bytes=2**16)
    plain = View("gaussian", lam=0.5, rank_scale=0.5, init_scale=0.5)
    made = ResultCache(_known(), store)
    made.recall([], path="p")
    made.keep([row], (plain,), {"kl": np.ones((1, 2), np.float32), BASE_LOGPROB: np.zeros(2, np.float32)})
    for field, value in itertools.product(("lam", "rank_scale", "init_scale"), (0.02, 1.0, 0.25)):
        other = replace(plain, **{field: value})
        cache = ResultCache(_known(), store)
        cache.recall([(row, (other,), frozenset({"kl"}))], path="p")
        assert (row, other, "kl") not in cache
        assert (row, BASE, BASE_LOGPROB) in cache


@pytest.mark.parametrize(
    ("row", "path"),
    [
        (_row(3, 4, 6), "p"),
        (_row(3, 4), "p"),
        (_row(3, 4, 5, last=2), "p"),
        (_row(3, 4, 5, first=1), "p"),
        (Row(np.array([3, 4, 5]), 0, np.array([4, 9, 1])), "p"),
        (_row(3, 4, 5), "q"),
    ],
)
def test_other_tokens_positions_targets_or_another_path_are_other_results(row: Row, path: str) -> None:
    store = MemoryStore(max_bytes=2**16)
    made = ResultCache(_known(), store)
    made.recall([], path="p")
    made.keep([_row(3, 4, 5)], (FINETUNED,), _values(3))
    found = ResultCache(_known(), store)
    assert found.recall([(row, (FINETUNED,), frozenset({"kl"}))], path=path) == 0
    assert found.recall([(_row(3, 4, 5), (FINETUNED,), frozenset({"kl"}))], path="p") == 6


def _values(n: int) -> Mapping[str, Any]:
    return {"kl": np.ones((1, n), np.float32), BASE_LOGPROB: np.zeros(n, np.float32)}
