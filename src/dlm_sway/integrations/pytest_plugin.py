"""pytest plugin: `@pytest.mark.sway(spec="sway.yaml")` makes a test of each probe of a suite, and one of its gate.

pytest imports this module in every project where sway is installed, so it imports nothing but pytest at its head: what
it needs is loaded when a mark is met.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from dlm_sway.core.result import ProbeResult, SuiteResult
    from dlm_sway.integrations.mark import SwayMark
    from dlm_sway.integrations.one_run import Outcome

GATE: Final = "__gate__"
BROKEN: Final = "__spec__"
_CASE: Final = "_sway_case"
_runs: Final = pytest.StashKey["dict[str, Outcome]"]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known, so that `--strict-markers` takes it."""
    words = "sway(spec, threshold, coverage, strict, marks, ...): one test a probe of the suite, and one of its gate"
    config.addinivalue_line("markers", words)
    config.stash[_runs] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Turn a marked function into one item a probe and one of the gate; a broken spec becomes one item that fails."""
    if metafunc.definition.get_closest_marker("sway") is None:
        return
    from dlm_sway.core.errors import SwayError

    try:
        cases = _cases(_mark_of(metafunc.definition))
    except SwayError as fault:
        cases = [pytest.param((BROKEN, fault.one_line()), id=BROKEN)]
    if _CASE not in metafunc.fixturenames:
        metafunc.fixturenames.append(_CASE)
    metafunc.parametrize(_CASE, cases, indirect=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail what the mark stands on and cannot expand, such as a method of unittest: unjudged it would pass."""
    if isinstance(item, pytest.Function) and item.get_closest_marker("sway") is not None:
        _case_of(item)


@pytest.fixture
def _sway_case(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Judge before the body runs: what the body adds is asked only of what passed."""
    if pyfuncitem.get_closest_marker("sway") is not None:
        _judge(pyfuncitem)
    return (yield)


@pytest.fixture
def sway_result(request: pytest.FixtureRequest) -> SuiteResult:
    """What the suite of the `sway` mark found."""
    return _result(request.node)


@pytest.fixture
def sway_probe(request: pytest.FixtureRequest) -> ProbeResult | None:
    """What the probe of this item found; None for the gate."""
    name, _ = _case_of(request.node)
    return next((probe for probe in _result(request.node).probes if probe.name == name), None)


def _mark_of(item: Any) -> SwayMark:
    from dlm_sway.integrations.mark import read_mark

    mark = item.get_closest_marker("sway")
    return read_mark(mark.args, mark.kwargs, (Path(item.path).parent, item.config.rootpath))


def _cases(mark: SwayMark) -> list[Any]:
    from dlm_sway.core.errors import BadInputError
    from dlm_sway.suite.faults import did_you_mean
    from dlm_sway.suite.loader import load_spec
    from dlm_sway.suite.run import arranged_for
    from dlm_sway.suite.settings import Settings

    suite, settings = load_spec(mark.spec), Settings(**mark.settings)
    settings.draws(suite)
    names = [spec.name for _, spec in arranged_for(suite, settings).pairs] + [GATE]
    for name in mark.marks:
        if name not in names:
            remedy = did_you_mean(name, names)
            raise BadInputError(f"marks names no probe: `{name}`", where="@pytest.mark.sway", remedy=remedy)
    return [pytest.param((name, None), id=name, marks=mark.marks.get(name, ())) for name in names]


def _case_of(item: Any) -> tuple[str, str | None]:
    case = item.callspec.params.get(_CASE) if hasattr(item, "callspec") else None
    if case is None:
        pytest.fail("the sway mark works on functions and on methods of plain classes", pytrace=False)
    return case  # type: ignore[no-any-return]


def _judge(item: pytest.Function) -> None:
    name, fault = _case_of(item)
    if fault is not None:
        pytest.fail(fault, pytrace=False)
    mark, result = _mark_of(item), _result(item)
    if name == GATE:
        _judge_gate(item, mark, result)
        return
    found = next((probe for probe in result.probes if probe.name == name), None)
    if found is None:
        pytest.fail(f"the run has no result of `{name}`", pytrace=False)
    _judge_probe(item, found, strict=mark.strict)


def _judge_gate(item: pytest.Function, mark: SwayMark, result: SuiteResult) -> None:
    from dlm_sway.report.text import clean
    from dlm_sway.suite.gate import gate

    found = gate(result, threshold=mark.threshold, coverage_threshold=mark.coverage, strict=mark.strict)
    item.user_properties += [("sway_score", found.score.score), ("sway_coverage", found.score.coverage)]
    if found.breaches:
        lines = "\n".join(f"  {clean(breach.name)}: {clean(breach.message)}" for breach in found.breaches)
        pytest.fail(f"the gate is closed\n{lines}", pytrace=False)


def _judge_probe(item: pytest.Function, found: ProbeResult, *, strict: bool) -> None:
    from dlm_sway.core.result import Verdict
    from dlm_sway.integrations.wording import probe_line

    item.user_properties += [("sway_verdict", str(found.verdict)), ("sway_effect", found.raw)]
    line = probe_line(found)
    if found.verdict in (Verdict.FAIL, Verdict.ERROR) or (strict and found.verdict is Verdict.INCONCLUSIVE):
        pytest.fail(line, pytrace=False)
    if found.verdict in (Verdict.SKIP, Verdict.INCONCLUSIVE):
        pytest.skip(line)
    item.add_report_section("call", "sway", line)


def _result(item: Any) -> SuiteResult:
    name, fault = _case_of(item)
    outcome = None if name == BROKEN else _outcome(item.config, _mark_of(item))
    if outcome is None or outcome.result is None:
        pytest.fail(fault or f"the suite could not be run: {outcome.fault if outcome else ''}", pytrace=False)
    return outcome.result


def _outcome(config: pytest.Config, mark: SwayMark) -> Outcome:
    """Return what came of a suite that runs once a session, whichever worker asks first."""
    from dlm_sway.integrations.one_run import outcome_of, shared_outcome
    from dlm_sway.suite.run import run

    def of_suite() -> SuiteResult:
        return run(mark.spec, **mark.settings)

    known = config.stash[_runs]
    if mark.key not in known:
        shared = _shared_file(config)
        known[mark.key] = outcome_of(of_suite) if shared is None else shared_outcome(shared, mark.key, of_suite)
    return known[mark.key]


def _shared_file(config: pytest.Config) -> Path | None:
    """Return the file that all xdist workers of this session know; None outside xdist."""
    worker = getattr(config, "workerinput", None)
    if worker is None:
        return None
    folders: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined] # noqa: SLF001
    return folders.getbasetemp().parent / f"sway-{worker['testrunuid']}.sqlite"
