from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dlm_sway.core.determinism import stream
from dlm_sway.core.errors import BadInputError
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.engine.ask import Ask, Scores
from dlm_sway.probes.base import Env, build_probe
from dlm_sway.probes.section_marks import nulls_of

Language = Callable[..., tuple[str, ...]]
Run = Callable[..., ProbeResult]
KIND = "section_internalization"
N = 64  # tokens of a second half


def named(texts: tuple[str, ...], start: int = 0) -> list[dict[str, str]]:
    return [{"text": text, "label": f"section {start + i}"} for i, text in enumerate(texts)]


def taught(language: Language, n: int = 4) -> tuple[str, ...]:
    return language(n, length=2 * N)


def judged(
    gains: Any,
    *,
    bond: float = 0.0,
    tone: float = 0.0,
    nulls: float = 0.0,
    p: float = 0.05,
    spread: float = 0.3,
    n_draws: int = 19,
    tokens: int = N,
    easier: float = 0.0,
    **options: Any,
) -> ProbeResult:
    """Judge sections whose tokens gain `gains` nat each, and controls that gain `tone`.

    Behind other first halves a second half gains `bond` less; nulls gain about `nulls`. Where own first halves make
    text `easier` for the base by so many nats, a token gains 0.2 nat less for each, and control tokens do so too.
    """
    rng = stream(0, "judged")
    texts = [{"text": f"a{i} b{i} c{i} d{i}", "label": f"s{i}"} for i in range(len(gains))]
    probe, spec = build_probe({"name": "x", "kind": KIND, "sections": texts, **options})
    env = Env(n_draws=n_draws)
    own, matrix, control, under_nulls = probe.plan(spec, env, ())

    def answer(ask: Ask, mean: Any, size: int) -> Scores:
        values = np.repeat(np.asarray(mean, dtype=np.float64), size, axis=1)
        values += spread * rng.standard_normal(values.shape)
        offsets = np.arange(len(ask.items) + 1) * size
        base = rng.normal(-3, 1, offsets[-1])
        if easier:
            base += np.repeat([easier * (i.label == i.cluster) for i in ask.items], size)
            values -= 0.2 * (base + 3)
        return Scores(ask.items, ask.views, offsets, {"gain": values}, base)

    by_label = dict(zip((t["label"] for t in texts), gains, strict=True))
    cells = [[by_label[i.cluster] - bond * (i.label != i.cluster) for i in matrix.items]]
    drawn = nulls + 0.02 * rng.standard_normal((n_draws + 1, len(under_nulls.items)))
    drawn[0] = [by_label[i.cluster] for i in under_nulls.items]
    seen = (
        (
            answer(own, [gains], tokens),
            answer(matrix, cells, tokens),
            answer(control, [[tone] * len(control.items)], 30),
            answer(under_nulls, drawn, min(48, tokens)),
        ),
    )
    assert probe.plan(spec, env, seen) == ()
    return probe.judge(spec, env, probe.measure(spec, env, seen), {"took": p})


@pytest.mark.healthy_pair
def test_a_document_that_was_learned_took_in_every_section(ran: Run, language: Language) -> None:
    texts = taught(language)
    result = ran({"adapter": "trained", "towards": texts}, kind=KIND, sections=named(texts))
    assert result.verdict is Verdict.PASS
    assert result.score == 1.0
    assert result.raw > 0.5
    assert result.evidence["took"] == [f"section {i}" for i in range(4)]
    assert "4 of 4 sections took" in result.message


@pytest.mark.planted_fault
def test_the_sections_that_did_not_take_are_named_with_what_would_have_shown(ran: Run, language: Language) -> None:
    texts, other = taught(language), language(2, first=70, length=2 * N)
    result = ran({"adapter": "trained", "towards": texts}, kind=KIND, sections=[*named(texts), *named(other, 4)])
    assert (result.verdict, result.score) == (Verdict.WARN, pytest.approx(4 / 6))
    missed = result.evidence["did_not"]
    assert [row["label"] for row in missed] == ["section 4", "section 5"]
    for row in missed:
        assert row["smallest_decidable_effect"] >= 0.05
        assert f"section {row['label'][-1]} (gain " in result.message
        assert "it would have shown" in row["why"]


@pytest.mark.planted_fault
def test_another_document_fails(ran: Run, language: Language) -> None:
    texts = taught(language)
    result = ran({"adapter": "trained", "towards": language(4, first=70)}, kind=KIND, sections=named(texts))
    assert (result.verdict, result.score) == (Verdict.FAIL, 0.0)
    assert "0 of 4 sections took" in result.message


