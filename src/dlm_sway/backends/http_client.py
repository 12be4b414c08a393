"""JSON over HTTP to a server that may be slow, busy or broken: retried with patience, else one clear error.

The key is read from the environment by the caller, stands in one header, and is cut out of whatever a server says, so
that it cannot reach a report, a trace or a traceback.
"""

from __future__ import annotations

import json
import math
import string
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import quote, urljoin

import httpx
import tenacity

from dlm_sway.core.errors import BadInputError, CannotRunError

_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_LONGEST_WAIT_S: Final = 60.0
_SHOWN: Final = 200
_PATIENCE: Final = "see the server's log, or raise options.attempts"
_NOBODY: Final = "start the server, or check its address"
_SLOW: Final = "see the server's log, or raise options.timeout_s"
_LARGEST: Final = 256_000_000  # bytes; the log-probs of a vocabulary of 262,144 tokens are about a tenth of it


class _AgainError(Exception):
    """What may go better the next time.

    Args:
        what: as the error says it when no attempt is left.
        after_s: what the server asked to wait, or None.
        remedy: what to do then.
    """

    def __init__(self, what: str, after_s: float | None = None, *, remedy: str = _PATIENCE) -> None:
        self.what = what
        self.after_s = after_s
        self.remedy = remedy
        super().__init__(what)


@dataclass
class Budget:
    """How many tokens may be sent and received; shared by all clients of a backend.

    Attributes:
        limit: at most so many, or None.
        spent: so far.
    """

    limit: int | None = None
    spent: int = 0

    def __post_init__(self) -> None:
        """Make the lock that threads share."""
        self._lock = threading.Lock()

    def require(self) -> None:
        """Return if something is left.

        Raises:
            CannotRunError: the budget is spent.
        """
        if self.limit is not None and self.spent >= self.limit:
            raise CannotRunError(
                f"the token budget of {self.limit:,} is spent", remedy="raise options.token_budget, or ask less"
            )

    def spend(self, tokens: int) -> None:
        """Count tokens."""
        with self._lock:
            self.spent += tokens


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer that was read to its end; a traceback with locals shows its status alone, as the key may be in it."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    content: bytearray = field(repr=False)


class _InTime(httpx.SyncByteStream):  # type: ignore[misc]
    """A body as it comes over the wire, given up when its time is over: httpx bounds each read, and not their sum."""

    def __init__(self, body: Any, ends: float) -> None:
        self._body = body
        self._ends = ends

    def __iter__(self) -> Iterator[bytes]:
        for part in self._body:
            if time.monotonic() > self._ends:
                raise httpx.ReadTimeout("")
            yield part

    def close(self) -> None:
        self._body.close()


