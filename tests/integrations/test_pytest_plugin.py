"""The mark, in test sessions of its own."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlm_sway.core.result import SuiteResult, Verdict

pytest_plugins = ["pytester"]

MakeSuite = Callable[..., Path]
MARKED = """
    import pytest

    @pytest.mark.sway(spec="sway.yaml"{words})
    def test_adapter({fixtures}):
        {body}
"""
# Counts the runs of a suite, in whatever process they happen; what they find was found before, where it stands there.
COUNTING = """
    from pathlib import Path
    import dlm_sway.suite.run as module
    from dlm_sway.core.result import SuiteResult

    real, known = module.run, Path("result.json").absolute()
    def counted(*args, **words):
        with open(known.with_name("runs.txt"), "a") as file:
            file.write("run\\n")
        return SuiteResult.model_validate_json(known.read_text()) if known.exists() else real(*args, **words)
    module.run = counted
"""


class Session:
    """A folder with a suite, and pytest in it."""

    def __init__(self, pytester: pytest.Pytester, make_suite: MakeSuite, known: dict[bool, SuiteResult]) -> None:
        self.pytester, self.make_suite, self.known = pytester, make_suite, known
        pytester.makeconftest(COUNTING)

    def suite(self, *, noise: bool = False, real: bool = False, **words: Any) -> None:
        self.make_suite(self.pytester.path, noise=noise, **words)
        if not real:
            self.finds(self.known[noise])

    def finds(self, result: SuiteResult) -> None:
        (self.pytester.path / "result.json").write_text(result.model_dump_json())

    def test(self, words: str = "", *, body: str = "pass", fixtures: str = "") -> None:
        self.pytester.makepyfile(MARKED.format(words=words, body=body, fixtures=fixtures))

    def run(self, *options: str) -> pytest.RunResult:
        alone = [word for name in ("randomly", "cacheprovider", "hypothesispytest") for word in ("-p", f"no:{name}")]
        return self.pytester.runpytest_inprocess(*alone, "-v", *options)

    def runs(self) -> int:
        path = self.pytester.path / "runs.txt"
        return len(path.read_text().split()) if path.exists() else 0


@pytest.fixture
def session(
    result: SuiteResult,
    noise_result: SuiteResult,
    pytester: pytest.Pytester,
    make_suite: MakeSuite,
    monkeypatch: pytest.MonkeyPatch,
) -> Session:
    import dlm_sway.suite.run as module

    monkeypatch.setattr(module, "run", module.run)  # the session counts on it; put back afterwards
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return Session(pytester, make_suite, {False: result, True: noise_result})


def test_each_probe_is_an_item_and_so_is_the_gate_and_the_suite_runs_once(session: Session) -> None:
    session.suite(real=True)
    session.test()
    found = session.run()
    names = ("null_adapter", "learned", "harmless", "__gate__")
    found.stdout.fnmatch_lines([f"*::test_adapter[[]{name}[]] PASSED*" for name in names])
    found.assert_outcomes(passed=4)
    assert session.runs() == 1


def test_a_noise_adapter_fails_its_probe_and_its_gate_in_words(session: Session) -> None:
    session.suite(noise=True)
    session.test()
    found = session.run()
    found.assert_outcomes(passed=2, failed=2)
    found.stdout.fnmatch_lines(["learned (delta_kl): fail, 0.* x the median null: *"])
    found.stdout.fnmatch_lines(["the gate is closed", "  learned: *"])
    found.stdout.no_fnmatch_line("*Traceback*")


def test_the_threshold_of_the_mark_closes_the_gate_alone(session: Session) -> None:
    session.suite()
    session.test(", threshold=1.0, coverage=1.0")
    found = session.run()
    found.assert_outcomes(passed=3, failed=1)
    found.stdout.fnmatch_lines(["*score: the score of * is under 1.00*"])


def test_under_xdist_one_worker_runs_the_suite_and_all_read_it(session: Session) -> None:
    session.suite(noise=True)
    session.test()
    found = session.run("-n", "2", "--dist", "load")
    found.assert_outcomes(passed=2, failed=2)
    assert session.runs() == 1


def test_k_chooses_items_and_what_is_deselected_costs_no_run(session: Session) -> None:
    session.suite()
    session.test()
    session.run("-k", "learned").assert_outcomes(passed=1, deselected=3)
    assert session.runs() == 1
    session.run("-k", "nothing").assert_outcomes(deselected=4)
    assert session.runs() == 1


def test_a_skipped_test_runs_no_suite(session: Session) -> None:
    session.suite()
    session.pytester.makepyfile("""
        import pytest

        @pytest.mark.skip(reason="not today")
        @pytest.mark.sway(spec="sway.yaml")
        def test_adapter():
            pass
    """)
    session.run().assert_outcomes(skipped=4)
    assert session.runs() == 0


def test_one_item_can_be_expected_to_fail(session: Session) -> None:
    session.suite(noise=True)
    session.test(', marks={"learned": pytest.mark.xfail(reason="known"), "__gate__": pytest.mark.skip}')
    session.run().assert_outcomes(passed=2, xfailed=1, skipped=1)


def test_fixtures_work_and_the_body_sees_what_was_found(session: Session) -> None:
    session.suite()
    body = "assert sway_result.verdict == 'pass' and tmp_path.is_dir(); print('saw', sway_probe and sway_probe.kind)"
    session.test(body=body, fixtures="sway_probe, sway_result, tmp_path")
    found = session.run("-s")
    found.assert_outcomes(passed=4)
    found.stdout.fnmatch_lines(["*saw delta_kl*", "*saw external_perplexity*", "*saw None*"])


def test_a_body_that_fails_fails_its_item(session: Session) -> None:
    session.suite()
    session.test(body="assert sway_probe is not None", fixtures="sway_probe")
    session.run().assert_outcomes(passed=3, failed=1)


def test_other_parameters_multiply_the_items(session: Session) -> None:
    session.suite()
    session.pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("n", [1, 2])
        @pytest.mark.sway("sway.yaml")
        def test_adapter(n):
            pass
    """)
    session.run().assert_outcomes(passed=8)
    assert session.runs() == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (", spec_='x'", "*unknown word `spec_`; did you mean `spec`?*"),
        (", threshold=7", "*threshold=7 is no share*"),
        (", n_draws=3", "*3 draws are too few*"),
        (", marks={'lerned': pytest.mark.skip}", "*marks names no probe: `lerned`; did you mean `learned`?*"),
    ],
)
def test_a_mark_that_says_nonsense_fails_one_item(session: Session, words: str, line: str) -> None:
    session.suite()
    session.test(words)
    found = session.run()
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines([line])


