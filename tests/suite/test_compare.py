from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.errors import BadInputError, ExitCode
from dlm_sway.core.result import ProbeResult, Question, SuiteResult, Verdict
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.base import ProbeSpec, result_of
from dlm_sway.probes.claims import Measured, item_records
from dlm_sway.report.json import dumps
from dlm_sway.suite.compare import compare
from dlm_sway.suite.compare_result import Comparison, Contrast
from dlm_sway.suite.read import read_any
from dlm_sway.suite.result import CheckResult

N = 40


def noise(seed: int, n: int = N) -> Any:
    return np.random.default_rng(seed).normal(scale=0.1, size=n)


HARD = np.random.default_rng(0).normal(scale=2, size=400)


def probe(
    values: Sequence[float] | None,
    *,
    name: str = "gain",
    verdict: str = "pass",
    better: Any = "higher",
    interval: tuple[float, float] | None = None,
    texts: Sequence[str] | None = None,
    tokens: int = 10,
) -> ProbeResult:
    """Return a result of one claim, with its items where values are given."""
    effect = float(np.mean(values)) if values is not None else (sum(interval) / 2 if interval else None)
    claim = Question(
        verdict=Verdict(verdict), effect=effect, unit="nat/token", interval=interval, message=f"{name} is {verdict}"
    )
    evidence: dict[str, Any] = {}
    if values is not None:
        names = texts or [f"text {i}" for i in range(len(values))]
        items = [TextItem("", t, t, t) for t in names]
        weight = np.full(len(names), tokens)
        evidence = item_records(
            {"c": Measured(items, np.asarray(values) * tokens, weight, "nat/token", better, 0.05)}, seed=0
        )
    score = 1.0 if verdict == "pass" else 0.0
    return result_of(ProbeSpec(name=name, kind="k"), {"c": claim}, headline="c", evidence=evidence, score=score)


def suite(*probes: ProbeResult, adapter: str = "a", base: str = "b", **provenance: Any) -> SuiteResult:
    return SuiteResult(name="s", base=base, adapter=adapter, probes=probes, provenance=provenance)


def only(found: Comparison) -> Contrast:
    (contrast,) = found.contrasts
    return contrast


def against(a: ProbeResult, b: ProbeResult, **options: Any) -> Comparison:
    return compare(suite(a), suite(b, adapter="z"), **options)


def test_a_difference_hidden_by_hard_items_is_found_by_pairing() -> None:
    found = only(against(probe(HARD[:N] + noise(1)), probe(HARD[:N] + 0.2 + noise(2))))
    assert found.outcome == "better"
    assert found.paired is True
    assert found.n_shared == N
    assert found.difference == pytest.approx(0.2, abs=0.1)
    assert found.interval is not None
    assert found.interval[0] < 0.2 < found.interval[1]


def test_the_way_that_is_better_turns_the_word() -> None:
    a, b = HARD[:N] + noise(1), HARD[:N] + 0.2 + noise(2)
    assert only(against(probe(a, better="lower"), probe(b, better="lower"))).outcome == "worse"
    assert only(against(probe(a, better=None), probe(b, better=None))).outcome == "differs"


def test_no_difference_is_not_decided_and_says_what_would_decide() -> None:
    found = only(against(probe(HARD[:N] + 3 * noise(3)), probe(HARD[:N] + 3 * noise(4))))
    assert found.outcome == "no decided difference"
    assert "would show a difference of" in found.message


def test_a_difference_too_small_to_matter_is_none_however_sure() -> None:
    found = only(against(probe(HARD[:N]), probe(HARD[:N] + 0.01 + noise(5) / 100)))
    assert found.p is not None
    assert found.p < 0.001
    assert found.outcome == "no decided difference"
    assert "surely less than the 0.05 apart" in found.message


def test_only_items_with_the_same_text_read_to_the_same_length_are_paired() -> None:
    a = probe(HARD[:N], texts=[f"text {i}" for i in range(N)])
    b = probe(HARD[20 : 20 + N] + 0.2 + noise(1), texts=[f"text {i}" for i in range(20, 20 + N)])
    found = only(against(a, b))
    assert (found.n_shared, found.n_reference, found.n_candidate) == (20, N, N)
    assert only(against(a, probe(HARD[:N], tokens=11))).paired is not True


def test_without_items_in_common_the_intervals_are_compared_and_it_is_said() -> None:
    a = probe(HARD[:N], interval=(0.1, 0.2), texts=[f"a {i}" for i in range(N)])
    b = probe(HARD[:N] + 1, interval=(0.9, 1.1), texts=[f"b {i}" for i in range(N)])
    found = only(against(*(p.model_copy(update={"evidence": _effect(p, e)}) for p, e in ((a, 0.15), (b, 1.0)))))
    assert found.paired is False
    assert found.outcome == "better"
    assert "unpaired" in found.message


