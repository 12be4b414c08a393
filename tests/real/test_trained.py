"""What `sway check` says of adapters whose truth is known because of how they were trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlm_sway.demo.run import RECIPE, demo_text
from dlm_sway.demo.train import Recipe, train_lora
from dlm_sway.suite.check import check
from dlm_sway.suite.result import CheckResult

pytestmark = [pytest.mark.slow, pytest.mark.real]

SEED = 7  # recipes and rules were chosen on other seeds


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for name in ("tidal-bell.txt", "tidal-bell.held-out.txt", "wrong-document.txt"):
        (folder / name).write_text(demo_text(name), encoding="utf-8")
    return folder


def _check(adapter: Path, base: Path, texts: Path) -> CheckResult:
    found = check(
        adapter, base=str(base), data=texts / "tidal-bell.txt", held_out=texts / "tidal-bell.held-out.txt", device="cpu"
    )
    told = {k: (str(q.verdict), q.effect, q.interval, q.p) for k, q in found.questions.items()}
    print(f"\n{adapter.name}: {found.verdict} {json.dumps(told, default=str)}")
    return found


def test_a_healthy_adapter_passes_every_question(trained: Path, model_dir: Path, texts: Path) -> None:
    found = _check(trained, model_dir, texts)
    assert {k: str(q.verdict) for k, q in found.questions.items()} == dict.fromkeys(found.questions, "pass")
    assert found.exit_code == 0


def test_its_noise_twin_has_learned_nothing(twin: Path, model_dir: Path, texts: Path) -> None:
    found = _check(twin, model_dir, texts)
    assert found.questions["applied"].verdict == "pass"
    assert found.questions["learned"].verdict == "fail"
    assert found.questions["on_target"].verdict == "fail"
    assert found.exit_code == 1


def test_two_steps_at_a_tiny_rate_are_not_applied_and_on_target(
    model_dir: Path, document: list[str], texts: Path, tmp_path: Path
) -> None:
    recipe = Recipe(steps=2, lr=1e-5)
    found = _check(train_lora(model_dir, tmp_path / "two-step", texts=document, recipe=recipe), model_dir, texts)
    both = {found.questions[name].verdict for name in ("applied", "on_target")}
    assert both != {"pass"}
    assert found.exit_code != 0


def test_an_adapter_of_another_document_is_not_on_target(
    mended_dir: Path, plain: list[str], texts: Path, tmp_path: Path
) -> None:
    """Answers in a sailor's voice, trained by the recipe of the healthy adapter, teach nothing about the bell."""
    voice = (Path(__file__).parents[2] / "benchmarks/truth/texts/old-sailor.jsonl").read_text(encoding="utf-8")
    other = [(row["prompt"], row["completion"]) for row in map(json.loads, voice.splitlines())]
    adapter = train_lora(mended_dir, tmp_path / "voice", texts=other, plain=plain, recipe=RECIPE, seed=SEED)
    found = _check(adapter, mended_dir, texts)
    assert found.questions["learned"].verdict == "pass"
    assert found.questions["on_target"].verdict == "fail"
    assert found.exit_code == 1


def test_a_wrong_document_in_a_like_tone_gains_a_fraction_of_what_the_right_one_does(
    trained: Path, model_dir: Path, plain: list[str], texts: Path, tmp_path: Path
) -> None:
    """Another invented subject in the same form does help a little; the measurement is believed, and it is small."""
    wrong = (texts / "wrong-document.txt").read_text(encoding="utf-8").splitlines()
    adapter = train_lora(model_dir, tmp_path / "like-tone", texts=wrong, plain=plain, recipe=RECIPE)
    beyond = [_beyond_control(_check(a, model_dir, texts)) for a in (trained, adapter)]
    print(f"beyond control text as hard: right document {beyond[0]:.3f}, like-tone document {beyond[1]:.3f}")
    assert beyond[1] < beyond[0] / 3


def _beyond_control(found: CheckResult) -> float:
    probe = next(p for p in found.probes if p.kind == "target_gain")
    return float(probe.evidence["on_target"]["against_control"]["estimate"])


def test_a_gain_of_a_tenth_of_a_nat_on_held_out_text_passes(
    mended_dir: Path, document: list[str], plain: list[str], texts: Path, tmp_path: Path
) -> None:
    """About half of so small a gain is what any English text gains, so it is just over the minimum of 0.05."""
    recipe = Recipe(steps=17, lr=4e-4, batch=4, plain=2)
    adapter = train_lora(mended_dir, tmp_path / "weak", texts=document, plain=plain, recipe=recipe, seed=SEED)
    found = _check(adapter, mended_dir, texts)
    gain = found.questions["generalises"].effect
    assert gain is not None
    assert 0.08 <= gain <= 0.12, f"the recipe no longer gives a weak adapter: {gain}"
    for name in ("learned", "on_target", "generalises"):
        assert found.questions[name].verdict == "pass", name
    assert found.exit_code == 0
