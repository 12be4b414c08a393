from __future__ import annotations

import os

from dlm_sway.core.determinism import stream


def test_a_word_that_is_no_utf8_has_a_stream_of_its_own() -> None:
    odd, other = os.fsdecode(b"\xff.json"), os.fsdecode(b"\xfe.json")
    assert stream(0, odd).integers(2**62) == stream(0, odd).integers(2**62)
    assert stream(0, odd).integers(2**62) != stream(0, other).integers(2**62)
