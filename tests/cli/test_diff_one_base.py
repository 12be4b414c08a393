"""`sway diff` on models: the base is loaded once, and what is found is what two runs find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.models import adapter_of, base_of

from dlm_sway.backends import hf_load
from dlm_sway.cli.app import run

SUITE = """\
version: 1
models: {{base: {{base: {base}, device: cpu, dtype: fp32}}, ft: {adapter}}}
defaults: {{draws: 19}}
suite:
  - {{name: learned, kind: delta_kl, prompts: [one bell at noon, two bells at dusk, the tide turns, a rope frays]}}
  - {{name: target, kind: target_gain, items: [one bell at noon, two bells at dusk, the tide turns, a rope frays]}}
"""


def test_the_base_is_loaded_once_and_the_differences_are_those_of_two_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loads: list[str] = []
    real = hf_load.load_base
    monkeypatch.setattr(hf_load, "load_base", lambda spec, *rest: loads.append(spec.base) or real(spec, *rest))
    adapters = {"a": adapter_of("llama", "saved-norm"), "b": adapter_of("llama", "bias-all")}
    for name, folder in adapters.items():
        (tmp_path / name).symlink_to(folder)
    base = base_of("llama")
    suite = tmp_path / "sway.yaml"

    def said(*words: str, cache: str) -> dict[str, Any]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        place = tmp_path / "out.json"
        run([*words, "--json", str(place)])
        return json.loads(place.read_text())

    suite.write_text(SUITE.format(base=base, adapter=tmp_path / "a"))
    both = said("diff", str(suite), "--a", str(tmp_path / "a"), "--b", str(tmp_path / "b"), cache="one")
    assert loads == [str(base)]
    for name in adapters:
        suite.write_text(SUITE.format(base=base, adapter=tmp_path / name))
        (tmp_path / f"{name}.json").write_text(json.dumps(said("run", str(suite), cache=f"two-{name}")))
    apart = said("compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), cache="two")
    assert both["contrasts"] == apart["contrasts"] != []
    capsys.readouterr()
