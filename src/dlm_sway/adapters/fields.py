"""Typed reading of a JSON object: tolerant of what is absent, strict on what is there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from dlm_sway.core.errors import AdapterError


class Fields:
    """A JSON object whose values are asked for by type; null counts as absent.

    Every method raises AdapterError naming the key, the value found and what was expected.
    """

    def __init__(self, values: Mapping[str, Any], *, where: Path) -> None:
        """Keep the object and the file that it came from."""
        self._values = values
        self.where = where

    def is_set(self, key: str) -> bool:
        """Return whether the key has a value other than null, false and the empty ones."""
        return bool(self._values.get(key))

    def part(self, key: str) -> Fields:
        """Return an object inside this one; absent is empty."""
        value = self._values.get(key) or {}
        return Fields(value, where=self.where) if isinstance(value, dict) else self._refuse(key, "an object")

    def text(self, key: str) -> str | None:
        """Return a string, or None."""
        value = self._values.get(key)
        return value if value is None or isinstance(value, str) else self._refuse(key, "a string")

    def flag(self, key: str) -> bool:
        """Return a boolean; absent is False."""
        value = self._values.get(key)
        if value is None:
            return False
        return value if isinstance(value, bool) else self._refuse(key, "true or false")

    def flag_or_text(self, key: str, *, default: bool | str) -> bool | str:
        """Return a boolean or a string."""
        value = self._values.get(key)
        if value is None:
            return default
        return value if isinstance(value, bool | str) else self._refuse(key, "true, false or a string")

    def positive_integer(self, key: str, *, default: int) -> int:
        """Return an integer of at least 1."""
        value = self._values.get(key)
        if value is None:
            return default
        return value if _is_positive_integer(value) else self._refuse(key, "a whole number of at least 1")

    def number(self, key: str, *, default: float) -> float:
        """Return a finite number."""
        value = self._values.get(key)
        if value is None:
            return default
        return value if _is_number(value) else self._refuse(key, "a finite number")

    def names(self, key: str) -> tuple[str, ...]:
        """Return a list of strings, a lone string counting as a list of one; absent is empty."""
        found = self.names_or_pattern(key, is_regex=False)
        if found is None:
            return ()
        return (found,) if isinstance(found, str) else found

    def names_or_pattern(self, key: str, *, is_regex: bool = True) -> tuple[str, ...] | str | None:
        """Return a list of strings, or one string (checked to be a regular expression), or None."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            return self._compiled(key, value) if is_regex else value
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        return self._refuse(key, "a string or a list of strings")

    def patterns(self, key: str) -> tuple[str, ...]:
        """Return a list of regular expressions, a lone one counting as a list of one; absent and "" are empty."""
        # PEFT reads an empty pattern as none given; as an expression it would match no module.
        if self._values.get(key) == "":
            return ()
        return tuple(self._compiled(key, pattern) for pattern in self.names(key))

    def integers(self, key: str) -> tuple[int, ...] | None:
        """Return whole numbers, a lone one counting as a list of one, or None when absent or empty."""
        value = self._values.get(key)
        if value is None:
            return None
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
            return self._refuse(key, "a whole number or a list of them")
        return tuple(items) or None

    def integers_by_pattern(self, key: str) -> dict[str, int]:
        """Return an object from regular expressions to whole numbers of at least 1; absent is empty."""
        value = self._pattern_map(key)
        return value if all(map(_is_positive_integer, value.values())) else self._refuse(key, "names to whole numbers")

    def numbers_by_pattern(self, key: str) -> dict[str, float]:
        """Return an object from regular expressions to finite numbers; absent is empty."""
        value = self._pattern_map(key)
        return value if all(map(_is_number, value.values())) else self._refuse(key, "names to numbers")

    def _pattern_map(self, key: str) -> dict[str, Any]:
        value = self._values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            return self._refuse(key, "an object from names to numbers")
        for pattern in value:
            self._compiled(key, pattern)
        return value

    def _compiled(self, key: str, pattern: str) -> str:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise AdapterError(
                f"{key}: {_shown(pattern)} is no regular expression ({error})",
                where=self.where,
                remedy="restore the file that PEFT saved",
            ) from None
        return pattern

    def _refuse(self, key: str, expected: str) -> NoReturn:
        raise AdapterError(
            f"{key} is {_shown(self._values.get(key))}, not {expected}",
            where=self.where,
            remedy="restore the file that PEFT saved",
        )


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _shown(value: object, *, width: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= width else f"{text[:width]}..."
