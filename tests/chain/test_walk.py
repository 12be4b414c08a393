"""A healthy chain passes link by link; the walk ends at a fault, goes on when told to, and prints what it found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.chain.made import Made, answers, found
from tests.fake_server import fake_server
from tests.gguf_models import save_gguf, serving
from tests.models import CHAT

from dlm_sway.chain.walk import ChainRequest, walk
from dlm_sway.cli.app import run
from dlm_sway.core.result import Verdict


def test_a_healthy_chain_passes_from_adapter_to_server(made: Made) -> None:
    merged = made.merged()
    gguf, data = save_gguf(merged, made.folder / "merged.gguf", template=CHAT), answers(made.folder)
    with serving(gguf) as url:
        result = made.walk(merged=merged, gguf=gguf, endpoint=url, data=data)
    assert [link.verdict for link in result.links] == [Verdict.PASS] * 4, result
    assert [f.step for f in result.links[-1].findings] == ["tokens", "behaviour", "stop"]
    for link in result.links[1:]:
        behaves, stops = found(link, "behaviour"), found(link, "stop")
        assert behaves.effect_left == pytest.approx(1.0, abs=0.01)
        assert behaves.lam_hat == pytest.approx(1.0, abs=0.02)
        assert stops.verdict is Verdict.PASS
        assert stops.evidence["n_items"] == 12
        assert stops.evidence["stop"]["estimate"] == pytest.approx(0.0, abs=1e-3)


def test_without_data_no_end_is_known_and_the_stop_is_skipped(made: Made) -> None:
    stop = found(made.walk(merged=made.merged()).links[-1], "stop")
    assert (stop.verdict, stop.remedy) == (Verdict.SKIP, "give --data with whole answers")


def test_a_strong_adapter_survives_bf16(made: Made) -> None:
    assert found(made.walk().links[0], "static").verdict is Verdict.PASS
    merged = made.walk(merged=made.merged(torch.bfloat16)).links[-1]
    assert [f.verdict for f in merged.findings[:3]] == [Verdict.PASS] * 3, merged


def test_all_goes_on_behind_a_broken_link(made: Made) -> None:
    result = made.walk(merged=made.merged(scale=0.0), gguf=save_gguf(made.base, made.folder / "b.gguf"), every=True)
    assert [link.name for link in result.links] == ["adapter", "merged", "gguf"]
    assert [f.step for f in result.links[1].findings] == ["static", "tokens", "behaviour", "stop"]
    behaves = found(result.links[1], "behaviour")
    assert behaves.cause == "adapter not applied"
    assert behaves.effect_left == pytest.approx(0.0, abs=0.02)


def test_a_link_that_cannot_be_read_is_one_error_and_the_next_is_looked_at(made: Made) -> None:
    result = made.walk(merged=made.folder / "nowhere", gguf=made.folder / "none.gguf", every=True)
    assert [link.verdict for link in result.links] == [Verdict.PASS, Verdict.ERROR, Verdict.ERROR]
    assert [len(link.findings) for link in result.links[1:]] == [1, 1]
    assert "none.gguf: no such file" in result.links[2].findings[0].message


def test_the_command_prints_the_fault_and_writes_it(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged, out, page = made.merged(scale=1 / 3), tmp_path / "chain.json", tmp_path / "chain.md"
    given = ["chain", str(made.adapter), "--base", str(made.base), "--merged", str(merged), "--device", "cpu"]
    assert run([*given, "--json", str(out), "--markdown", str(page), "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert "adapter: broken at merged: alpha ignored" in printed
    assert "33.3%" in printed
    document = json.loads(out.read_text())
    assert document["verdict"] == "fail"
    assert document["links"][1]["findings"][0]["cause"] == "alpha ignored"
    assert "| merged | ❌ fail | 33.3%" in page.read_text()
    assert run(["report", str(out)]) == 0
    assert capsys.readouterr().out == printed


def test_a_server_that_gives_text_alone_is_an_error_that_says_so(made: Made) -> None:
    with fake_server("text") as server:
        request = ChainRequest(adapter=made.adapter, base=str(made.base), device="cpu", endpoint=server.url)
        walked = walk(request)
    assert walked.verdict is Verdict.ERROR
    assert "gives no log-probs" in walked.model_dump_json()