def _effect(result: ProbeResult, effect: float) -> dict[str, Any]:
    claims = {k: {**v, "effect": effect} for k, v in result.evidence["claims"].items()}
    return {**result.evidence, "claims": claims}


def test_without_items_and_without_intervals_it_cannot_be_said() -> None:
    found = only(against(probe(None), probe(None)))
    assert found.outcome == "not comparable"
    assert "neither items nor an interval" in found.message


def test_few_items_cannot_decide() -> None:
    found = only(against(probe([0.0] * 4), probe([1.0, 1.1, 0.9, 1.0])))
    assert found.outcome == "no decided difference"
    assert "at least 6" in found.message


def test_many_comparisons_need_more() -> None:
    rng = np.random.default_rng(1)
    steps = rng.normal(scale=0.3, size=N)
    steps += 2.3 * steps.std(ddof=1) / N**0.5 - steps.mean()
    edge = (probe(HARD[:N]), probe(HARD[:N] + steps))
    assert only(against(*edge)).outcome == "better"
    others = [probe(HARD[:N] + 3 * noise(i), name=f"p{i}") for i in range(20)]
    same = [probe(HARD[:N] + 3 * noise(100 + i), name=f"p{i}") for i in range(20)]
    found = compare(suite(edge[0], *others), suite(edge[1], *same)).contrasts[0]
    assert found.p == pytest.approx(0.027, abs=0.003)
    assert found.outcome == "no decided difference"
    assert "among all that is compared" in found.message


def test_an_item_worse_is_a_regression() -> None:
    found = against(probe(HARD[:N] + 1), probe(HARD[:N] + noise(1)))
    assert [(r.why, r.claim) for r in found.regressions] == [("worse", "c")]
    assert found.gate() is ExitCode.FAIL


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("pass", "fail", "pass to fail"),
        ("warn", "fail", "pass to fail"),
        ("pass", "error", "error"),
        ("fail", "error", "error"),
        ("pass", "skip", "vanished"),
        ("pass", "inconclusive", None),
        ("pass", "warn", None),
        ("fail", "pass", None),
        ("fail", "fail", None),
        ("inconclusive", "fail", None),
        ("skip", "skip", None),
    ],
)
def test_verdicts_that_turned(before: str, after: str, why: str | None) -> None:
    found = against(probe(HARD[:N], verdict=before), probe(HARD[:N], verdict=after))
    assert [r.why for r in found.regressions] == ([why] if why else [])


def test_a_claim_that_fails_behind_another_that_failed_before_is_seen() -> None:
    def both(first: str, second: str) -> ProbeResult:
        claims = {n: Question(verdict=Verdict(v)) for n, v in (("x", first), ("y", second))}
        return result_of(ProbeSpec(name="two", kind="k"), claims, headline="x", evidence={}, score=None)

    found = against(both("fail", "pass"), both("pass", "fail"))
    assert [(r.claim, r.why) for r in found.regressions] == [("y", "pass to fail")]


def two_claims(**verdicts: str) -> ProbeResult:
    claims = {n: Question(verdict=Verdict(v), message=f"{n} is {v}") for n, v in verdicts.items()}
    return result_of(ProbeSpec(name="two", kind="k"), claims, headline=next(iter(claims)), evidence={}, score=None)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("pass", None, "vanished"),
        ("warn", "skip", "vanished"),
        ("pass", "error", "error"),
        ("fail", None, None),
        ("inconclusive", "skip", None),
        ("skip", None, None),
        ("pass", "inconclusive", None),
    ],
)
def test_a_claim_that_was_right_and_has_no_answer_now_is_a_regression(
    before: str, after: str | None, why: str | None
) -> None:
    now = two_claims(x="pass") if after is None else two_claims(x="pass", y=after)
    # A file may call a probe a pass whatever its claims say.
    found = against(two_claims(x="pass", y=before), now.model_copy(update={"verdict": Verdict.PASS}))
    assert [(r.probe, r.claim, r.why) for r in found.regressions] == ([("two", "y", why)] if why else [])


def test_a_probe_that_says_no_claims_has_lost_none() -> None:
    bare = ProbeResult(name="two", kind="k", verdict=Verdict.PASS)
    said = two_claims(x="pass", y="pass")
    assert against(said, bare).regressions == against(bare, said).regressions == ()


