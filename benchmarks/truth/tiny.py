"""Noise adapters on a tiny random model: how often `learned` passes for weights that learned nothing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from cells import share
from scipy.stats import kstest
from zoo import NOISE_SIZES

from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.result import Verdict
from dlm_sway.demo.noise import ALL_LINEAR, QV, write_noise
from dlm_sway.probes.base import RunContext, build_probe

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from models import save_base


def noise_on_tiny_models(n: int, store: Path) -> dict[str, float | int]:
    """Return how many of `n` noise adapters pass `learned`, and a KS test of their p-values against uniform."""
    base = save_base(store / "base", "llama", hidden_size=64, max_position_embeddings=512)
    p: list[float] = []
    passed = 0
    for i in range(n):
        size, targets = NOISE_SIZES[i % 3], (QV, ALL_LINEAR)[i // 3 % 2]
        out = store / "adapter"
        shutil.rmtree(out, ignore_errors=True)
        write_noise(base, out, b_std=size, targets=targets, seed=1000 + i)
        spec = ModelSpec(base=str(base), dtype="fp32", device="cpu")
        backend = HuggingFaceDifferentialBackend(base_spec=spec, adapter_path=out)
        probe, options = build_probe({"name": "delta_kl", "kind": "delta_kl", "null_tokens": 128})
        found = probe.run(options, RunContext(backend=backend, seed=1000 + i))
        backend.close()
        p.append(found.evidence["p"])
        passed += found.verdict is Verdict.PASS
    # p lives on k/40: spreading each over its step gives a continuous uniform under the null.
    spread = np.array(p) - np.random.default_rng(0).uniform(0, 1 / 40, n)
    return share(passed, n) | {"ks_p": float(kstest(spread, "uniform").pvalue)}