class HttpClient:
    """One server.

    Args:
        url: its address, without a path of a request.
        key: sent as a bearer token, or None.
        timeout_s: longest wait for an answer to one attempt; one that still trickles in then is given up.
        attempts: how often a request is tried in all.
        first_wait_s: before the second attempt; it doubles from there on, up to a minute.
    """

    def __init__(
        self, url: str, *, key: str | None = None, timeout_s: float = 60.0, attempts: int = 5, first_wait_s: float = 0.5
    ) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._wait = tenacity.wait_exponential(multiplier=first_wait_s, max=_LONGEST_WAIT_S)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._client = httpx.Client(timeout=timeout_s, headers=headers, follow_redirects=False)

    def __repr__(self) -> str:
        """Return the address alone."""
        return f"HttpClient({self.url!r})"

    def close(self) -> None:
        """Close all connections; calling it twice is harmless."""
        self._client.close()

    def get(self, path: str) -> Any:
        """Return the JSON at `path`, or None where the server has nothing there: an error or a web page, too.

        Raises:
            CannotRunError: the server cannot be reached, or fails on every attempt.
        """
        return self._persist("GET", path, None, absent=(400, 404, 405, 501))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the JSON that the server answers to `body`.

        Raises:
            BadInputError: the server refuses the request, the key or the model.
            CannotRunError: the server cannot be reached, or fails on every attempt.
        """
        return self._persist("POST", path, body, absent=())

    def offers(self, path: str, body: dict[str, Any]) -> Any:
        """Return the answer, or None where the server has no such path or does not take such a body."""
        return self._persist("POST", path, body, absent=(400, 404, 405, 415, 422, 501))

    def _persist(self, method: str, path: str, body: dict[str, Any] | None, *, absent: tuple[int, ...]) -> Any:
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._attempts),
            retry=tenacity.retry_if_exception_type(_AgainError),
            wait=self._pause,
            reraise=True,
        )
        try:
            return retrying(self._once, method, path, body, absent)
        except _AgainError as failed:
            tried = "" if self._attempts == 1 else f", {self._attempts} times"
            what, remedy = f"{failed.what}{tried}", failed.remedy
        # Outside the except block: no traceback of what was sent hangs on it.
        raise CannotRunError(what, where=f"{self.url}{path}", remedy=remedy)

    def _pause(self, state: tenacity.RetryCallState) -> float:
        failed = state.outcome.exception() if state.outcome else None
        asked = failed.after_s if isinstance(failed, _AgainError) else None
        return min(_LONGEST_WAIT_S, max(float(self._wait(state)), asked or 0.0))

    def _once(self, method: str, path: str, body: dict[str, Any] | None, absent: tuple[int, ...]) -> Any:
        what, remedy = "", _PATIENCE
        try:
            answer = self._answer(method, f"{self.url}{path}", body)
        except httpx.TimeoutException:
            what, remedy = f"no answer within {self._timeout_s:g} s", _SLOW
        except httpx.InvalidURL:
            raise BadInputError("is no address of a server", where=self.url) from None
        except httpx.HTTPError as broken:
            what = f"the connection failed ({type(broken).__name__})"
            remedy = _NOBODY if isinstance(broken, httpx.ConnectError) else _PATIENCE
        if what:
            raise _AgainError(what, remedy=remedy)
        if answer.status in absent:
            return None
        if answer.status in _BUSY:
            raise _AgainError(f"the server answers {answer.status}", _retry_after(answer.headers))
        if answer.status != httpx.codes.OK:
            self._refused(answer, path)
        return self._read(answer, path, may_be_absent=bool(absent))

    def _read(self, answer: _Answer, path: str, *, may_be_absent: bool) -> Any:
        if may_be_absent and answer.headers.get("content-type", "").startswith("text/html"):
            return None  # the page of a web interface, which answers to any path
        try:
            found = json.loads(answer.content)
        except (ValueError, RecursionError):
            raise _AgainError("the answer is no JSON, or was cut") from None
        if not _is_error(found):
            return found
        if may_be_absent:
            return None  # LM Studio says 200 to a path that it does not have
        raise CannotRunError(f"the server answers with an error{self._said(answer.content)}", where=f"{self.url}{path}")

    def _answer(self, method: str, url: str, body: dict[str, Any] | None) -> _Answer:
        ends = time.monotonic() + self._timeout_s
        content = bytearray()
        with self._client.stream(method, url, json=body) as response:
            response.stream = _InTime(response.stream, ends)
            for part in response.iter_bytes():
                content += part
                if len(content) > _LARGEST:
                    what = f"the answer is larger than {_LARGEST:,} bytes"
                    raise CannotRunError(what, where=url, remedy="lower options.top_k, or see the server's log")
        return _Answer(response.status_code, response.headers, content)

    def _refused(self, answer: _Answer, path: str) -> NoReturn:
        status, said = answer.status, self._said(answer.content)
        where = f"{self.url}{path}"
        if status in (401, 403):
            remedy = "put the key into an environment variable, and its name into options.api_key_env"
            raise BadInputError(f"the server refuses the key ({status}){said}", where=where, remedy=remedy)
        if status == httpx.codes.NOT_FOUND:
            raise BadInputError(f"not found{said}", where=where, remedy="check the address and options.model")
        if httpx.codes.is_redirect(status) and (there := self._there(answer, where)):
            what = f"the server answers {status} and sends on to {_in_line(there)}, which is not followed"
            raise BadInputError(what, where=where, remedy=_instead(there, path, here=self.url))
        raise BadInputError(f"the server refuses the request ({status}){said}", where=where)

    def _there(self, answer: _Answer, where: str) -> str | None:
        """Return the address that an answer names in the place of `where`, or None where it names none."""
        named = self._clean(answer.headers.get("location", ""))
        try:
            return urljoin(where, named) if named else None
        except ValueError:
            return named

    def _said(self, content: bytearray) -> str:
        try:
            found = json.loads(content)
            error = found.get("error", found) if isinstance(found, dict) else found
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        except (ValueError, RecursionError):
            text = content.decode(errors="replace")
        flat = " ".join(self._clean(text).split())[:_SHOWN]
        return f": {flat}" if flat else ""

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _in_line(address: str) -> str:
    """Return an address that a server named as what is safe to print, and not too long."""
    escaped = quote(address, safe=string.punctuation, errors="replace")
    return escaped if len(escaped) <= _SHOWN else f"{escaped[:_SHOWN]}..."


def _instead(there: str, path: str, *, here: str) -> str:
    """Return what to do where the request for `path` of the server at `here` is answered with an address."""
    base = there.rstrip("/").removesuffix(path)
    if base == here:
        return "see the server's log: it answers at no address without sending on"
    whole = base != there.rstrip("/") and "?" not in base  # a page to log in may name the path in its query
    named = _in_line(base) if whole else "that"
    return f"give {named} as the base URL{'' if whole else ', if it is there that the model is served'}"


def _is_error(found: Any) -> bool:
    """Return whether an answer is an error in spite of its status, as LM Studio and OpenRouter send it."""
    return isinstance(found, dict) and bool(found.get("error")) and not found.keys() & {"choices", "content"}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        asked = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return asked if math.isfinite(asked) and asked >= 0 else None
