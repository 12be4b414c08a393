from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from dlm_sway.core.errors import AdapterError, BadInputError, CannotRunError, ExitCode
from dlm_sway.core.result import Verdict
from dlm_sway.report.json import to_json
from dlm_sway.suite.result import QUESTIONS, CheckResult

Language = Callable[..., tuple[str, ...]]
Options = dict[str, Any]


def _verdicts(result: CheckResult) -> dict[str, str]:
    return {name: question.verdict.value for name, question in result.questions.items()}


def _strict(text: str) -> Any:
    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_healthy_adapter_passes_every_question(bench: Any, healthy: Options, language: Language) -> None:
    data, held_out = bench.write("data.txt", language(12)), bench.write("held.txt", language(24, seed=1))
    result = bench.check(healthy, data=data, held_out=held_out)
    assert tuple(result.questions) == QUESTIONS
    assert set(_verdicts(result).values()) == {"pass"}
    assert (result.verdict, result.exit_code) == (Verdict.PASS, ExitCode.PASS)
    assert result.next_steps == ()
    asked = ["delta_kl", "target_gain", "external_perplexity"]
    assert [p.kind for p in result.probes] == [*asked, "leakage", "adapter_ablation"]
    assert list(result.findings) == ["recital", "dose"]
    assert (result.adapter, result.base) == (str(bench.adapter), str(bench.base))


def test_the_base_is_loaded_at_the_revision_that_the_adapter_records(bench: Any, healthy: Options) -> None:
    path = bench.adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"revision": "v1"}))
    bench.check(healthy)
    bench.check(healthy, base=str(bench.base))
    assert [spec.revision for spec in bench.specs] == ["v1", "v1"]


def _in_sections(bench: Any, *sections: tuple[str, ...]) -> Any:
    blocks = [line for i, texts in enumerate(sections) for line in (f"# Part {i}", "", *(f"{t}\n" for t in texts))]
    return bench.write("data.md", blocks)


def test_data_in_sections_say_which_took_at_no_cost(bench: Any, healthy: Options, language: Language) -> None:
    learned, other = language(12), language(6, first=70)
    plain = bench.check(healthy, data=bench.write("data.txt", (*learned, *other)))
    result = bench.check(healthy, data=_in_sections(bench, learned[:6], learned[6:], other))
    took = result.findings["took"]
    assert next(iter(result.findings)) == "took"
    assert (took.verdict, result.verdict) == (Verdict.WARN, Verdict.WARN)
    assert "2 of 3 sections took; not: Part 2 (gain" in took.message
    assert result.next_steps[0].startswith("Some sections did not take")
    assert result.timing["view_tokens"] == plain.timing["view_tokens"]


def test_a_document_that_took_whole_passes_with_its_sections(bench: Any, healthy: Options, language: Language) -> None:
    texts = language(12)
    result = bench.check(healthy, data=_in_sections(bench, texts[:6], texts[6:]), quick=True)
    assert result.findings["took"].verdict is Verdict.PASS
    assert result.verdict is Verdict.PASS


def test_of_an_adapter_that_learned_nothing_no_section_is_said_to_have_taken(bench: Any, language: Language) -> None:
    texts = language(12)
    result = bench.check({"strength": 0.1, "adapter_seed": 3}, data=_in_sections(bench, texts[:6], texts[6:]))
    assert "took" not in result.findings
    assert "section_internalization" in [p.kind for p in result.probes]


def test_a_noise_adapter_fails_learned(bench: Any, language: Language) -> None:
    result = bench.check({"strength": 0.1, "adapter_seed": 3}, data=bench.write("data.txt", language(12)))
    assert _verdicts(result) == {
        "sound": "pass",
        "applied": "pass",
        "learned": "fail",
        "on_target": "fail",
        "generalises": "skip",
        "no_harm": "pass",
    }
    assert (result.verdict, result.exit_code) == (Verdict.FAIL, ExitCode.FAIL)
    assert len(result.next_steps) == 2


def test_without_data_nothing_is_said_about_the_target(bench: Any, healthy: Options) -> None:
    result = bench.check(healthy)
    verdicts = _verdicts(result)
    assert (verdicts["on_target"], verdicts["generalises"]) == ("skip", "skip")
    assert result.questions["on_target"].message.startswith("give --data FILE")
    assert [p.kind for p in result.probes] == ["delta_kl", "external_perplexity"]


def test_without_held_out_text_only_that_question_is_skipped(bench: Any, healthy: Options, language: Language) -> None:
    result = bench.check(healthy, data=bench.write("data.txt", language(12)))
    assert _verdicts(result)["generalises"] == "skip"
    assert _verdicts(result)["on_target"] == "pass"
    assert (result.verdict, result.exit_code) == (Verdict.PASS, ExitCode.PASS)
    assert "--held-out FILE" in result.next_steps[0]


def test_one_item_of_data_is_inconclusive(bench: Any, healthy: Options, language: Language) -> None:
    result = bench.check(healthy, data=bench.write("data.txt", language(1)))
    assert _verdicts(result)["on_target"] == "inconclusive"
    assert (result.verdict, result.exit_code) == (Verdict.INCONCLUSIVE, ExitCode.INCONCLUSIVE)


