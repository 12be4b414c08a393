"""The demo's adapter and its noise twin get the same verdicts on every stack that can run them."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.gguf_models import save_gguf, serving
from tests.real.merging import merge

from dlm_sway.adapters.convert import convert
from dlm_sway.backends.registry import open_backend
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.result import Question, Verdict
from dlm_sway.data.control import control_passages
from dlm_sway.engine.ask import TextItem
from dlm_sway.probes.base import RunContext, build_probe
from dlm_sway.probes.drive import drive

pytestmark = [pytest.mark.slow, pytest.mark.real]

Answers = dict[str, Question]
DRAWS, SLOW_STACKS = 19, ("mlx",)
STACKS = ("two_model", "F32", "Q8_0", "Q4_0", "mlx")


def probes(document: list[str], *, n: int, n_passages: int, width: int) -> tuple[Any, ...]:
    """Return the probes of a quick check on `n` lines of the document, as many controls, and passages for harm."""
    own = [TextItem("", line[:width], str(i), str(i)) for i, line in enumerate(document[:n])]
    texts = control_passages()
    controls, passages = (
        [TextItem("", p.text[:width], p.id, p.id, p.register) for p in texts[start:end]]
        for start, end in ((0, n), (n, n + n_passages))
    )
    specs: list[dict[str, Any]] = [
        {"kind": "delta_kl", "prompts": own, "null_tokens": 64},
        {"kind": "target_gain", "items": own, "controls": controls, "null_tokens": 64},
        {"kind": "external_perplexity", "passages": passages, "max_tokens": 16, "null_tokens": 32},
    ]
    return tuple(build_probe({"name": spec["kind"], **spec}) for spec in specs)


class Asked:
    """The real model, both adapters, and what `hf` said of them, asked once."""

    def __init__(self, model: Path, document: list[str], adapters: dict[str, Path]) -> None:
        self.model, self.document, self.adapters = model, document, adapters
        self._by_hf: dict[tuple[str, bool], Answers] = {}

    def answers(self, spec: ModelSpec, *, few: bool) -> Answers:
        """Return the answers to the questions of a check; MLX, slow on Linux, is asked about few texts."""
        start = time.monotonic()
        backend = open_backend(spec)
        size = {"n": 4, "n_passages": 4, "width": 40} if few else {"n": 10, "n_passages": 32, "width": 90}
        pairs = probes(self.document, **size)
        try:
            results = drive(pairs, RunContext(backend=backend, n_draws=DRAWS)).results
        finally:
            backend.close()
        found = {k: Question.model_validate(q) for r in results for k, q in r.evidence["claims"].items()}
        told = {k: (str(q.verdict), q.effect) for k, q in found.items()}
        print(f"\n{spec.kind} {time.monotonic() - start:.0f} s {json.dumps(told)}", end="")
        return found

    def by_hf(self, name: str, *, few: bool) -> Answers:
        """Return what `hf` says of an adapter."""
        if (name, few) not in self._by_hf:
            spec = ModelSpec(base=str(self.model), dtype="fp32", device="cpu", adapter=self.adapters[name])
            self._by_hf[name, few] = self.answers(spec, few=few)
        return self._by_hf[name, few]


@pytest.fixture(scope="module")
def asked(model_dir: Path, document: list[str], trained: Path, twin: Path) -> Asked:
    return Asked(model_dir, document, {"trained": trained, "twin": twin})


@contextmanager
def opened(stack: str, model: Path, adapter: Path, folder: Path) -> Iterator[ModelSpec]:
    """Make what a stack needs of an adapter, serve it where it is a server's, and yield how to open it."""
    if stack == "mlx":
        yield ModelSpec(base=str(model), kind="mlx", device="cpu", adapter=adapter)
        return
    if stack == "two_model":
        whole = {"finetuned": str(merge(model, adapter, folder / "merged"))}
        yield ModelSpec(base=str(model), kind="two_model", dtype="fp32", device="cpu", options=whole)
        return
    convert(adapter, to="gguf", out=folder / "lora.gguf", base=str(model))
    # SmolLM2's tokenizer puts no bos before a text, so a file that says otherwise is a fault, and named as one.
    file = save_gguf(model, folder / f"base-{stack}.gguf", add_bos=False, quant=stack)
    with serving(file, [folder / "lora.gguf"], n_ctx=256, n_parallel=4, n_threads=2) as url:
        yield ModelSpec(base=str(model), kind="api", options={"url": url, "lora": 0, "top_k": 400})


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", ["trained", "twin"])
def test_each_stack_gives_the_verdicts_of_hf(stack: str, name: str, asked: Asked, tmp_path: Path) -> None:
    """A server takes no null adapters: what needs them it skips, and what they alone would fail it leaves open."""
    if stack == "mlx" and importlib.util.find_spec("mlx_lm") is None:
        pytest.skip("the mlx backend is tested where mlx and mlx-lm are installed")
    few = stack in SLOW_STACKS
    ours = asked.by_hf(name, few=few)
    with opened(stack, asked.model, asked.adapters[name], tmp_path) as spec:
        theirs = asked.answers(spec, few=few)
    assert ours["applied"].verdict is Verdict.PASS
    assert ours["learned"].verdict is (Verdict.PASS if name == "trained" else Verdict.FAIL)
    takes_nulls = stack in ("two_model", "mlx")
    skipped = {key for key, q in theirs.items() if q.verdict is Verdict.SKIP}
    assert skipped <= ({"generalises"} if takes_nulls else {"generalises", "learned"})
    for key in theirs.keys() - skipped:
        left_open = not takes_nulls and ours[key].verdict is Verdict.FAIL
        same = {ours[key].verdict, *([Verdict.INCONCLUSIVE] if left_open else [])}
        assert theirs[key].verdict in same, (key, ours[key], theirs[key])