def test_a_broken_spec_fails_one_item_that_names_every_fault(session: Session) -> None:
    session.suite(probes=({"name": "a", "kind": "delta_kll"}, {"name": "b", "kind": "target_gian"}))
    session.test(fixtures="sway_result")
    found = session.run()
    assert found.ret == 1
    found.stdout.fnmatch_lines(["*test_adapter[[]__spec__[]]*", "*sway.yaml:*delta_kll*did you mean*target_gian*"])
    assert session.runs() == 0


def test_a_spec_that_is_not_there_fails_one_item(session: Session) -> None:
    session.test()
    found = session.run()
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["*sway.yaml*"])


def test_a_run_that_cannot_be_made_fails_every_item_so_that_none_passes_unasked(session: Session) -> None:
    session.suite()
    session.pytester.makeconftest("""
        import dlm_sway.suite.run as module
        from dlm_sway.core.errors import CannotRunError

        def broken(*args, **words):
            raise CannotRunError("out of memory", remedy="use --dtype bf16")
        module.run = broken
    """)
    session.test()
    found = session.run()
    found.assert_outcomes(failed=4)
    found.stdout.fnmatch_lines(["*the suite could not be run: out of memory; use --dtype bf16*"])


def test_undecided_is_skipped_and_strict_makes_it_and_the_gate_fail(session: Session, result: SuiteResult) -> None:
    session.suite()
    undecided = {"verdict": Verdict.INCONCLUSIVE}
    probes = tuple(p.model_copy(update=undecided if p.name == "learned" else {}) for p in result.probes)
    session.finds(result.model_copy(update={"probes": probes}))
    session.test(", coverage=0")
    session.run().assert_outcomes(passed=3, skipped=1)
    session.test(", coverage=0, strict=True")
    session.run().assert_outcomes(passed=2, failed=2)


def test_a_method_that_cannot_be_judged_does_not_pass(session: Session) -> None:
    session.suite()
    session.pytester.makepyfile("""
        import unittest
        import pytest

        class TestIt(unittest.TestCase):
            @pytest.mark.sway(spec="sway.yaml")
            def test_adapter(self):
                pass
    """)
    found = session.run()
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(["*the sway mark works on functions*"])


def test_junit_has_a_case_an_item_with_what_was_measured(session: Session) -> None:
    session.suite()
    session.test()
    session.run("--junitxml=junit.xml")
    cases = {case.get("name"): case for case in ET.parse(session.pytester.path / "junit.xml").iter("testcase")}  # noqa: S314 (our own file)
    assert set(cases) == {f"test_adapter[{name}]" for name in ("null_adapter", "learned", "harmless", "__gate__")}
    said = {p.get("name"): p.get("value") for p in cases["test_adapter[learned]"].iter("property")}
    assert said["sway_verdict"] == "pass"
    assert float(said["sway_effect"] or 0) > 0


def test_the_mark_is_known_to_strict_sessions(session: Session) -> None:
    session.suite()
    session.test()
    session.run("--strict-markers", "--collect-only").stdout.fnmatch_lines(["*4 tests collected*"])


def test_a_session_without_the_mark_loads_nothing() -> None:
    code = """
import sys
import pytest
import dlm_sway.integrations.pytest_plugin
heavy = [n for n in ("numpy", "torch", "pydantic", "yaml", "sqlite3", "rich", "scipy") if n in sys.modules]
ours = [n for n in sys.modules if n.startswith("dlm_sway.")]
assert not heavy, heavy
assert sorted(ours) == ["dlm_sway.integrations", "dlm_sway.integrations.pytest_plugin"], ours
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_test_without_the_mark_is_left_alone(session: Session) -> None:
    session.pytester.makepyfile("def test_it(): pass")
    session.run().assert_outcomes(passed=1)
