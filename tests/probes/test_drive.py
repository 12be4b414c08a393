from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pytest

from dlm_sway.backends.dummy import DummyBackend
from dlm_sway.backends.dummy_options import DummyOptions
from dlm_sway.core.errors import BadInputError, CannotRunError, MissingExtraError
from dlm_sway.core.result import ProbeResult, Question, Verdict
from dlm_sway.core.views import BASE, FINETUNED
from dlm_sway.engine.ask import Ask, TextItem, Write
from dlm_sway.engine.run import Engine
from dlm_sway.probes import registry
from dlm_sway.probes.base import (
    Env,
    Found,
    NullTest,
    Probe,
    ProbeSpec,
    RunContext,
    Seen,
    build_probe,
    register,
    result_of,
)
from dlm_sway.probes.drive import Driven, _of_adapter, drive, family_p
from dlm_sway.stats.multiplicity import max_t

Language = Callable[..., tuple[str, ...]]
Drive = Callable[..., Driven]


class ScriptedSpec(ProbeSpec):
    kind: Literal["scripted"] = "scripted"
    rounds: int = 1
    fails_in: str = ""


class Scripted(Probe[ScriptedSpec]):
    """Asks about one text a round, and fails where it is told to."""

    category = "baseline"
    spec_type = ScriptedSpec

    def plan(self, spec: ScriptedSpec, env: Env, seen: Seen) -> tuple[Ask, ...]:
        self._fail(spec, "plan")
        if len(seen) == spec.rounds:
            return ()
        text = "" if spec.fails_in == "answer" else f"{spec.name} asks w{50 + len(seen)} w51"
        return (Ask((TextItem("", text, "0", "0"),), (FINETUNED,), frozenset({"gain"}), format=env.format),)

    def measure(self, spec: ScriptedSpec, env: Env, seen: Seen) -> Found:
        self._fail(spec, "measure")
        return Found(data={"later": [s.name for _, s in env.later], "rounds": len(seen)})

    def judge(self, spec: ScriptedSpec, env: Env, found: Found, p: Mapping[str, float]) -> ProbeResult:
        self._fail(spec, "judge")
        assert (p, env.n_draws) == ({}, 19)
        return result_of(
            spec, {"ran": Question(verdict=Verdict.PASS)}, headline="ran", evidence={**found.data}, score=None
        )

    def _fail(self, spec: ScriptedSpec, step: str) -> None:
        if spec.fails_in == step:
            raise BadInputError(f"no luck in {step}")


@pytest.fixture(autouse=True)
def _scripted() -> Iterator[None]:
    register("scripted")(Scripted)
    yield
    registry._REGISTRY._classes.pop("scripted")


