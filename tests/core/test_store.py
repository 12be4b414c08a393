from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.core.store import _OVERHEAD, MemoryStore

KEYS = st.binary(min_size=1, max_size=4)


def _key(i: int) -> bytes:
    return i.to_bytes(4, "big")


def _of(n: int, *, size: int = 6) -> MemoryStore:
    """Return a store with room for exactly `n` entries of four bytes of key and `size` of value."""
    return MemoryStore(max_bytes=n * (4 + size + _OVERHEAD))


def test_what_was_not_used_for_longest_makes_room() -> None:
    store = _of(2)
    store.put_many({_key(0): b"a" * 6, _key(1): b"b" * 6})
    store.get_many([_key(0)])
    store.put_many({_key(2): b"c" * 6})
    assert store.get_many([_key(0), _key(1), _key(2)]) == {_key(0): b"a" * 6, _key(2): b"c" * 6}


def test_an_entry_larger_than_the_bound_costs_the_others_nothing() -> None:
    store = _of(1)
    store.put_many({_key(0): b"a" * 6})
    assert not store.put_many({_key(1): b"b" * 7})
    assert store.get_many([_key(0), _key(1)]) == {_key(0): b"a" * 6}


def test_an_entry_put_again_is_counted_once() -> None:
    store = _of(2)
    for _ in range(5):
        assert store.put_many({_key(0): b"a" * 6})
    assert store.put_many({_key(1): b"b" * 6})
    assert len(store) == 2


@settings(deadline=None)
@given(st.lists(st.dictionaries(KEYS, st.binary(max_size=300), max_size=8), max_size=12), st.integers(0, 2000))
def test_the_bound_holds_and_what_is_found_is_what_was_put_last(puts: list[dict[bytes, bytes]], bound: int) -> None:
    store, last = MemoryStore(max_bytes=bound), {}
    for entries in puts:
        store.put_many(entries)
        last |= {k: v for k, v in entries.items() if len(k) + len(v) + _OVERHEAD <= bound}
        found = store.get_many(last)
        assert sum(len(k) + len(v) + _OVERHEAD for k, v in found.items()) <= bound
        assert found.items() <= last.items()
        assert len(found) == len(store)
