from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.probes.base import Env, RunContext, build_probe


class Lora(torch.nn.Module):
    """Two adapted maps and one that the forward pass forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(6, 2, bias=False)
        self.b = torch.nn.Linear(2, 6, bias=False)
        self.ghost = torch.nn.Linear(6, 6, bias=False)
        torch.nn.init.zeros_(self.b.weight)


def trained(folder: Path, *, steps: int = 30, ghost: bool = False, name: str = "optimizer.pt", **more: Any) -> Path:
    """Train a tiny pair of factors with AdamW and save what a trainer saves."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Lora()
        used = [model.a.weight, model.b.weight] + [model.ghost.weight] * ghost
        optimizer = more.get("optimizer", torch.optim.AdamW)(used, lr=1e-2)
        for _ in range(steps):
            x = torch.randn(4, 6)
            (model.b(model.a(x)) - x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    state = optimizer.state_dict()
    more.get("change", lambda _: None)(state)
    torch.save(more.get("wrap", lambda s: s)(state), folder / name)
    trainer = {"global_step": steps, "epoch": more.get("epoch", 3.0), "log_history": []}
    (folder / "trainer_state.json").write_text(json.dumps(trainer))
    return folder


def judged(path: Path, **spec: Any) -> ProbeResult:
    probe, built = build_probe({"name": "x", "kind": "gradient_ghost", "checkpoint": str(path), **spec})
    assert probe.plan(built, Env(), ()) == ()
    return probe.run(built, RunContext(backend=None))


def claims(result: ProbeResult) -> dict[str, str]:
    return {name: c["verdict"] for name, c in result.evidence["claims"].items()}


def eight_bit(state: dict[str, Any], *, scales: bool = True) -> None:
    """Put moments as bitsandbytes keeps them: codes, and the largest size of each block."""
    for k, kept in state["state"].items():
        sizes = [kept["exp_avg"].abs().max()[None], kept["exp_avg_sq"].max()[None]]
        codes = [torch.full(kept["exp_avg"].shape, 127, dtype=torch.uint8)] * 2
        names = {f"state{i + 1}": code for i, code in enumerate(codes)}
        names |= {f"absmax{i + 1}": size for i, size in enumerate(sizes)} if scales else {}
        state["state"][k] = {"step": int(kept["step"]), **names}


def test_quantised_moments_tell_a_tensor_that_had_no_gradient(tmp_path: Path) -> None:
    def with_ghost(state: dict[str, Any]) -> None:
        state["state"][0]["exp_avg"].zero_()
        state["state"][0]["exp_avg_sq"].zero_()
        eight_bit(state)

    assert claims(judged(trained(tmp_path, change=eight_bit)))["updated"] == "pass"
    result = judged(trained(tmp_path, change=with_ghost))
    assert (result.verdict, claims(result)["updated"]) == (Verdict.FAIL, "fail")
    assert "1 of 2 tensors were never updated" in result.message


def test_codes_without_a_scale_say_nothing_of_updates(tmp_path: Path) -> None:
    result = judged(trained(tmp_path, change=lambda state: eight_bit(state, scales=False)))
    assert claims(result)["updated"] == "inconclusive"


@pytest.mark.healthy_pair
def test_a_training_that_reached_every_tensor_passes(tmp_path: Path) -> None:
    result = judged(trained(tmp_path))
    assert (result.verdict, result.score) == (Verdict.PASS, 1.0)
    assert result.message == "all 2 tensors were updated"
    assert (result.evidence["steps"], result.evidence["epochs"]) == (30, 3.0)


@pytest.mark.planted_fault
def test_a_tensor_that_got_no_gradient_fails(tmp_path: Path) -> None:
    result = judged(trained(tmp_path, ghost=True))
    assert (result.verdict, result.score) == (Verdict.FAIL, 0.0)
    assert "1 of 3 tensors were never updated (tensor 2)" in result.message
    assert result.evidence["never_updated"] == ["tensor 2"]


def test_squared_gradients_that_are_all_zero_fail_and_some_that_are_do_not(tmp_path: Path) -> None:
    def still(state: dict[str, Any]) -> None:
        state["state"][0]["exp_avg_sq"].zero_()

    def rows(state: dict[str, Any]) -> None:
        state["state"][0]["exp_avg_sq"][0].zero_()

    result = judged(trained(tmp_path, change=still))
    assert "1 of 2 tensors were never updated (tensor 0 (2 x 6))" in result.message
    assert judged(trained(tmp_path, change=rows)).verdict is Verdict.PASS


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_moments_that_are_not_finite_fail(tmp_path: Path, bad: float) -> None:
    def spoil(state: dict[str, Any]) -> None:
        state["state"][1]["exp_avg"][0, 0] = bad

    result = judged(trained(tmp_path, change=spoil))
    assert claims(result) == {"finite": "fail", "updated": "pass", "long_enough": "pass"}
    assert "1 numbers in the moments of 1 tensors are not finite, first tensor 1 (6 x 2)" in result.message
    assert json.dumps(result.model_dump(mode="json"), allow_nan=False)


def test_sizes_of_moments_are_never_compared(tmp_path: Path) -> None:
    def shrink(state: dict[str, Any]) -> None:
        state["state"][0]["exp_avg_sq"].mul_(1e-12)

    assert judged(trained(tmp_path, change=shrink)).verdict is Verdict.PASS


def test_a_short_training_is_a_warning(tmp_path: Path) -> None:
    assert claims(judged(trained(tmp_path, steps=5)))["long_enough"] == "warn"
    part = judged(trained(tmp_path, epoch=0.4))
    assert (part.verdict, part.score) == (Verdict.WARN, 0.5)
    assert "30 updates and 0.40 passes over the data: less than 1 of the data" in part.message


def test_one_step_gives_every_a_a_gradient_of_zero_and_that_is_no_fault(tmp_path: Path) -> None:
    result = judged(trained(tmp_path, steps=1))
    assert claims(result)["updated"] == "inconclusive"
    assert claims(judged(trained(tmp_path, steps=2)))["updated"] == "pass"


def test_an_optimizer_that_never_stepped_fails(tmp_path: Path) -> None:
    assert claims(judged(trained(tmp_path, steps=0)))["updated"] == "fail"


def test_an_optimizer_without_moments_decides_nothing(tmp_path: Path) -> None:
    result = judged(trained(tmp_path, optimizer=torch.optim.SGD))
    assert claims(result) == {"finite": "inconclusive", "updated": "inconclusive", "long_enough": "pass"}


@pytest.mark.parametrize("key", ["optimizer", "optimizer_state_dict"])
def test_the_state_is_found_inside_a_larger_one_and_names_are_used(tmp_path: Path, key: str) -> None:
    def named(state: dict[str, Any]) -> None:
        state["param_groups"][0]["param_names"] = ["layers.0.A", "layers.0.B", "layers.1.A"]

    trained(tmp_path, ghost=True, change=named, name="training_state.pt", wrap=lambda s: {key: s, "step": 3})
    assert judged(tmp_path).evidence["never_updated"] == ["layers.1.A"]


class Runs:
    """What an attacker saves: loading it would create a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:  # noqa: D105 (the class says it)
        return (open, (self.path, "w"))


def test_a_pickle_that_would_run_code_is_refused_with_one_line(tmp_path: Path) -> None:
    made = tmp_path / "made"
    torch.save({"state": Runs(str(made)), "param_groups": []}, tmp_path / "optimizer.pt")
    result = judged(tmp_path)
    assert (result.verdict, result.score) == (Verdict.ERROR, 0.0)
    assert "would run code when loaded, so sway does not open it" in result.message
    assert "\n" not in result.message
    assert not made.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 broken"])
def test_a_damaged_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "optimizer.pt").write_bytes(content)
    result = judged(tmp_path)
    assert result.verdict is Verdict.ERROR
    assert "optimizer.pt" in result.message


@pytest.mark.parametrize("content", [{"weights": 1}, [1, 2], {"state": 1, "param_groups": 2}])
def test_a_file_without_an_optimizer_is_an_error(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "optimizer.pt")
    assert "optimizer's" in judged(tmp_path).message


def test_without_an_optimizers_state_the_trainers_own_count_is_judged(tmp_path: Path) -> None:
    (trained(tmp_path) / "optimizer.pt").unlink()
    result = judged(tmp_path)
    assert claims(result) == {"finite": "skip", "updated": "skip", "long_enough": "pass"}


def test_a_runs_directory_is_read_at_its_newest_checkpoint(tmp_path: Path) -> None:
    for number in (9, 10):
        (tmp_path / f"checkpoint-{number}").mkdir()
        trained(tmp_path / f"checkpoint-{number}", steps=number * 3)
    assert judged(tmp_path).evidence["steps"] == 30


def test_a_place_with_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    assert "save_only_model=False" in judged(tmp_path).message
    assert "no such file" in judged(tmp_path / "nowhere").message


def test_without_torch_it_is_skipped_with_the_command(tmp_path: Path) -> None:
    trained(tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from dlm_sway.probes.base import RunContext, build_probe\n"
        f"probe, spec = build_probe({{'name': 'x', 'kind': 'gradient_ghost', 'checkpoint': {str(tmp_path)!r}}})\n"
        "result = probe.run(spec, RunContext(backend=None))\n"
        "print(result.verdict, result.message)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("skip"), done.stderr
    assert "pip install" in done.stdout


def test_the_same_file_gives_the_same_result(tmp_path: Path) -> None:
    trained(tmp_path)
    one, two = (judged(tmp_path).model_dump(exclude={"duration_s"}) for _ in range(2))
    assert one == two
