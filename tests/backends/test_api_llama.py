"""A real llama.cpp server on loopback with a tiny model: the same numbers as PyTorch, scales and all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from tests.gguf_models import save_gguf, serving
from tests.models import lora, open_backend, save_adapter, save_base

from dlm_sway.adapters.convert import convert
from dlm_sway.backends.registry import open_backend as open_by_spec
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.views import FINETUNED, scaled
from dlm_sway.engine.ask import Ask, TextItem
from dlm_sway.engine.run import Engine
from dlm_sway.testing.backend_conformance import CHECKS, Check, Subject

TEXTS = ("the bell is struck when the water falls", "a b c d e f g", "water, and the line below")
KINDS: dict[str, dict[str, Any]] = {
    "all-linear": {"target_modules": "all-linear"},
    "rslora": {"use_rslora": True, "lora_alpha": 5},
    "ranks": {"target_modules": "all-linear", "rank_pattern": {"layers.1.self_attn.q_proj": 7}, "lora_alpha": 3},
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The same adapter on the same model under PyTorch and behind llama.cpp."""
    folder = tmp_path_factory.mktemp("llama")
    base = save_base(folder / "base")
    adapter = save_adapter(base, folder / "adapter", lora(**KINDS[request.param]))
    convert(adapter, to="gguf", out=folder / "adapter.gguf", base=str(base))
    with serving(save_gguf(base, folder / "base.gguf"), [folder / "adapter.gguf"]) as url:
        served = _api(base, url)
        yield open_backend(base, adapter), served
        served.close()


def _api(base: Path, url: str) -> Any:
    options = {"url": url, "lora": 0, "top_k": 300, "concurrency": 1}
    return open_by_spec(ModelSpec(base=str(base), kind="api", options=options))


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0, 1.25])
def test_llama_cpp_and_pytorch_agree_at_every_scale(pair: tuple[Any, Any], lam: float) -> None:
    """That includes the rows of q and k, which the conversion turns."""
    found = []
    for backend in pair:
        with backend.view(scaled(lam)) as view:
            found.append(np.concatenate([view.rolling_logprob(text).logprobs for text in TEXTS]))
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


def test_no_number_depends_on_what_was_asked_before(pair: tuple[Any, Any]) -> None:
    """The server reuses what it read, also for another scale of the LoRA; here it must not."""
    reference, served = pair
    rng = np.random.default_rng(1)
    for i in rng.permutation(24):
        lam, text = (0.0, 0.5, 1.0)[i % 3], TEXTS[i % 2] + " x" * int(i // 6)
        found = []
        for backend in (reference, served):
            with backend.view(scaled(lam)) as view:
                found.append(view.rolling_logprob(text).logprobs)
        np.testing.assert_allclose(found[1], found[0], atol=1e-4)
        with served.view(scaled(1.0 - lam)) as view:
            view.next_token_dist(text[: 5 + int(i)])
        served._memo.clear()


def test_divergences_agree_with_those_from_logits(pair: tuple[Any, Any]) -> None:
    items = tuple(TextItem("", text, str(i), str(i)) for i, text in enumerate(TEXTS))
    asked = [Ask(items, (FINETUNED,), frozenset({"gain", "kl", "js", "tv", "entropy", "rank", "top1"}), format="raw")]
    exact, served = (Engine(backend).answer(asked)[0].values for backend in pair)
    for name in exact:
        np.testing.assert_allclose(served[name], exact[name], atol=2e-4, err_msg=name)


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_it_keeps_the_contract(check: Check, pair: tuple[Any, Any]) -> None:
    served = pair[1]
    subject = Subject(lambda: served, texts=TEXTS, exact=False)
    if check.name == "closing_is_final":
        served = _api(Path(served.id), served.options.url)  # the others still need the shared one
    try:
        check.verify(subject)
    except SkipTest as reason:
        assert "null" in str(reason)  # noqa: PT017