def test_an_adapter_of_nan_is_unsound_and_no_model_is_loaded(bench: Any) -> None:
    result = bench.check(adapter=bench.broken(fill=float("nan")))
    assert bench.specs == []
    assert _verdicts(result) == {"sound": "fail", **dict.fromkeys(QUESTIONS[1:], "skip")}
    assert "NaN" in result.questions["sound"].message
    assert result.questions["applied"].message == "not asked, because the adapter is not sound"
    assert (result.verdict, result.exit_code) == (Verdict.FAIL, ExitCode.FAIL)
    assert result.next_steps[0].startswith("Mend the adapter file first: sway inspect ")
    assert (result.probes, result.provenance["engine"], result.timing["view_tokens"]) == ((), None, 0.0)


def test_an_adapter_of_zeros_is_unsound_and_not_applied(bench: Any) -> None:
    result = bench.check({"adapter": "none"}, adapter=bench.broken(fill=0.0))
    assert _verdicts(result)["sound"] == "fail"
    assert (_verdicts(result)["applied"], _verdicts(result)["learned"]) == ("fail", "fail")


def test_numbers_that_are_not_finite_are_one_error(bench: Any, healthy: Options) -> None:
    result = bench.check({**healthy, "nan_in": ["adapter"]})
    assert _verdicts(result) == {
        "sound": "pass",
        "applied": "error",
        **dict.fromkeys(("learned", "on_target", "generalises", "no_harm"), "skip"),
    }
    assert "the fine-tuned model gives 8 non-finite log-probs" in result.questions["applied"].message
    assert (result.verdict, result.exit_code) == (Verdict.ERROR, ExitCode.ERROR)
    assert result.next_steps == ("applied could not be answered; mend what it names and run again.",)


def test_a_machine_that_gives_up_is_an_error_of_every_question_it_was_asked(bench: Any, healthy: Options) -> None:
    result = bench.check({**healthy, "forwards": 14})
    asked = [_verdicts(result)[name] for name in ("applied", "learned", "no_harm")]
    assert asked == ["error"] * 3
    assert result.exit_code is ExitCode.ERROR
    assert "the machine gave up" in result.questions["learned"].message


def test_an_adapter_without_a_null_is_judged_without_one(bench: Any, healthy: Options, language: Language) -> None:
    result = bench.check({**healthy, "refusal": "no rule for x"}, data=bench.write("data.txt", language(12)))
    assert _verdicts(result)["learned"] == "skip"
    assert result.questions["on_target"].null == "sign flip of paired gains (N5)"
    assert result.verdict is Verdict.PASS


@pytest.mark.parametrize("forwards", [0, 14, None])
def test_the_model_is_closed_whatever_happens(bench: Any, healthy: Options, forwards: int | None) -> None:
    if forwards == 0:
        with pytest.raises(CannotRunError):
            bench.check({**healthy, "forwards": 0})
    else:
        bench.check({**healthy, "forwards": forwards})
    assert bench.opened[0]._closed


def test_the_spec_names_what_the_user_named(bench: Any, healthy: Options) -> None:
    bench.check(healthy, base=str(bench.base), device="cpu", dtype="bf16")
    (spec,) = bench.specs
    assert (spec.kind, spec.base, spec.adapter) == ("hf", str(bench.base), bench.adapter)
    assert (spec.device, spec.dtype) == ("cpu", "bf16")


def test_paths_may_be_strings(bench: Any, healthy: Options, language: Language) -> None:
    data = str(bench.write("data.txt", language(6)))
    result = bench.check(healthy, adapter=str(bench.adapter), data=data)
    assert result.provenance["data_sha256"] is not None


def test_the_same_check_gives_the_same_bytes_but_for_the_time(bench: Any, healthy: Options, language: Language) -> None:
    data = bench.write("data.txt", language(12))

    def text() -> str:
        found = bench.check(healthy, data=data, seed=4)
        probes = tuple(p.model_copy(update={"duration_s": 0.0}) for p in found.probes)
        return to_json(found.model_copy(update={"timing": {}, "probes": probes}))

    assert text() == text()


def test_another_seed_draws_other_nulls(bench: Any, healthy: Options) -> None:
    one, other = (bench.check(healthy, seed=seed).probes[0].evidence["null_draws"] for seed in (1, 2))
    assert set(one).isdisjoint(other)


@pytest.mark.parametrize("options", [{}, {"adapter": "none"}, {"nan_in": ["base"]}, {"refusal": "no rule"}])
def test_the_json_is_strict_whatever_was_found(bench: Any, language: Language, options: Options) -> None:
    data = bench.write("data.txt", language(2))
    document = _strict(to_json(bench.check(options, data=data, held_out=bench.write("h.txt", language(1, seed=1)))))
    assert document["schema_version"] == 1
    assert tuple(document["questions"]) == QUESTIONS
    for question in document["questions"].values():
        assert set(question) == {"verdict", "effect", "unit", "interval", "p", "null", "message"}