def _named(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": "scripted", **fields}


def _suite(language: Language) -> list[dict[str, Any]]:
    target, unseen = language(12), language(8, seed=1)
    return [
        {"kind": "delta_kl", "prompts": target},
        {"kind": "target_gain", "items": target, "held_out": unseen},
        {"kind": "external_perplexity"},
    ]


def test_probes_advance_in_lockstep_and_share_their_passes(driven: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = Engine.answer

    def counted(engine: Engine, asks: Any, **options: Any) -> Any:
        calls.append(len(asks))
        return real(engine, asks, **options)

    monkeypatch.setattr(Engine, "answer", counted)
    found = driven({}, _named("a", rounds=3), _named("b", rounds=1), _named("c", rounds=2))
    assert calls == [3, 2, 1]
    assert [r.evidence["rounds"] for r in found.results] == [3, 1, 2]


def test_a_probe_knows_which_probes_follow_it(driven: Drive) -> None:
    found = driven({}, _named("a"), _named("b"), _named("c"))
    assert [r.evidence["later"] for r in found.results] == [["b", "c"], ["c"], []]


@pytest.mark.parametrize("step", ["plan", "answer", "measure", "judge"])
def test_a_probe_that_fails_is_an_error_and_the_others_go_on(driven: Drive, step: str) -> None:
    broken = _named("broken", fails_in=step, rounds=2)
    found = driven({}, _named("first", rounds=2), broken, _named("last", rounds=2)).results
    assert [r.verdict for r in found] == [Verdict.PASS, Verdict.ERROR, Verdict.PASS]
    assert (found[1].name, found[1].kind, found[1].score) == ("broken", "scripted", 0.0)
    assert found[1].message.startswith("0: the completion is empty" if step == "answer" else f"no luck in {step}")
    assert [r.evidence["rounds"] for r in (found[0], found[2])] == [2, 2]


def test_a_failing_neighbour_does_not_change_a_result(driven: Drive, language: Language) -> None:
    spec = {"kind": "target_gain", "items": language(6)}
    options = {"adapter": "trained", "towards": language(6)}
    alone = driven(options, spec).results[0]
    beside = driven(options, _named("broken", fails_in="answer"), spec).results[1]
    assert alone.model_copy(update={"duration_s": 0.0}) == beside.model_copy(update={"duration_s": 0.0})


def test_an_item_that_does_not_fit_the_window_fails_its_probe_alone(driven: Drive, language: Language) -> None:
    long = {"prompt": " ".join(["w60"] * 40), "completion": " w61"}
    found = driven(
        {"max_length": 32, "adapter": "trained", "towards": language(6)},
        {"kind": "delta_kl", "prompts": language(6)},
        {"kind": "target_gain", "items": [long], "controls": language(6, first=70)},
    ).results
    assert [r.verdict for r in found] == [Verdict.PASS, Verdict.ERROR]
    assert "the prompt has 40 tokens and the model reads 32" in found[1].message


def test_numbers_that_are_not_finite_are_an_error_that_names_the_view(driven: Drive, language: Language) -> None:
    options = {"nan_in": ["rotation"], "adapter": "trained", "towards": language(6)}
    gain, scripted = driven(options, {"kind": "target_gain", "items": language(6)}, _named("plain")).results
    assert gain.verdict is Verdict.ERROR
    assert "kl is not finite in" in gain.message
    assert "kind='rotation'" in gain.message
    assert scripted.verdict is Verdict.PASS


def test_a_machine_that_gives_up_in_the_middle_makes_every_probe_an_error(driven: Drive, language: Language) -> None:
    whole = DummyBackend()
    driven(whole, *_suite(language))
    found = driven({"forwards": whole.forwards_done // 4}, *_suite(language))
    assert {r.verdict for r in found.results} == {Verdict.ERROR}
    assert all("the machine gave up after" in r.message for r in found.results)


def test_a_machine_that_gives_up_at_once_ends_the_run(driven: Drive) -> None:
    with pytest.raises(CannotRunError, match="the machine gave up after 0 forward passes"):
        driven({"forwards": 0}, _named("a"))


def test_the_family_is_adjusted_by_maxt_over_the_shared_draws(driven: Drive, language: Language) -> None:
    # A weak adapter, so that the adjusted values are not all at their smallest.
    options = {"adapter": "noise", "strength": 0.3, "adapter_seed": 2}
    kl, gain, _ = driven(options, *_suite(language)).results
    parts = [kl.evidence, gain.evidence["on_target"]["null"], gain.evidence["generalises"]["null"]]
    rows = np.array([[part["statistic"], *part["null_draws"]] for part in parts])
    rows[0] = np.log(rows[0])
    expected = max_t(rows)
    claims = {**kl.evidence["claims"], **gain.evidence["claims"]}
    assert [claims[name]["p"] for name in ("learned", "on_target", "generalises")] == expected.p_adjusted.tolist()
    assert [part["p"] for part in parts] == pytest.approx(expected.p_raw.tolist())
    assert (expected.p_adjusted > expected.p_raw).any()


def test_a_probe_alone_has_the_p_of_its_rank(driven: Drive, language: Language) -> None:
    found = driven({"strength": 0.3}, {"kind": "delta_kl", "prompts": language(6)}).results[0]
    assert found.evidence["p_adjusted"] == found.evidence["p"] == found.evidence["rank"] / 20


def test_families_of_different_numbers_of_draws_are_kept_apart() -> None:
    rng = np.random.default_rng(0)
    found = [
        Found((NullTest("a", 9.0, rng.random(19), "linear"), NullTest("b", 9.0, rng.random(19), "linear"))),
        Found((NullTest("a", 9.0, rng.random(39), "linear"),)),
        Found(),
    ]
    adjusted = family_p(found)
    assert adjusted[id(found[0])] == {"a": 0.05, "b": 0.05}
    assert adjusted[id(found[1])] == {"a": 0.025}
    assert adjusted[id(found[2])] == {}


def test_magnitudes_enter_the_family_as_logarithms() -> None:
    rng = np.random.default_rng(0)
    heavy, gains = rng.lognormal(0, 3, size=20), rng.normal(size=20)
    gains[0] = 2.0
    tests = (NullTest("kl", heavy[0], heavy[1:], "log"), NullTest("gain", gains[0], gains[1:], "linear"))
    found = Found(tests)
    expected = max_t(np.stack([np.log(heavy), gains])).p_adjusted
    assert expected.tolist() != max_t(np.stack([heavy, gains])).p_adjusted.tolist()
    assert list(family_p([found])[id(found)].values()) == expected.tolist()


def test_a_magnitude_of_zero_enters_the_family(driven: Drive, language: Language) -> None:
    found = driven({"adapter": "none"}, {"kind": "delta_kl", "prompts": language(6)}).results[0]
    assert found.evidence["p_adjusted"] == 1.0


def test_each_probe_carries_its_share_of_the_time(driven: Drive, language: Language) -> None:
    scored, baseline = driven({}, {"kind": "delta_kl", "prompts": language(4)}, {"kind": "numeric_floor"}).results
    assert scored.duration_s > 0
    assert baseline.duration_s == 0


def test_the_same_run_gives_the_same_bytes(driven: Drive, language: Language) -> None:
    def run() -> str:
        found = driven({"adapter": "trained", "towards": language(12)}, *_suite(language), seed=5)
        return json.dumps([r.model_dump(mode="json", exclude={"duration_s"}) for r in found.results])

    assert run() == run()


def test_another_seed_draws_other_nulls(driven: Drive, language: Language) -> None:
    specs = {"kind": "delta_kl", "prompts": language(6)}
    one, other = (driven({}, specs, seed=seed).results[0].evidence["null_draws"] for seed in (1, 2))
    assert set(one).isdisjoint(other)


def test_the_size_of_a_chunk_changes_no_verdict_and_hardly_a_number(driven: Drive, language: Language) -> None:
    options = {"adapter": "trained", "towards": language(12)}
    large, small = (driven(options, *_suite(language), batch_tokens=n) for n in (1 << 20, 512))
    for one, other in zip(large.results, small.results, strict=True):
        assert one.verdict is other.verdict
        assert one.raw == pytest.approx(other.raw, rel=1e-4)
    assert large.engine.path == small.engine.path == "backend"


def test_a_probe_run_alone_is_a_suite_of_one(driven: Drive, language: Language) -> None:
    raw = {"name": "delta_kl", "kind": "delta_kl", "prompts": language(6)}
    probe, spec = build_probe(raw)
    backend = DummyBackend(DummyOptions())
    alone = probe.run(spec, RunContext(backend=backend, n_draws=19))
    assert alone.raw == pytest.approx(driven({}, raw).results[0].raw, rel=1e-4)
    assert drive((), RunContext(backend=backend)).results == ()


class _Writing(Scripted):
    """Asks for a score and a text in one round."""

    def plan(self, spec: ScriptedSpec, env: Env, seen: Seen) -> tuple[Ask | Write, ...]:
        if spec.fails_in == "extra":
            raise MissingExtraError("words need x, which is not installed", remedy="pip install x")
        return () if seen else (Write(("w60",), (BASE, FINETUNED), 3), *super().plan(spec, env, seen))

    def measure(self, spec: ScriptedSpec, env: Env, seen: Seen) -> Found:
        del spec
        written, scores = seen[0]
        return Found(
            data={"texts": written.texts, "items": len(scores.items), "chat": env.chat, "tools": env.tools_refusal}
        )


@pytest.fixture
def _writing() -> None:
    registry._REGISTRY._classes.pop("scripted")
    register("scripted")(_Writing)


@pytest.mark.usefixtures("_writing")
def test_a_probe_may_ask_for_texts_beside_scores(driven: Drive) -> None:
    options = {"script": {"base": {"": "one"}, "adapter": {"": "two"}}}
    plain, chatty = (
        driven({**options, "chat_template": chat}, _named("a"), _named("b")).results[1].evidence
        for chat in (False, True)
    )
    assert (plain["texts"], plain["items"]) == ((("one",), ("two",)), 1)
    assert (plain["chat"], plain["tools"]) == (False, "the tokenizer has no chat template")
    assert (chatty["chat"], chatty["tools"]) == (True, None)


@pytest.mark.usefixtures("_writing")
def test_a_probe_without_its_extra_is_skipped_with_the_command(driven: Drive) -> None:
    skipped, ran = driven({}, _named("a", fails_in="extra"), _named("b")).results
    assert (skipped.verdict, skipped.score) == (Verdict.SKIP, None)
    assert skipped.message == "words need x, which is not installed; pip install x"
    assert ran.verdict is Verdict.PASS


def test_a_backend_that_does_not_know_its_adapter_refuses_scales_and_cuts_with_a_reason() -> None:
    known = _of_adapter(object())
    assert known["scale_refusal"] == "this backend cannot scale an adapter"
    assert known["cut_refusal"] == "this backend knows no factors"


def test_spectra_are_made_once_however_often_a_plan_asks() -> None:
    backend = DummyBackend(DummyOptions())
    spectra = _of_adapter(backend)["spectra"]
    assert spectra() is spectra()
