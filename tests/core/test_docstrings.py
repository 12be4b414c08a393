from __future__ import annotations

from dlm_sway.core.docstrings import attributes


class Documented:
    """Something.

    Attributes:
        first: what it is,
            over two lines.
        second: another; with: a colon.

    Not part of it.
    """


def test_fields_are_what_the_docstring_says_of_them() -> None:
    assert attributes(Documented) == {"first": "what it is, over two lines.", "second": "another; with: a colon."}


def test_a_class_that_says_nothing_has_none() -> None:
    assert attributes(type("Bare", (), {})) == {}
