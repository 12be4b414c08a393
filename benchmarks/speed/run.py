"""The speed benchmark: every figure a ratio of two things timed alternately in this run.

Run by `make bench`; writes benchmarks/results/speed.json. One process at a time: torch's threads starve each other.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import suite
from dlm_sway.backends import cpu_linear
from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import BASE, FINETUNED, rotations
from dlm_sway.demo.model import demo_model
from dlm_sway.demo.noise import write_noise
from dlm_sway.demo.run import demo_text
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.head import BLOCK_BYTES
from dlm_sway.engine.run import Engine
from dlm_sway.engine.sources import ViewwiseSource
from dlm_sway.probes.base import RunContext, build_probe

RESULTS = Path(__file__).parents[1] / "results" / "speed.json"
HEADS = (
    "The old mill by the river",
    "In the report of last year the",
    "She wrote to him that",
    "A good way to store apples is",
    "The function returns a list",
    "When the rain stopped they",
    "On the third day the",
    "Most of the cost comes from",
)
TAILS = ("was closed and", "there is one", "never had a", "must be the")
PROMPTS = [f"{head} {tail}" for head in HEADS for tail in TAILS]
KL = frozenset({"kl"})
Pairs = list[tuple[float, float]]


def timed(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def alternate(slow: Callable[[], Any], fast: Callable[[], Any], *, pairs: int) -> Pairs:
    """Return seconds of both, taken in turn after one warm-up each."""
    slow(), fast()
    return [(timed(slow), timed(fast)) for _ in range(pairs)]


def ratio(pairs: Pairs) -> dict[str, float]:
    """Return the median of slow / fast over the pairs, with the extremes."""
    ratios = [a / b for a, b in pairs]
    return {"ratio": statistics.median(ratios), "min": min(ratios), "max": max(ratios), "pairs": len(ratios)}


def items(texts: list[str]) -> tuple[TextItem, ...]:
    return tuple(TextItem("", t, str(i), str(i)) for i, t in enumerate(texts))


def answer(backend: Any, texts: list[str], views: Any, **options: Any) -> Engine:
    engine = Engine(backend, **options)
    engine.answer([Ask(items(texts), views, KL, format="raw")])
    return engine


def stacked_vs_prompt_loop(backend: Any, pairs: int) -> dict[str, float]:
    """25 views x 32 prompts of about 10 tokens, against one prompt and one PEFT view at a time."""
    nulls = rotations(seed=0, n_draws=23)

    def loop() -> None:
        for view in (BASE, FINETUNED, *nulls):
            with backend.view(view) as opened:
                for prompt in PROMPTS:
                    opened.rolling_logprob(prompt)

    return ratio(alternate(loop, lambda: answer(backend, PROMPTS, (FINETUNED, *nulls)), pairs=pairs))


def stacked_vs_view_loop(backend: Any, pairs: int) -> dict[str, float]:
    """The same, against one batched pass a view through PEFT."""
    views = (FINETUNED, *rotations(seed=0, n_draws=23))

    def loop() -> None:
        engine = Engine(backend)
        with engine.opened():
            engine._source = ViewwiseSource(backend)  # noqa: SLF001 (the slower of two sources is what is timed)
        engine.answer([Ask(items(PROMPTS), views, KL, format="raw")])

    return ratio(alternate(loop, lambda: answer(backend, PROMPTS, views), pairs=pairs))


def gemm_fraction(backend: Any, pairs: int) -> dict[str, float]:
    """FLOPs of the model's products over time, against the rate of the same products alone, in the engine's shapes."""
    views = (FINETUNED, *rotations(seed=0, n_draws=23))
    texts = [demo_text("tidal-bell.txt").splitlines()[i] for i in range(8)]
    engine = answer(backend, texts, views)
    rows = engine.view_tokens_done
    model = backend.model.get_base_model()
    linears = [m for m in model.modules() if type(m) is torch.nn.Linear and min(m.weight.shape) >= 64]
    x = {n: torch.randn(2048, n) for n in {m.in_features for m in linears}}

    def products() -> None:
        with torch.inference_mode(), cpu_linear.fast_linears(model):
            for linear in linears:
                # The vocabulary is applied to a block of positions at a time.
                for part in x[linear.in_features].split(max(1, BLOCK_BYTES // (4 * linear.out_features))):
                    linear(part)

    taken = alternate(products, lambda: answer(backend, texts, views), pairs=pairs)
    fractions = [(alone * rows / 2048) / whole for alone, whole in taken]
    return {"ratio": statistics.median(fractions), "min": min(fractions), "max": max(fractions), "pairs": pairs}


def batch_vs_loop(backend: Any, pairs: int) -> dict[str, float]:
    """`next_token_dist_batch` of 32 prompts against `next_token_dist` of each."""
    with backend.as_finetuned() as view:
        return ratio(
            alternate(
                lambda: [view.next_token_dist(p) for p in PROMPTS],
                lambda: view.next_token_dist_batch(PROMPTS),
                pairs=pairs,
            )
        )


def multi_rank_ratio(backend: Any, pairs: int) -> dict[str, float]:
    """Three rank multipliers over one, as the contract test sets it up."""

    def run(multipliers: list[float]) -> None:
        raw = {"name": "null", "kind": "null_adapter", "runs": 2, "calibrate_kinds": ["delta_kl"]}
        probe, spec = build_probe(raw | {"rank_multipliers": multipliers, "cache": False})
        probe.run(spec, RunContext(backend=backend))

    return ratio(alternate(lambda: run([0.5, 1.0, 2.0]), lambda: run([1.0]), pairs=pairs))


def null_marginal(backend: Any, pairs: int) -> dict[str, float]:
    """Time of one more null over the time of one pass of the base alone (q/v, rank 8)."""
    texts = demo_text("tidal-bell.txt").splitlines()[:8]
    nulls = rotations(seed=0, n_draws=24)

    def base_alone() -> None:
        answer(backend, texts, ())

    def few() -> None:
        answer(backend, texts, (FINETUNED,))

    def many() -> None:
        answer(backend, texts, (FINETUNED, *nulls))

    base_alone(), few(), many()
    taken = [(timed(many), timed(few), timed(base_alone)) for _ in range(pairs)]
    marginal = [(m - f) / len(nulls) / b for m, f, b in taken]
    return {"ratio": statistics.median(marginal), "min": min(marginal), "max": max(marginal), "pairs": pairs}


def growth(backend: Any, pairs: int) -> dict[str, float]:
    """Time per view-token with `--batch-tokens` 8192 over that with 2048."""
    return _at_8k(backend, pairs, lambda backend, texts, views: answer(backend, texts, views, batch_tokens=8192))


def pass_growth(backend: Any, pairs: int) -> dict[str, float]:
    """The same for passes of 8192 view-tokens, which the engine does not make on a CPU: why it does not."""

    def large(backend: Any, texts: list[str], views: Any) -> None:
        engine = Engine(backend)
        engine.batch_tokens = 8192
        engine.answer([Ask(items(texts), views, KL, format="raw")])

    return _at_8k(backend, pairs, large)


def _at_8k(backend: Any, pairs: int, run: Callable[[Any, list[str], Any], object]) -> dict[str, float]:
    texts = demo_text("tidal-bell.txt").splitlines()[:16]
    views = (FINETUNED, *rotations(seed=0, n_draws=10))
    return ratio(
        alternate(
            lambda: run(backend, texts, views), lambda: answer(backend, texts, views, batch_tokens=2048), pairs=pairs
        )
    )


def onednn_vs_mkl(backend: Any, pairs: int) -> dict[str, float]:
    """The engine with fp32 products through MKL over the engine as it is; 1 where the processor does not ask for it."""
    texts = demo_text("tidal-bell.txt").splitlines()[:4]
    views = (FINETUNED, *rotations(seed=0, n_draws=10))
    chosen = cpu_linear.onednn_pays

    def plain() -> None:
        cpu_linear.onednn_pays = lambda: False  # type: ignore[assignment]
        try:
            answer(backend, texts, views)
        finally:
            cpu_linear.onednn_pays = chosen

    return ratio(alternate(plain, lambda: answer(backend, texts, views), pairs=pairs))


def suite_ratio(backend: Any, pairs: int) -> dict[str, float]:  # noqa: ARG001 (one pair takes minutes)
    """A suite of eight probes with 39 draws over the same with 3 draws, probe by probe and prompt by prompt.

    One pair: half of the loop, the suite, the other half. Finding out what the loop has to ask is the warm-up of both.
    """
    first, second = suite.as_a_loop(backend)
    before, together, after = timed(first), timed(lambda: suite.as_sway_runs_it(backend)), timed(second)
    print(f"{'suite_ratio':24} {together:.0f} s over {before:.0f} + {after:.0f} s")
    return ratio([(together, before + after)])


def check_runs(base: Path, adapter: Path, folder: Path) -> dict[str, Any]:
    """`sway check` as a user runs it: seconds and peak memory of a fresh process, 24 lines of data."""
    data = folder / "data.txt"
    data.write_text("\n".join(demo_text("tidal-bell.txt").splitlines()[:24]), encoding="utf-8")
    # VmHWM starts anew with the program; ru_maxrss would carry over this process's own peak.
    code = (
        "import atexit; from dlm_sway.cli.app import main;"
        "atexit.register(lambda: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])); main()"
    )
    out: dict[str, Any] = {}
    weights = (base / "model.safetensors").stat().st_size + (adapter / "adapter_model.safetensors").stat().st_size
    for key, more in (("check_seconds", []), ("check_quick_seconds", ["--quick"])):
        command = [sys.executable, "-c", code, "check", str(adapter), "--base", str(base), "--data", str(data), *more]
        began = time.perf_counter()
        done = subprocess.run([*command, "--quiet", "--device", "cpu"], check=False, capture_output=True, text=True)
        out[key] = time.perf_counter() - began
        peak = 1024 * float(done.stdout.strip().splitlines()[-1])
        if not more:
            out["peak_rss_mb"] = peak / 2**20
            out["peak_rss_ratio"] = (peak - 700e6) / weights
    return out


def gemm_gflops() -> float:
    """fp32 rate of one product as sway runs it, GFLOP/s: what all seconds here are to be read against."""
    linear, x = torch.nn.Linear(576, 1536, bias=False), torch.randn(2048, 576)
    with torch.inference_mode(), cpu_linear.fast_linears(linear):
        linear(x)
        seconds = statistics.median(timed(lambda: linear(x)) for _ in range(50))
    return 2 * x.shape[0] * linear.weight.numel() / seconds / 1e9


def help_ms() -> float:
    """Milliseconds of `sway --help` in a fresh process, median of 5."""
    command = [sys.executable, "-c", "from dlm_sway.cli.app import run; run(['--help'])"]
    return 1000 * statistics.median(
        timed(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(5)
    )


RATIOS = (
    stacked_vs_prompt_loop, stacked_vs_view_loop, gemm_fraction, batch_vs_loop, multi_rank_ratio, null_marginal, growth,
    pass_growth, onednn_vs_mkl, suite_ratio,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=None, help="names of figures; the others keep what the file says")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    base = demo_model()
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.only and options.out.is_file() else {}
    with tempfile.TemporaryDirectory() as tmp:
        adapter = write_noise(base, Path(tmp) / "adapter", b_std=0.05)
        spec = ModelSpec(base=str(base), dtype="fp32", device="cpu")
        backend = HuggingFaceDifferentialBackend(base_spec=spec, adapter_path=adapter)
        for figure in RATIOS:
            name = figure.__name__
            if options.only is None or name in options.only:
                found = figure(backend, options.pairs)
                results |= {name: found["ratio"], f"{name}_range": [found["min"], found["max"]]}
                print(f"{name:24} {found['ratio']:.2f}  [{found['min']:.2f}, {found['max']:.2f}]", flush=True)
                _write(results, options.out)
        backend.close()
        if options.only is None or "check" in options.only:
            before = gemm_gflops()
            results |= check_runs(base, adapter, Path(tmp)) | {"help_ms": help_ms()}
            results["gemm_gflops"] = min(before, gemm_gflops())
            _write(results, options.out)
    print(json.dumps(results, indent=1, sort_keys=True))


def _write(results: dict[str, Any], out: Path) -> None:
    results["machine"] = {
        "cores": torch.get_num_threads(),
        "processor": platform.machine(),
        "onednn": cpu_linear.onednn_pays(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