def test_a_probe_that_is_gone_is_a_regression_and_a_new_one_is_not() -> None:
    a, b = probe(HARD[:N]), probe(HARD[:N], name="other")
    found = compare(suite(a), suite(b))
    assert [(r.probe, r.why) for r in found.regressions] == [("gain", "vanished")]


def test_where_nothing_could_be_compared_a_gate_is_inconclusive() -> None:
    found = against(probe(None), probe(None))
    assert found.regressions == ()
    assert found.gate() is ExitCode.INCONCLUSIVE
    assert against(probe(HARD[:N]), probe(HARD[:N])).gate() is ExitCode.PASS


def test_another_base_blocks_all_numbers_and_none_of_the_verdicts() -> None:
    a, b = probe(HARD[:N]), probe(HARD[:N] + 1, verdict="fail")
    found = compare(suite(a, base="one"), suite(b, base="two"))
    assert only(found).outcome == "not comparable"
    assert found.remarks[0].level == "blocks"
    assert found.table == ()
    assert [r.why for r in found.regressions] == ["pass to fail"]


SIZES: dict[str, Any] = {"config_sha256": "c", "weights_bytes": {"w": 1}}
CONTENT: dict[str, Any] = {**SIZES, "weights_sample_sha256": "s"}


def on_bases(ours: dict[str, Any], theirs: dict[str, Any], *, names: tuple[str, str] = ("one", "/two")) -> Comparison:
    return compare(*(suite(probe(HARD[:N]), base=n, model=m) for n, m in zip(names, (ours, theirs), strict=True)))


def test_the_same_base_under_another_name_is_the_same() -> None:
    found = on_bases({**CONTENT, "revision": "abc123"}, {**CONTENT, "revision": None})
    assert found.remarks == ()
    assert only(found).paired is True
    assert on_bases({**CONTENT, "revision": "main"}, {**CONTENT, "revision": "abc123"}).remarks == ()


def test_another_content_of_the_same_size_is_another_base() -> None:
    other = {**CONTENT, "weights_sample_sha256": "t"}
    assert [r.level for r in on_bases(CONTENT, other, names=("one", "one")).remarks] == ["blocks"]


def test_files_of_the_same_size_under_another_name_are_no_proof_of_the_same_base() -> None:
    found = on_bases(SIZES, CONTENT)
    assert [(r.what, r.level) for r in found.remarks] == [("base", "caution")]
    assert "only the sizes" in found.remarks[0].message
    assert only(found).paired is True
    assert on_bases(SIZES, SIZES, names=("one", "one")).remarks == ()


def test_revisions_tell_bases_apart_only_where_both_are_known() -> None:
    same = ("one", "one")
    assert on_bases({"revision": "a"}, {"revision": None}, names=same).remarks == ()
    (remark,) = on_bases({**SIZES, "revision": "a"}, {**SIZES, "revision": "b"}, names=same).remarks
    assert (remark.level, remark.message) == ("blocks", "the base is another, and a gain is over the base (a and b)")


def test_a_rendering_that_only_one_of_them_names_blocks_nothing() -> None:
    found = compare(suite(probe(HARD[:N]), format="auto"), suite(probe(HARD[:N])))
    assert found.remarks == ()
    assert only(found).paired is True


@pytest.mark.parametrize(
    ("key", "values", "level"),
    [
        ("seed", (0, 1), "caution"),
        ("dtype", ("float32", "bfloat16"), "caution"),
        ("data_sha256", ({"d": "1"}, {"d": "2"}), "caution"),
        ("suite", ({"sha256": "1"}, {"sha256": "2"}), "caution"),
        ("format", ("raw", "chat"), "blocks"),
        ("versions", ({"torch": "2.8"}, {"torch": "2.9"}), "note"),
        ("versions", ({"dlm-sway": "1"}, {"dlm-sway": "2"}), "caution"),
        ("n_draws", (19, 39), "note"),
    ],
)
def test_what_came_about_differently_is_said(key: str, values: tuple[Any, Any], level: str) -> None:
    a, b = (suite(probe(HARD[:N]), **{key: value}) for value in values)
    (remark,) = compare(a, b).remarks
    assert (remark.what, remark.level) == (key, level)


def test_the_same_adapter_is_named_as_such() -> None:
    result = suite(probe(HARD[:N]), adapter_sha256={"w": "1"})
    assert [r.message for r in compare(result, result).remarks] == ["it is the same adapter"]