def test_provenance_is_enough_to_run_it_again(bench: Any, healthy: Options, language: Language) -> None:
    data = bench.write("data.txt", language(6))
    found = bench.check(healthy, data=data, n_draws=20, seed=7).provenance
    assert set(found) == {
        "versions",
        "platform",
        "adapter_sha256",
        "data_sha256",
        "held_out_sha256",
        "control_corpus_sha256",
        "model",
        "seed",
        "alpha",
        "format",
        "n_draws",
        "quick",
        "numeric_floor",
        "engine",
        "device",
        "dtype",
    }
    assert (found["seed"], found["n_draws"], found["quick"], found["engine"]) == (7, 20, False, "backend")
    assert (found["device"], found["dtype"], found["held_out_sha256"]) == ("cpu", "float32", None)
    assert (found["format"], found["alpha"], found["model"]["kind"]) == ("auto", 0.05, "hf")
    assert {"config_sha256", "weights_bytes", "weights_sample_sha256"} <= set(found["model"])
    assert set(found["adapter_sha256"]) == {"adapter_config.json", "adapter_model.safetensors"}
    assert all(len(h) == 64 for h in [*found["adapter_sha256"].values(), found["data_sha256"]])
    assert set(found["numeric_floor"]) == {"median_kl", "max_kl", "max_logprob", "against_fp32"}
    assert {"python", "dlm-sway", "torch", "numpy"} <= set(found["versions"])


def test_quick_asks_less(bench: Any, healthy: Options, language: Language) -> None:
    data = bench.write("data.txt", language(30))
    quick, whole = (bench.check(healthy, data=data, n_draws=39, quick=q) for q in (True, False))
    assert (quick.provenance["n_draws"], whole.provenance["n_draws"]) == (19, 39)
    assert quick.provenance["quick"] is True
    for one, other in zip(quick.probes[:2], whole.probes[:2], strict=True):
        assert (len(one.evidence["null_draws"]), len(other.evidence["null_draws"])) == (19, 39)
    assert quick.probes[0].evidence["null_tokens"] < whole.probes[0].evidence["null_tokens"]
    assert quick.timing["view_tokens"] < whole.timing["view_tokens"]


def test_the_phases_are_told_in_order(bench: Any, healthy: Options) -> None:
    class Listening:
        def __init__(self) -> None:
            self.phases: list[str] = []
            self.last = (0, 0)

        def phase(self, label: str) -> None:
            self.phases.append(label)

        def work(self, done: int, total: int) -> None:
            assert self.last[0] < done <= total
            self.last = (done, total)

    listener = Listening()
    result = bench.check(healthy, progress=listener)
    assert listener.phases[:3] == ["inspecting the adapter", "loading the base", "measuring the numeric noise floor"]
    assert listener.last[0] == result.timing["view_tokens"]


def test_timing_adds_up(bench: Any, healthy: Options) -> None:
    timing = bench.check(healthy).timing
    assert 0 < timing["inspect_s"] < timing["total_s"]
    assert timing["view_tokens"] > 0


def test_an_adapter_that_does_not_record_its_base_needs_one(bench: Any, healthy: Options) -> None:
    with pytest.raises(BadInputError, match="the adapter does not record its base; name it with --base"):
        bench.check(healthy, adapter=bench.baseless())
    assert bench.specs == []


@pytest.mark.parametrize(("setting", "value"), [("dtype", "int3"), ("dtype", "")])
def test_an_unknown_dtype_is_one_line(bench: Any, setting: str, value: str) -> None:
    with pytest.raises(BadInputError, match=f"{setting}: Input should be 'auto', 'fp32'"):
        bench.check(**{setting: value})


def test_a_missing_adapter_is_one_line(bench: Any) -> None:
    with pytest.raises(AdapterError, match="no such directory"):
        bench.check(adapter=bench.root / "absent")


def test_a_request_that_cannot_be_used_is_refused_before_any_model(bench: Any, language: Language) -> None:
    data = bench.write("data.txt", language(6))
    for settings in ({"n_draws": 18}, {"data": data, "held_out": data}, {"held_out": data}):
        with pytest.raises(BadInputError):
            bench.check(**settings)
    assert bench.specs == []


_WITHOUT_TORCH = """
import sys
from importlib.abc import MetaPathFinder


class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "peft"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
from dlm_sway.core.errors import MissingExtraError
from dlm_sway.suite.check import check

unsound, sound = sys.argv[1:]
print(check(unsound).questions["sound"].verdict)
try:
    check(sound)
except MissingExtraError as error:
    print(error.one_line())
"""


def test_without_torch_an_unsound_adapter_is_told_and_a_sound_one_says_what_to_install(bench: Any) -> None:
    arguments = [str(bench.broken(fill=float("inf"))), str(bench.adapter)]
    program = [sys.executable, "-c", _WITHOUT_TORCH, *arguments]
    out = subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[0] == "fail"
    assert out[1].startswith("a backend of kind 'hf' needs torch, which is not installed; pip install ")
    assert len(out) == 2