def test_the_gain_is_that_of_second_halves_behind_their_own_first_halves(ran: Run, language: Language) -> None:
    from dlm_sway.backends.dummy import DummyBackend
    from dlm_sway.backends.dummy_options import DummyOptions

    texts = language(4, length=24)
    backend = DummyBackend(DummyOptions(adapter="trained", towards=texts))
    sums = []
    for opened in (backend.as_base(), backend.as_finetuned()):
        with opened as view:
            words = [text.split() for text in texts]
            sums.append(sum(view.logprob_of(" ".join(w[:12]), " " + " ".join(w[12:])) for w in words))
    result = ran(backend, kind=KIND, sections=named(texts))
    assert result.raw == pytest.approx((sums[1] - sums[0]) / 48, rel=1e-5)


def test_the_sum_over_sections_is_not_zero_by_construction() -> None:
    assert judged([0.5] * 5).raw == pytest.approx(0.5, abs=0.05)


def test_content_bound_to_its_context_is_told_from_a_tone() -> None:
    bound = judged([0.6] * 6, bond=0.4)
    bond = bound.evidence["bond"]
    assert (bound.verdict, bond["shown"]) == (Verdict.PASS, True)
    assert bond["p"] == pytest.approx(1 / 720)
    assert bond["estimate"] == pytest.approx(0.4, abs=0.06)
    tone = judged([0.6] * 6)
    assert (tone.verdict, tone.evidence["bond"]["shown"]) == (Verdict.PASS, False)
    assert tone.evidence["bond"]["p"] > 0.05


def test_a_base_that_gains_from_its_own_context_does_not_hide_the_bond() -> None:
    """Behind its own first half a text is easier, so that there is less to gain: equal difficulty is compared."""
    result = judged([0.6] * 6, bond=0.1, easier=1.0)
    assert result.evidence["bond"]["unadjusted"] < -0.05
    assert result.evidence["bond"]["estimate"] > 0.05


def test_a_gain_that_text_of_the_same_form_has_too_is_not_taken_in() -> None:
    result = judged([0.6] * 5, tone=0.9)
    assert result.verdict is Verdict.FAIL
    assert "no more than text as hard" in result.message


def test_a_gain_that_random_directions_have_is_not_taken_in() -> None:
    result = judged([0.5] * 5, nulls=0.5)
    assert result.verdict is not Verdict.PASS
    assert result.evidence["took"] == []


def test_what_later_draws_could_change_is_known_of_each_section() -> None:
    rates = np.vstack([np.array([[0.5, 0.1, 0.1]]), np.linspace([0.0, 0.0, 0.0], [0.4, 0.4, 0.4], 19)])
    nulls = nulls_of(rates, alpha=0.05)
    low, high = (nulls.at_end(39, above=above) for above in (False, True))
    beaten = np.array([0, 14, 14])
    assert low.p_raw.tolist() == pytest.approx(((1 + beaten) / 40).tolist())
    assert high.p_raw.tolist() == pytest.approx(((21 + beaten) / 40).tolist())
    assert (low.p <= nulls.p).all()
    assert high.p.tolist() == [1.0] * 3


def test_whether_any_section_took_is_asked_of_the_whole_suite_first() -> None:
    assert judged([0.5] * 5, p=0.05).verdict is Verdict.PASS
    later = judged([0.5] * 5, p=0.3)
    assert later.verdict is Verdict.INCONCLUSIVE
    assert {row["p"] for row in later.evidence["per_item"]} == {0.3}


def test_short_or_uneven_sections_are_undecided() -> None:
    short = judged([0.5] * 5, tokens=6)
    assert short.verdict is Verdict.INCONCLUSIVE
    assert "6 tokens are too few" in short.message
    uneven = judged([0.06] * 5, spread=1.0)
    assert uneven.verdict is Verdict.INCONCLUSIVE
    assert uneven.score is None


def test_too_few_draws_are_inconclusive() -> None:
    result = judged([0.5] * 5, n_draws=9, p=0.1)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "use --draws 19" in result.message


def test_many_sections_exchange_halves_in_groups_by_the_seed() -> None:
    texts = [{"text": f"a{i} b{i} c{i} d{i}", "label": f"s{i}"} for i in range(30)]
    probe, spec = build_probe({"name": "x", "kind": KIND, "sections": texts, "partners": 5, "max_sections": 20})
    asks = probe.plan(spec, Env(seed=1), ())
    assert [len(a.items) for a in asks] == [20, 20 * 5, 24, 20]
    other = probe.plan(spec, Env(seed=2), ())
    assert {i.cluster for i in asks[1].items} != {i.cluster for i in other[1].items}
    result = judged([0.5] * 12, partners=4)
    values = result.evidence["matrix"]["values"]
    assert sum(v is not None for row in values for v in row) == 3 * 16 == result.evidence["counts"]["n_cells"]
    assert "3 groups" in result.evidence["matrix_note"]
    assert all(values[i][i] == pytest.approx(0.5, abs=0.2) for i in range(12))


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_no_section_is_left_without_a_partner(n: int) -> None:
    result = judged([0.5] * n, partners=2)
    assert result.verdict is Verdict.PASS
    assert result.evidence["counts"]["n_cells"] == (2 * n if n % 2 == 0 else 2 * (n - 3) + 9)