def test_the_table_has_the_best_first_with_its_lead_and_how_sure_that_is() -> None:
    made = [suite(probe(HARD[:N] + shift + noise(i)), adapter=n) for i, (n, shift) in enumerate((("a", 0), ("z", 1)))]
    rows = compare(*made).table
    assert [r.candidate for r in rows] == ["z", "a"]
    assert rows[0].difference == 0.0
    assert rows[1].difference == pytest.approx(-1, abs=0.1)
    assert rows[1].se_difference is not None
    assert rows[1].se is not None
    assert rows[1].se_difference < rows[1].se / 5
    assert compare(*made).selections == ()


def _crowd(lead: float) -> Comparison:
    made = [suite(probe(HARD[:N] + (lead if i == 3 else 0) + noise(i)), adapter=f"c{i}") for i in range(10)]
    return compare(*made)


def test_the_best_of_many_equal_ones_is_called_an_artefact_of_choosing() -> None:
    (equal,), (real,) = _crowd(0.0).selections, _crowd(0.5).selections
    assert equal.artefact
    assert not real.artefact
    assert real.best == "c3"


def test_results_are_named_by_file_or_adapter_and_never_twice_the_same(tmp_path: Path) -> None:
    result = suite(probe(HARD[:N]), adapter="runs/one")
    other = suite(probe(HARD[:N]), adapter="runs/two")
    paths = [tmp_path / "x" / "r.json", tmp_path / "y" / "r.json"]
    for path, each in zip(paths, (result, other), strict=True):
        path.parent.mkdir()
        path.write_text(dumps(each.model_dump(mode="json")))
    assert [c.name for c in compare(result, other).candidates] == ["one", "two"]
    assert [c.name for c in compare(*paths).candidates] == [str(p) for p in paths]
    assert [c.name for c in compare(result, result).candidates] == ["A", "B"]
    assert [c.name for c in compare(result, other, names=("p", "q")).candidates] == ["p", "q"]
    with pytest.raises(BadInputError, match="a name of its own"):
        compare(result, other, names=("p",))


def test_a_result_read_back_from_its_file_gives_the_same_comparison(tmp_path: Path) -> None:
    made = [suite(probe(HARD[:N] + i * 0.2 + noise(i)), adapter=f"c{i}") for i in range(2)]
    paths = [tmp_path / f"c{i}.json" for i in range(2)]
    for path, result in zip(paths, made, strict=True):
        path.write_text(dumps(result.model_dump(mode="json")))
    assert compare(*paths) == compare(*made)
    assert Comparison.model_validate_json(compare(*made).model_dump_json()) == compare(*made)


def test_results_of_checks_are_compared_too(tmp_path: Path) -> None:
    made = [
        CheckResult(adapter=n, base="b", verdict=Verdict.PASS, questions={}, probes=(probe(HARD[:N] + shift),))
        for n, shift in (("x", 0.0), ("y", 1.0))
    ]
    path = tmp_path / "y.json"
    path.write_text(dumps(made[1].model_dump(mode="json")))
    assert only(compare(made[0], path)).outcome == "better"


def checked(*probes: ProbeResult, adapter: str = "x", **verdicts: str) -> CheckResult:
    questions = {n: Question(verdict=Verdict(v), effect=0.0, message=f"{n} is {v}") for n, v in verdicts.items()}
    return CheckResult(adapter=adapter, base="b", verdict=Verdict.PASS, questions=questions, probes=probes)


def test_an_adapter_that_is_no_longer_sound_is_a_regression_of_its_check() -> None:
    found = compare(checked(probe(HARD[:N]), sound="pass"), checked(probe(HARD[:N]), sound="fail", adapter="y"))
    assert [(r.probe, r.why, r.message) for r in found.regressions] == [
        ("sound", "pass to fail", "was pass, is fail: sound is fail")
    ]
    assert found.gate() is ExitCode.FAIL
    assert [c.verdict for c in found.candidates] == [Verdict.PASS, Verdict.FAIL]


def test_a_sound_check_says_no_more_of_its_numbers_than_before() -> None:
    found = compare(checked(probe(HARD[:N]), sound="pass"), checked(probe(HARD[:N]), sound="warn", adapter="y"))
    assert found.regressions == ()
    assert {c.probe: c.outcome for c in found.contrasts}["sound"] == "not comparable"
    assert {row.probe for row in found.table} == {"gain"}
    assert found.gate() is ExitCode.PASS


def test_an_error_of_a_check_that_no_probe_is_in_is_one_of_its_comparison() -> None:
    broken = checked(sound="pass", applied="error", learned="skip", adapter="y")
    found = compare(checked(probe(HARD[:N]), sound="pass", applied="pass", learned="pass"), broken)
    assert found.candidates[1].verdict is Verdict.ERROR
    failed = ProbeResult(name="gain", kind="k", verdict=Verdict.ERROR, message="applied is error")
    again = read_any(checked(failed, sound="pass", applied="error"))
    assert [p.name for p in again.probes] == ["sound", "gain"]


