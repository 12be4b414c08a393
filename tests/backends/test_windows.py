"""Windows over a sequence: each token scored once, with the context that the model has room for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm_sway.backends.windows import windows
from dlm_sway.core.errors import BadInputError


@settings(deadline=None)
@given(n_tokens=st.integers(0, 200), start=st.integers(1, 30), limit=st.integers(2, 64))
def test_each_token_from_the_start_on_is_scored_once_within_the_limit(n_tokens: int, start: int, limit: int) -> None:
    if start >= limit and start < n_tokens:
        with pytest.raises(BadInputError, match="shorten the prompt"):
            list(windows(n_tokens, start=start, limit=limit))
        return
    parts = list(windows(n_tokens, start=start, limit=limit))
    assert [i for w in parts for i in range(w.first, w.end + 1)] == list(range(start, n_tokens))
    for w in parts:
        assert 0 <= w.begin < w.first <= w.end < n_tokens
        assert w.end - w.begin <= limit


@settings(deadline=None)
@given(n_tokens=st.integers(2, 300), limit=st.integers(2, 64))
def test_no_later_token_is_scored_with_less_than_half_a_window(n_tokens: int, limit: int) -> None:
    first, *later = windows(n_tokens, start=1, limit=limit)
    assert first.begin == 0
    assert all(w.first - w.begin == limit // 2 for w in later)


def test_what_fits_is_one_window_and_its_last_token_is_not_read() -> None:
    (window,) = windows(17, start=1, limit=16)
    assert (window.begin, window.end, window.first) == (0, 16, 1)
    assert len(list(windows(18, start=1, limit=16))) == 2


def test_nothing_to_score_gives_no_window() -> None:
    assert list(windows(0, start=1, limit=8)) == []
    assert list(windows(1, start=1, limit=8)) == []
    assert list(windows(9, start=9, limit=8)) == []


def test_the_error_says_where() -> None:
    with pytest.raises(BadInputError, match=r"item 3: the prompt has 9 tokens and the model reads 8"):
        list(windows(10, start=9, limit=8, where="item 3"))
