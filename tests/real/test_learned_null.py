"""`learned` must not pass for adapters of pure noise, whatever their size, targets and base.

The null is exact when B is Gaussian, so p-values are uniform on k/(m + 1); 60 adapters at 5 % give at most 8 false
passes with probability 0.995.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.result import ProbeResult, Verdict
from dlm_sway.demo.noise import ALL_LINEAR, QV, write_noise
from dlm_sway.probes.base import RunContext, build_probe

pytestmark = [pytest.mark.slow, pytest.mark.real]

SIZES = (0.01, 0.05, 0.2)


def _learned(backend: HuggingFaceDifferentialBackend, *, seed: int, n_draws: int = 39) -> ProbeResult:
    probe, spec = build_probe({"name": "delta_kl", "kind": "delta_kl", "null_tokens": 128})
    return probe.run(spec, RunContext(backend=backend, seed=seed, n_draws=n_draws))


def _tiny_llama(out: Path) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<s>": 0, "</s>": 1, **{c: i + 2 for i, c in enumerate(alphabet)}}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        for p in model.parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, std=0.15)
    model.save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))
    return out


@pytest.fixture(scope="module")
def noise_results(
    tmp_path_factory: pytest.TempPathFactory,
    model_dir: Path,
    open_backend: Callable[[Path], AbstractContextManager[HuggingFaceDifferentialBackend]],
) -> list[ProbeResult]:
    """48 noise adapters on a tiny random model and 12 on SmolLM2, each probed with its own seed."""
    tiny = _tiny_llama(tmp_path_factory.mktemp("tiny"))

    def variants(n: int) -> Iterator[dict[str, Any]]:
        for seed in range(n):
            for size in SIZES:
                for targets in (QV, ALL_LINEAR):
                    yield {"b_std": size, "targets": targets, "seed": seed}

    results: list[ProbeResult] = []
    for i, options in enumerate(variants(8)):
        adapter = write_noise(tiny, tmp_path_factory.mktemp("noise"), **options)
        spec = ModelSpec(base=str(tiny), dtype="fp32", device="cpu")
        backend = HuggingFaceDifferentialBackend(base_spec=spec, adapter_path=adapter)
        results.append(_learned(backend, seed=i))
        backend.close()
    for i, options in enumerate(variants(2)):
        with open_backend(write_noise(model_dir, tmp_path_factory.mktemp("noise"), **options)) as backend:
            results.append(_learned(backend, seed=100 + i))
    return results


def test_learned_passes_for_at_most_five_percent_of_noise_adapters(noise_results: list[ProbeResult]) -> None:
    passed = sum(r.verdict is Verdict.PASS for r in noise_results)
    print(f"{passed} of {len(noise_results)} noise adapters passed learned")
    assert len(noise_results) == 60
    assert all(r.verdict is not Verdict.ERROR for r in noise_results)
    assert passed <= stats.binom.ppf(0.995, 60, 0.05)


def test_p_values_of_noise_adapters_are_uniform(noise_results: list[ProbeResult]) -> None:
    p = np.array([r.evidence["p"] for r in noise_results])
    # p lives on k/40: spreading each over its step gives a continuous uniform under the null.
    spread = p - np.random.default_rng(0).uniform(0, 1 / 40, p.size)
    found = stats.kstest(spread, "uniform")
    print(f"KS statistic {found.statistic:.3f}, p {found.pvalue:.3f}; p-values {np.sort(p)}")
    assert found.pvalue > 0.01