def test_a_result_of_a_newer_sway_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    document = suite(probe(HARD[:N])).model_dump(mode="json")
    for version, said in ((99, "update sway"), ("1", "schema_version"), (None, "schema_version")):
        path.write_text(json.dumps({**document, "schema_version": version}))
        with pytest.raises(BadInputError, match=said):
            compare(path, path)


@pytest.mark.parametrize(("alpha", "outcome"), [(0.05, "no decided difference"), (0.2, "better")])
def test_the_level_decides_together_with_an_interval_of_that_level(alpha: float, outcome: str) -> None:
    steps = np.random.default_rng(1).normal(scale=0.3, size=N)
    steps += 1.75 * steps.std(ddof=1) / N**0.5 - steps.mean()
    found = only(against(probe(HARD[:N]), probe(HARD[:N] + steps), alpha=alpha))
    assert found.p == pytest.approx(0.088, abs=0.002)
    assert found.outcome == outcome
    assert found.interval is not None
    assert (found.interval[0] > 0) == (outcome == "better")


def test_the_level_of_an_unpaired_interval_is_that_of_the_comparison() -> None:
    pair = (probe(None, interval=(0.0, 0.2)), probe(None, interval=(0.13, 0.33)))
    strict, loose = (only(against(*pair, alpha=alpha)) for alpha in (0.05, 0.2))
    assert (strict.paired, strict.outcome, loose.outcome) == (False, "no decided difference", "differs")
    assert strict.interval is not None
    assert loose.interval is not None
    assert strict.interval[0] < 0 < loose.interval[0]


def test_how_few_items_cannot_decide_depends_on_the_level() -> None:
    pair = (probe([0.0] * 4), probe([1.0, -1.1, 0.9, 1.0]))
    assert "4 cannot decide; give both at least 8" in only(against(*pair, alpha=0.01)).message
    assert "cannot decide" not in only(against(*pair, alpha=0.2)).message


def test_one_result_has_nothing_to_be_compared_with() -> None:
    with pytest.raises(BadInputError, match="nothing to compare"):
        compare(suite(probe(HARD[:N])))


@pytest.mark.parametrize("text", ["", "[]", "7", '{"probes": 3}', "{" * 100_000, '{"questions": {}}'])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(BadInputError) as fault:
        compare(path, path)
    assert str(path) in str(fault.value)


@pytest.mark.parametrize(
    "row",
    [
        7,
        {"claim": "c"},
        {"claim": "c", "id": "x", "value": "1", "tokens": 1},
        {"claim": "c", "id": "x", "value": 1e300, "tokens": 1},
        {"claim": "c", "id": "x", "value": 10**400, "tokens": 1},
        {"claim": "c", "id": "x", "value": float("nan"), "tokens": 1},
        {"claim": "c", "id": "x", "value": 1.0, "tokens": 0},
        {"claim": "c", "id": "x", "value": 1.0, "tokens": True},
        {"claim": "c", "id": "x", "value": None, "tokens": 1},
        {"claim": "c", "id": 3, "value": 1.0, "tokens": 1},
    ],
)
def test_rows_that_are_none_are_left_out(row: Any) -> None:
    healthy = probe(HARD[:N])
    odd = healthy.model_copy(update={"evidence": {**healthy.evidence, "per_item": [row]}})
    found = only(against(odd, odd))
    assert found.outcome == "not comparable"


@pytest.mark.parametrize("paired", [7, {"c": 3}, {"c": {"unit": 3, "better": "up", "minimum": -1, "n_items": "many"}}])
def test_odd_words_about_rows_decide_nothing(paired: Any) -> None:
    healthy = probe(HARD[:N])
    odd = healthy.model_copy(update={"evidence": {**healthy.evidence, "paired": paired}})
    assert only(against(odd, odd)).outcome in ("not comparable", "no decided difference")


def test_it_is_the_same_twice() -> None:
    a, b = probe(HARD[:20] + noise(1, 20)), probe(HARD[:20] + noise(2, 20))
    assert against(a, b) == against(a, b)


def _as_written(found: Comparison) -> Mapping[str, Any]:
    loaded: dict[str, Any] = json.loads(dumps(found.model_dump(mode="json")))
    return loaded


def test_it_can_be_written_as_json() -> None:
    assert _as_written(against(probe(HARD[:N]), probe(HARD[:N])))["reference"] == "a"
