"""Does a backend keep the contract? One suite of checks for the backends here and for those of plugins.

In a test of your own:

    import pytest
    from dlm_sway.testing.backend_conformance import CHECKS, Subject

    SUBJECT = Subject(lambda: MyBackend(...))

    @pytest.mark.parametrize("check", CHECKS, ids=str)
    def test_it_keeps_the_contract(check):
        check.verify(SUBJECT)

`verify` raises AssertionError where the contract is broken, and `unittest.SkipTest`, which pytest shows as a skip,
where the backend cannot do what the check is about: the reason is named, and nothing passes unseen. `conformance`
returns all outcomes as data instead. What a plugin must offer at least is `DifferentialBackend`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final
from unittest import SkipTest

from dlm_sway.core.errors import SwayError
from dlm_sway.core.result import Verdict
from dlm_sway.testing import _bulk_checks, _score_checks, _view_checks

__all__ = ["CHECKS", "Check", "Outcome", "Subject", "conformance"]


@dataclass
class Subject:
    """A backend under test.

    Attributes:
        open: opens it anew; what it returns has `close`.
        texts: texts that its tokenizer reads, of several tokens each, within its context window.
        atol: how far two ways to the same number may differ, nats a token. Raise it for 16 bits.
        exact: whether the same view gives the same bytes again. A server that batches what others ask does not.
    """

    open: Callable[[], Any]
    texts: tuple[str, ...] = ("the bell is struck when the water falls", "a b c d e f g", "water, and the line below")
    atol: float = 2e-4
    exact: bool = True
    _opened: list[Any] = field(default_factory=list)

    @cached_property
    def backend(self) -> Any:
        """The backend that most checks share; opened once."""
        self._opened.append(self.open())
        return self._opened[0]

    def close(self) -> None:
        """Close the shared backend, if it was opened."""
        for backend in self._opened:
            backend.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found.

    Attributes:
        name: of the check.
        verdict: PASS, FAIL, SKIP, or ERROR where the backend raised something else.
        message: why not PASS; empty otherwise.
    """

    name: str
    verdict: Verdict
    message: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One rule of the contract.

    Attributes:
        name: the rule in a few words, as an identifier.
        rule: the rule as a sentence.
        run: raises as `verify` does.
    """

    name: str
    rule: str
    run: Callable[[Any], None]

    def __str__(self) -> str:
        """Return the name, which test runners show."""
        return self.name

    def verify(self, subject: Subject) -> None:
        """Return if the backend keeps the rule.

        Raises:
            AssertionError: it does not.
            unittest.SkipTest: it cannot do what the rule is about; the reason is named.
        """
        self.run(subject)

    def outcome(self, subject: Subject) -> Outcome:
        """Return what `verify` would raise, as data."""
        try:
            self.verify(subject)
        except SkipTest as reason:
            return Outcome(self.name, Verdict.SKIP, str(reason))
        except AssertionError as broken:
            return Outcome(self.name, Verdict.FAIL, f"{self.rule}: {broken}")
        except SwayError as error:
            return Outcome(self.name, Verdict.ERROR, f"{self.rule}: {error.one_line()}")
        except Exception as error:  # noqa: BLE001 (a plugin may raise what it likes, and the other checks go on)
            return Outcome(self.name, Verdict.ERROR, f"{self.rule}: {type(error).__name__}: {error}")
        return Outcome(self.name, Verdict.PASS)


def conformance(subject: Subject, checks: Sequence[Check] | None = None) -> tuple[Outcome, ...]:
    """Return an outcome a check, in order; one that fails does not stop the others."""
    return tuple(check.outcome(subject) for check in (CHECKS if checks is None else checks))


def _check(run: Callable[[Any], None]) -> Check:
    return Check(run.__name__, (run.__doc__ or run.__name__).strip().rstrip("."), run)


CHECKS: Final = tuple(map(_check, (*_view_checks.RULES, *_score_checks.RULES, *_bulk_checks.RULES)))
"""Every check, cheap ones first."""