def test_the_matrix_has_first_halves_as_rows(language: Language) -> None:
    probe, spec = build_probe({"name": "x", "kind": KIND, "sections": named(taught(language, 3))})
    items = probe.plan(spec, Env(), ())[1].items
    assert [i.prompt for i in items[:3]] == [items[0].prompt] * 3
    assert len({i.completion for i in items[:3]}) == 3
    assert items[0].completion == items[3].completion
    assert (items[0].label, items[1].label) == (items[0].cluster, f"{items[1].cluster} behind {items[0].cluster}")


def test_text_is_read_as_text_and_prompts_as_the_run_says(language: Language) -> None:
    probe, spec = build_probe({"name": "x", "kind": KIND, "sections": named(taught(language))})
    assert {a.format for a in probe.plan(spec, Env(chat=True, format="chat"), ())} == {"raw"}
    pairs = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(4)]
    probe, spec = build_probe({"name": "x", "kind": KIND, "sections": pairs})
    asks = probe.plan(spec, Env(chat=True, format="chat"), ())
    assert {a.format for a in asks} == {"chat"}
    assert asks[0].items[0].prompt == "question 0"
    with pytest.raises(BadInputError, match="some sections have a prompt"):
        build_probe({"name": "x", "kind": KIND, "sections": [*pairs, {"text": "a b", "label": "t"}]})


@pytest.mark.parametrize("texts", [["one two three four"], ["one two", "one two "], ["x", " ", "one two"]])
def test_fewer_than_two_sections_with_text_are_inconclusive(ran: Run, texts: list[str]) -> None:
    result = ran({}, kind=KIND, sections=texts)
    assert (result.verdict, result.score, result.raw) == (Verdict.INCONCLUSIVE, None, None)
    assert "give at least 2" in result.message
    assert len(result.evidence["dropped"]) == len(texts) - 1


def test_two_sections_of_one_name_are_refused(language: Language) -> None:
    given = [{"text": text, "label": "same"} for text in taught(language)]
    with pytest.raises(BadInputError, match="two sections are called 'same'"):
        build_probe({"name": "x", "kind": KIND, "sections": given})


def test_two_sections_have_a_matrix_and_no_bond_that_could_show() -> None:
    result = judged([0.5] * 2, bond=0.4)
    assert result.verdict is Verdict.PASS
    assert (result.evidence["bond"]["p"], result.evidence["bond"]["shown"]) == (0.5, False)


def test_without_a_null_the_pieces_decide(ran: Run, language: Language) -> None:
    texts = taught(language)
    result = ran({"adapter": "trained", "towards": texts, "refusal": "no rule"}, kind=KIND, sections=named(texts))
    assert result.verdict is Verdict.PASS
    assert "N5" in result.evidence["claims"]["took"]["null"]


def test_other_scripts_are_cut_and_read(ran: Run) -> None:
    texts = [
        "今天天气很好我们去公园散步。" * 4,
        "مرحبا بك في هذا المكان " * 8,
        "👩‍👩‍👧‍👦🙂" * 9,
        "e\u0301n\u0303 o\u0308 " * 9,
    ]
    result = ran({}, kind=KIND, sections=texts)
    assert result.evidence["counts"]["n_items"] == 4
    assert np.isfinite(result.raw)


def test_numbers_that_are_not_finite_are_an_error(ran: Run, language: Language) -> None:
    assert ran({"nan_in": ["adapter"]}, kind=KIND, sections=named(taught(language))).verdict is Verdict.ERROR


def test_a_section_beyond_the_window_is_read_in_part(ran: Run, language: Language) -> None:
    texts = language(4, length=900)
    result = ran({"max_length": 512, "adapter": "trained", "towards": texts}, kind=KIND, sections=named(texts))
    assert result.verdict is Verdict.PASS
    assert result.evidence["counts"]["n_tokens"] == 4 * 256


def test_the_same_run_gives_the_same_bytes(ran: Run, language: Language) -> None:
    first, second = (
        ran({}, kind=KIND, sections=named(taught(language))).model_copy(update={"duration_s": 0.0}) for _ in range(2)
    )
    assert first.model_dump_json() == second.model_dump_json()


def test_noise_passes_no_more_often_than_its_level(ran: Run, language: Language) -> None:
    sections = named(language(4, length=100))
    took = [
        ran({"strength": 1.0, "adapter_seed": 700 + s}, kind=KIND, sections=sections, settings={"seed": s}).evidence[
            "took"
        ]
        for s in range(40)
    ]
    assert np.mean([bool(t) for t in took]) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 40)
