"""Runs every probe once on the demo's adapters and keeps what they found: `make examples`, after `make demo`.

It writes docs/probes/examples.json, from which `python docs/build.py` fills the example of each page in docs/probes. A
copy of examples/ is made in out/examples, and a small optimizer state in it, since a binary has no place in the
repository; the suite itself is examples/every-probe.yaml. What was scored is kept in out/examples-cache, so that a run
that was stopped goes on.
"""  # noqa: INP001 (a script, no package)

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
SUITE: Final = "every-probe.yaml"
RECORD: Final = Path(__file__).with_name("probes") / "examples.json"
ADAPTERS: Final = {"trained": "trained", "twin": "noise-twin"}
# The twin answers what a forward pass answers; texts that it writes, and files that it has no part in, are left out.
NOT_THE_TWIN: Final = frozenset(
    {
        "adapter_revert",
        "gradient_ghost",
        "multi_turn_coherence_decay",
        "null_adapter",
        "numeric_floor",
        "prompt_collapse",
        "rank_profile",
        "style_fingerprint",
        "tool_use_fidelity",
        "training_drift",
    }
)
_STEPS: Final = 30
_DIGITS: Final = 4
_LINES: Final = 2
_WIDTH: Final = 110


def prepare(out: Path) -> Path:
    """Return the suite file in `out`, a copy of examples/ with an optimizer's state beside the training log."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "examples", out)
    _write_optimizer(out / "checkpoint" / "optimizer.pt")
    return out / SUITE


def on_models(suite: Path, *, base: str, adapter: Path) -> Path:
    """Return the suite file with its models replaced."""
    words = {"base": base, "ft": str(adapter.absolute())}
    text = suite.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^  (base|ft): .*$", lambda m: f"  {m[1]}: {json.dumps(words[m[1]])}", text)
    suite.write_text(text, encoding="utf-8")
    return suite


def entries(suite: Path) -> dict[str, str]:
    """Return the YAML of each kind's entry as it stands in the suite file."""
    text = suite.read_text(encoding="utf-8").partition("\nsuite:\n")[2]
    blocks = [block.rstrip() for block in re.split(r"(?m)^(?=  - name:)", text) if block.strip()]
    return {re.findall(r"(?m)^    kind: (\w+)$", block)[0]: _outdented(block) for block in blocks}


def record(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the pages show of a probe's result: its claims, and one or two lines of its evidence."""
    claims = result["evidence"].get("claims") or {"": {"verdict": result["verdict"], "message": result["message"]}}
    kept = ("verdict", "effect", "unit", "interval", "p", "message")
    return {
        "verdict": result["verdict"],
        "claims": {name: {key: _short(claim.get(key)) for key in kept} for name, claim in claims.items()},
        "evidence": list(_lines(result["evidence"]))[:_LINES],
    }


def _lines(evidence: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines for a reader: the place among the nulls, then what the number is made of."""
    parts = [evidence, *(evidence[c] for c in evidence.get("claims") or () if isinstance(evidence.get(c), Mapping))]
    for part in parts:
        null = part.get("null")
        yield from _standing(null if isinstance(null, Mapping) else part)
    for which, rows in ((w, r) for part in parts for w, r in (part.get("items") or {}).items()):
        yield from (_row(which, row) for row in rows[:1])
    for rows in (evidence.get("per_item"), evidence.get("layers")):
        yield from (_row("", row) for row in rows or ())
    for curve in evidence.get("curves") or ():
        points = "; ".join(f"{_short(x)}: {_short(y)}" for x, y in zip(curve["x"], curve["y"], strict=True))
        yield _cut(f"{curve['name']} by {curve['x_label']}: {points}")
    if counts := evidence.get("counts"):
        yield ", ".join(f"{value} {name.removeprefix('n_')}" for name, value in counts.items())


def _standing(part: Mapping[str, Any]) -> Iterator[str]:
    if part.get("rank") is not None and part.get("null_draws"):
        ratio = part.get("ratio")
        times = f", {_short(ratio)} x their median" if ratio is not None else ""
        yield f"rank {part['rank']} of {part['n_draws'] + 1} among its nulls{times}"


def _row(which: str, row: Mapping[str, Any]) -> str:
    words = [str(row[key]) for key in ("status", "topic", "text") if row.get(key)]
    name = row.get("label") or row.get("module") or ""
    return _cut(f"{which or 'item'}: {_short(row.get('value'))} ({name}) {', '.join(words)}".rstrip())


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _short(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_short(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def _outdented(block: str) -> str:
    return "\n".join(line[2:] for line in block.splitlines())


def _write_optimizer(path: Path) -> None:
    """Save what AdamW remembers of two small LoRA factors after some steps; B begins at 0, as PEFT has it."""
    import torch

    generator = torch.Generator().manual_seed(0)
    factors = {
        "q_proj.lora_A": torch.randn(4, 16, generator=generator).requires_grad_(),
        "q_proj.lora_B": torch.zeros(16, 4, requires_grad=True),
    }
    optimizer = torch.optim.AdamW(factors.items(), lr=1e-2)
    for _ in range(_STEPS):
        x, y = (torch.randn(8, 16, generator=generator) for _ in range(2))
        loss = ((x @ factors["q_proj.lora_A"].T @ factors["q_proj.lora_B"].T - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(optimizer.state_dict(), path)


def main(demo: Path, out: Path, base: str | None, only: tuple[str, ...] = tuple(ADAPTERS)) -> None:
    """Run the suite on the adapters and write the record, which keeps what it has of the others."""
    import dlm_sway
    from dlm_sway.demo.model import demo_model
    from dlm_sway.report.json import dumps
    from dlm_sway.suite.run import run

    suite = prepare(out)
    kept = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {"how": {}, "kinds": {}}
    found = {kind: _kept(kept["kinds"].get(kind, {}), entry) for kind, entry in entries(suite).items()}
    names = {kind: re.findall(r"- name: (\S+)", seen["entry"])[0] for kind, seen in found.items()}
    how: dict[str, Any] = {**kept["how"], "version": dlm_sway.__version__}
    for name in only:
        on_models(suite, base=base or str(demo_model()), adapter=demo / ADAPTERS[name])
        skip = ("null_adapter", *(names[kind] for kind in sorted(NOT_THE_TWIN))) if name == "twin" else ()
        result = run(suite, skip=skip, cache=out.with_name(f"{out.name}-cache")).model_dump(mode="json")
        for probe in result["probes"]:
            found[probe["kind"]][name] = record(probe)
        how[name] = {"band": result["band"], "score": _short(result["score"])}
        sys.stderr.write(f"{name}: {how[name]}\n")
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(dumps({"how": how, "kinds": found}), encoding="utf-8")


def _kept(seen: Mapping[str, Any], entry: str) -> dict[str, Any]:
    """Return a record, without what was found with another entry."""
    return dict(seen) if seen.get("entry") == entry else {"entry": entry}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=ROOT / "out" / "demo", help="what `make demo` wrote")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "examples", help="where the suite is copied to")
    parser.add_argument("--base", help="the base model, where it is not the demo's")
    parser.add_argument("--only", choices=tuple(ADAPTERS), help="run one adapter and keep what is known of the other")
    given = parser.parse_args()
    main(given.demo, given.out, given.base, (given.only,) if given.only else tuple(ADAPTERS))
