"""Models behind HTTP: each dialect gives the model's own numbers, bounds are bounds, and faults end well."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from tests.backends.api_servers import backend_on
from tests.fake_server import Dialect, FakeServer, busy, die, fake_server, hang, logprobs, malformed
from tests.models import byte_tokenizer

from dlm_sway.backends.registry import open_backend
from dlm_sway.core.errors import BadInputError, CannotRunError, NullRuleError
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.result import Verdict
from dlm_sway.core.scoring import NullCalibratedBackend, ScalableDifferentialBackend
from dlm_sway.core.views import BASE, FINETUNED, View, scaled
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.floor import measure_floor
from dlm_sway.engine.run import Engine
from dlm_sway.probes.base import RunContext, build_probe
from dlm_sway.probes.drive import drive
from dlm_sway.testing.backend_conformance import CHECKS, Check, Subject

TEXT = "the bell is struck when the water falls"
DIALECTS: tuple[Dialect, ...] = ("llama.cpp", "echo", "next")
ITEMS = tuple(TextItem("", text, str(i), str(i)) for i, text in enumerate((TEXT, "a b c d e f g", "water, and")))


@pytest.fixture(params=DIALECTS)
def server(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    """A healthy server of each dialect."""
    with fake_server(request.param) as running:
        yield running


@pytest.fixture
def native() -> Iterator[FakeServer]:
    """A llama.cpp server."""
    with fake_server("llama.cpp") as running:
        yield running


def expected(ids: np.ndarray, lam: float) -> np.ndarray:
    return np.array([logprobs(a, lam)[b] for a, b in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True)])


def test_log_probs_are_those_of_the_model(server: FakeServer) -> None:
    backend = backend_on(server)
    for opened, lam in ((backend.as_base, 0.0), (backend.as_finetuned, 1.0)):
        with opened() as view:
            found = view.rolling_logprob(TEXT)
        np.testing.assert_allclose(found.logprobs, expected(found.token_ids, lam), atol=1e-5)
    backend.close()


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_it_keeps_the_contract(check: Check, dialect: Dialect) -> None:
    with fake_server(dialect) as running:
        subject = Subject(lambda: backend_on(running), texts=(TEXT, "a b c d e f g", "water, and"))
        try:
            check.verify(subject)
        except SkipTest as reason:
            assert "null" in str(reason) or "weights" in str(reason) or "as_scaled_adapter" in str(reason)  # noqa: PT017
        except CannotRunError as reason:
            assert dialect == "echo"
            assert "names tokens by their text" in str(reason)  # noqa: PT017
        finally:
            subject.close()


def test_a_lora_on_one_server_scales_and_two_models_do_not() -> None:
    with fake_server("llama.cpp") as running:
        backend = backend_on(running)
        assert isinstance(backend, ScalableDifferentialBackend)
        with backend.as_scaled_adapter(0.3) as view:
            found = view.rolling_logprob(TEXT)
        np.testing.assert_allclose(found.logprobs, expected(found.token_ids, 0.3), atol=1e-5)
        backend.close()
    with fake_server("echo") as running:
        backend = backend_on(running)
        assert not isinstance(backend, ScalableDifferentialBackend)
        with pytest.raises(CannotRunError, match=r"two endpoints cannot be scaled to 0\.3"), backend.view(scaled(0.3)):
            pass
        backend.close()


def test_it_draws_no_nulls_and_says_why(native: FakeServer) -> None:
    backend = backend_on(native)
    assert not isinstance(backend, NullCalibratedBackend)
    assert backend.null_refusal() == "a server takes no other weights, so no rotation can be drawn"
    with pytest.raises(NullRuleError), backend.view(View("rotation")):
        pass
    backend.close()


@pytest.mark.parametrize("reducer", ["kl", "kl_rev", "js", "tv"])
def test_a_top_of_the_vocabulary_gives_lower_bounds_and_all_of_it_the_value(native: FakeServer, reducer: str) -> None:
    asked = [Ask(ITEMS, (FINETUNED,), frozenset({"gain", reducer}), format="raw")]  # type: ignore[arg-type]
    found = {}
    for k in (3, 30, 300):
        backend = backend_on(native, top_k=k)
        found[k] = Engine(backend).answer(asked)[0].values
        backend.close()
    np.testing.assert_allclose(found[3]["gain"], found[300]["gain"], atol=1e-5)  # the deep request finds the token
    assert (found[3][reducer] <= found[30][reducer] + 1e-6).all()
    assert (found[30][reducer] <= found[300][reducer] + 1e-6).all()
    p, q = (np.exp(logprobs(0, lam)) for lam in (0.0, 1.0))
    m = (p + q) / 2
    exact = {
        "kl": (p * np.log(p / q)).sum(),
        "kl_rev": (q * np.log(q / p)).sum(),
        "js": ((p * np.log(p / m)).sum() + (q * np.log(q / m)).sum()) / 2,
        "tv": np.abs(p - q).sum() / 2,
    }
    assert found[300][reducer][0, 0] == pytest.approx(exact[reducer], abs=1e-5)


def test_the_engine_says_that_divergences_are_bounds(native: FakeServer) -> None:
    backend = backend_on(native, top_k=20)
    engine = Engine(backend)
    engine.answer([Ask(ITEMS, (FINETUNED,), frozenset({"kl"}), format="raw")])
    assert engine.path == "llama.cpp /completion; divergences are lower bounds from the top 20"
    floor = measure_floor(engine)
    assert (floor.kl, floor.max_logprob, floor.dtype) == (0.0, 0.0, "server")
    backend.close()


def test_a_server_that_caps_its_top_still_gives_bounds_and_says_what_it_cannot_name() -> None:
    with fake_server("next", cap=5) as running:
        backend = backend_on(running)
        (scores,) = Engine(backend).answer([Ask(ITEMS, (FINETUNED,), frozenset({"kl"}), format="raw")])
        assert (scores.values["kl"] >= 0).all()
        with pytest.raises(CannotRunError, match=r"names no log-prob for \d+ of \d+ tokens: they are outside its top"):
            Engine(backend).answer([Ask(ITEMS, (FINETUNED,), frozenset({"gain"}), format="raw")])
        backend.close()


def refusing(most: int, message: str) -> Any:
    """Return a fault that refuses a larger top, as vLLM does beyond --max-logprobs."""

    def fault(server: FakeServer, handler: Any) -> bool:
        if (server.bodies[-1].get("logprobs") or 0) <= most:
            return False
        handler.say({"error": {"message": message}}, status=400)
        return True

    return fault


REFUSAL = "Requested sample logprobs of 64, which is greater than max allowed"


@pytest.mark.parametrize("dialect", ["echo", "next"])
@pytest.mark.parametrize(("most", "asked"), [(64, 64), (20, 20), (19, 5), (5, 5)])
def test_a_server_that_refuses_a_large_top_is_asked_for_a_smaller_one(dialect: Dialect, most: int, asked: int) -> None:
    with fake_server(dialect) as running:
        running.always = refusing(most, REFUSAL)
        backend = backend_on(running, top_k=64)
        running.bodies.clear()
        engine = Engine(backend)
        engine.answer([Ask(ITEMS, (FINETUNED,), frozenset({"kl"}), format="raw")])
        assert engine.path.endswith(f"lower bounds from the top {asked}")
        assert {body["logprobs"] for body in running.bodies} == {asked}
        if dialect == "next" and asked < 64:  # of its echo this server gives no ids
            with backend.as_base() as view:
                view.next_token_dist(TEXT)
            assert running.bodies[-1]["logprobs"] == asked
        backend.close()


@pytest.mark.parametrize(("most", "message"), [(20, "the moon is full"), (4, REFUSAL)])
def test_any_other_refusal_is_the_server_s_own_error(most: int, message: str) -> None:
    with fake_server("echo") as running:
        running.always = refusing(most, message)
        with pytest.raises(BadInputError, match=rf"refuses the request \(400\): {message}"):
            backend_on(running, top_k=64)
        assert len(running.bodies) == (4 if message == REFUSAL else 2)


def test_tokens_are_compared_by_bytes_or_text_where_there_are_no_ids() -> None:
    with fake_server("next", with_ids=False) as running:
        backend = backend_on(running)
        (scores,) = Engine(backend).answer([Ask(ITEMS, (FINETUNED, BASE), frozenset({"kl", "top1"}), format="raw")])
        p, q = (np.exp(logprobs(0, lam)) for lam in (0.0, 1.0))
        assert scores.values["kl"][0, 0] == pytest.approx((p * np.log(p / q)).sum(), abs=1e-5)
        assert (scores.values["top1"][1] == 1).all()
        backend.close()


def test_the_server_is_probed_once_and_its_window_kept(native: FakeServer) -> None:
    backend = backend_on(native)
    assert backend.codec.max_length == 127  # one token is left for the answer
    assert native.bodies == []
    with pytest.raises(BadInputError, match="no LoRA with id 3; it has"):
        backend_on(native, lora=3)
    backend.close()


def test_text_is_written_by_the_server(server: FakeServer) -> None:
    backend = backend_on(server)
    (reply,) = backend.write(["the bell"], FINETUNED, max_new_tokens=4, format="raw")
    assert (set(reply.text), reply.stopped) == ({"x"}, False)
    backend.write(["a", "b", "a"], FINETUNED, max_new_tokens=2, temperature=0.7, top_p=0.9, seed=5, format="raw")
    assert len({body["seed"] for body in server.bodies[-3:]}) == 3
    backend.close()


@pytest.mark.parametrize("fault", [busy(429), busy(503), die, malformed], ids=["429", "503", "dies", "malformed"])
def test_what_fails_for_a_while_is_tried_again(server: FakeServer, fault: Any) -> None:
    backend = backend_on(server)
    server.faults.extend([fault, fault])
    with backend.as_finetuned() as view:
        found = view.rolling_logprob(TEXT)
    np.testing.assert_allclose(found.logprobs, expected(found.token_ids, 1.0), atol=1e-5)
    backend.close()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (busy(429), "the server answers 429, 3 times"),
        (die, r"the connection failed \(RemoteProtocolError\), 3 times"),
        (malformed, "the answer is no JSON, or was cut, 3 times"),
        (hang, "no answer within 0.2 s, 3 times"),
    ],
    ids=["429", "dies", "malformed", "hangs"],
)
def test_what_keeps_failing_is_one_clear_error(server: FakeServer, fault: Any, message: str) -> None:
    backend = backend_on(server, timeout_s=0.2)
    server.always = fault
    with backend.as_finetuned() as view, pytest.raises(CannotRunError, match=message):
        view.rolling_logprob(TEXT)
    backend.close()


def test_a_server_says_how_long_to_wait(native: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    backend = backend_on(native)
    native.faults.append(busy(429, retry_after="7"))
    with backend.as_base() as view:
        view.rolling_logprob("abc")
    assert waits == [7.0]
    backend.close()


def spoiled(change: Any) -> Any:
    """Return what changes an answer by its JSON text."""

    def after(answer: dict[str, Any]) -> bytes:
        return change(json.dumps(answer)).encode()

    return after


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.replace('"logprob": -', '"logprob": NaN, "x": -'), "a log-prob is nan, which is none"),
        (lambda s: s.replace('"logprob": -', '"logprob": null, "x": -'), "a log-prob is None, which is none"),
        (lambda s: s.replace('"top_logprobs"', '"tops"'), "the answer holds no log-probs"),
        (lambda _: "[]", "the answer holds no log-probs"),
    ],
    ids=["nan", "null", "none", "list"],
)
def test_what_is_no_log_prob_is_one_clear_error(native: FakeServer, change: Any, message: str) -> None:
    backend = backend_on(native)
    native.after = spoiled(change)
    with backend.as_base() as view, pytest.raises(CannotRunError, match=message):
        view.rolling_logprob("abc")
    backend.close()


def test_log_probs_that_are_cut_short_are_told() -> None:
    def cut(answer: dict[str, Any]) -> dict[str, Any]:
        logprobs = answer["choices"][0]["logprobs"]
        for name in ("tokens", "token_logprobs", "top_logprobs"):
            logprobs[name] = logprobs[name][:-3]
        return answer

    with fake_server("echo") as running:
        backend = backend_on(running)
        running.after = cut
        with backend.as_base() as view, pytest.raises(CannotRunError, match="of 2 tokens where 5 were asked for"):
            view.rolling_logprob("abc")
        backend.close()


def test_the_suite_goes_on_and_nothing_is_lost(native: FakeServer) -> None:
    """A server that dies for one probe costs that probe; what was scored before is not asked for again."""
    backend = backend_on(native)
    asked = [Ask(ITEMS[:2], (FINETUNED,), frozenset({"gain"}), format="raw")]
    engine = Engine(backend)
    engine.answer(asked)
    n = len(native.bodies)
    native.always = die
    with pytest.raises(CannotRunError):
        engine.answer([Ask(ITEMS, (FINETUNED,), frozenset({"gain"}), format="raw")])
    native.always = None
    assert np.isfinite(engine.answer(asked)[0].values["gain"]).all()
    assert len(native.bodies) - n < 60  # the first two texts alone have over a hundred positions under two views

    assert byte_tokenizer(bos=False)("Z")["input_ids"] == [59]
    native.always = lambda server, handler: 59 in handler.body["prompt"] and die(server, handler)
    pairs = tuple(
        build_probe({"name": name, "kind": "delta_kl", "prompts": [text] * 3})
        for name, text in (("good", "ring the bell"), ("bad", "ring Z the bell"))
    )
    results = {r.name: r for r in drive(pairs, RunContext(backend=backend, n_draws=19, format="raw")).results}
    assert results["bad"].verdict is Verdict.ERROR
    assert "the connection failed" in results["bad"].message
    assert results["good"].verdict is not Verdict.ERROR
    backend.close()


def test_a_budget_ends_the_asking(native: FakeServer) -> None:
    backend = backend_on(native, token_budget=20, concurrency=1)
    with backend.as_base() as view, pytest.raises(CannotRunError, match="the token budget of 20 is spent"):
        view.rolling_logprob(TEXT)
    assert len(native.bodies) == 10  # two tokens each
    backend.close()


def test_at_most_so_many_requests_are_under_way(native: FakeServer) -> None:
    import threading

    now, most, lock = 0, 0, threading.Lock()

    def count(answer: dict[str, Any]) -> dict[str, Any]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        native.released.wait(0.002)
        with lock:
            now -= 1
        return answer

    native.after = count
    backend = backend_on(native, concurrency=2)
    Engine(backend).answer([Ask(ITEMS, (FINETUNED,), frozenset({"gain"}), format="raw")])
    assert most == 2
    backend.close()


SECRET = "sk-very-secret-0123456789"  # noqa: S105 (made up)


def test_a_key_comes_from_the_environment_and_is_shown_nowhere(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    backend = backend_on(server, api_key_env="MY_KEY")
    assert all(h.get("Authorization") == f"Bearer {SECRET}" for h in server.seen_headers)

    def echoing(_: Any, handler: Any) -> bool:
        handler.say({"error": {"message": f"Incorrect API key provided: {SECRET}"}}, status=401)
        return True

    server.always = echoing
    with backend.as_base() as view, pytest.raises(BadInputError, match=r"refuses the key \(401\).*\*\*\*") as caught:
        view.rolling_logprob(TEXT)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    shown += repr(backend.options) + repr(backend.wires) + backend.id + str(caught.value)
    trace = tmp_path / "trace.jsonl"
    server.always = None
    probe, spec = build_probe({"name": "kl", "kind": "delta_kl", "prompts": [TEXT] * 3})
    result = probe.run(spec, RunContext(backend=backend, n_draws=19, trace=trace, format="raw"))
    assert SECRET not in shown + result.model_dump_json() + trace.read_text()
    backend.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "url is missing"),
        ({"url": "127.0.0.1:8080"}, "must be an address"),
        ({"url": "http://u:p@h/"}, "must hold no user, password or query"),
        ({"url": "http://h/?key=x"}, "must hold no user, password or query"),
        ({"url": "http://h", "api_key": SECRET}, "a key must not stand in a spec"),
        ({"url": "http://h", "speed": 3}, "unknown option speed"),
        ({"url": "http://h"}, "no fine-tune is named; set lora, finetuned_model or finetuned_url"),
        ({"url": "http://h", "top_k": 0}, "top_k: Input should be greater than or equal to 1"),
    ],
)
def test_wrong_options_are_named_without_what_they_hold(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        open_backend(ModelSpec(base="m", kind="api", options=options))
    assert SECRET not in str(caught.value)


def test_an_adapter_directory_and_an_unset_key_are_refused(native: FakeServer) -> None:
    with pytest.raises(BadInputError, match="a server loads no adapter from here"):
        open_backend(ModelSpec(base="m", kind="api", adapter="a", options={"url": "http://h"}))
    with pytest.raises(BadInputError, match="the environment variable NO_SUCH_KEY is not set"):
        backend_on(native, api_key_env="NO_SUCH_KEY")


def test_a_server_that_is_not_there_is_told_when_it_is_opened() -> None:
    with fake_server("llama.cpp") as running:
        gone = running
    with pytest.raises(CannotRunError, match=r"the connection failed \(ConnectError\), 3 times"):
        backend_on(gone)
