"""The truth benchmark: adapters whose truth is known, put to `sway check`; how often it is right.

Run by `make truth`; writes benchmarks/results/truth.json, and truth-quick.json of `sway check --quick`, which is asked
of the same adapters. Each specimen's row is kept as it is made (out/truth), so a run that was cut off goes on where it
stopped; `--again` asks sway anew about the same adapters, `--fresh` forgets all.
One process at a time: torch's threads starve each other.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from cells import QUESTIONS, confusion, headline
from measure import Plain
from rich.console import Console
from rich.table import Table
from tiny import noise_on_tiny_models
from zoo import CHOOSE, REPORT, Specimen, build, specimens
from zoo import plain as plain_text

import dlm_sway
from dlm_sway.demo.mend import mended_base
from dlm_sway.demo.model import demo_model

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
STORE = ROOT / "out" / "truth"
QUICK = ("no-op", "noise", "healthy", "wrong document", "NaN")  # made at the first seed, on q and v


def examined(specimen: Specimen, *, base: Path, plain: Plain, quick: bool) -> dict[str, Any]:
    """Return a specimen's row: what sway said, and what plain log-probs say."""
    adapter = build(specimen, base=base, store=STORE / "adapters")
    began = time.perf_counter()
    found = dlm_sway.check(
        adapter,
        base=str(base),
        data=specimen.document.data,
        held_out=specimen.document.held_out,
        device="cpu",
        seed=specimen.seed,
        quick=quick,
    )
    seconds = time.perf_counter() - began
    loads = found.questions["applied"].verdict != "skip" and found.questions["sound"].verdict != "fail"
    return {
        "name": specimen.name,
        "made": specimen.made,
        "document": specimen.document.name,
        "seed": specimen.seed,
        "verdict": str(found.verdict),
        "verdicts": {k: str(q.verdict) for k, q in found.questions.items()},
        "effects": {k: q.effect for k, q in found.questions.items()},
        "messages": {k: q.message for k, q in found.questions.items()},
        "measured": measured(specimen, adapter, plain) if loads else None,
        "seconds": round(seconds, 1),
    }


def measured(specimen: Specimen, adapter: Path, plain: Plain) -> dict[str, Any]:
    """Return what plain log-probs say; kept, since sway has no part in it."""
    kept = STORE / "measured" / f"{specimen.name}.json"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(plain.truth(adapter, specimen.document)))
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def examine_all(zoo: list[Specimen], journal: Path, *, quick: bool) -> list[Mapping[str, Any]]:
    """Return a row a specimen, those in the journal as they are."""
    done = {row["name"]: row for row in map(json.loads, journal.read_text().splitlines())} if journal.exists() else {}
    base = mended_base(demo_model(), STORE / "base", plain=plain_text())
    plain = Plain(base)
    for i, specimen in enumerate(zoo):
        if specimen.name in done:
            continue
        row = done[specimen.name] = examined(specimen, base=base, plain=plain, quick=quick)
        with journal.open("a") as f:
            f.write(json.dumps(row) + "\n")
        print(f"{i + 1}/{len(zoo)} {row['name']}: {row['verdict']} {row['verdicts']}", flush=True)
    return [done[s.name] for s in zoo]


def table(result: Mapping[str, Any]) -> Table:
    """Return the confusion table: right / wrong / inconclusive."""
    out = Table(title="right / wrong / inconclusive")
    for column in ("made", *QUESTIONS):
        out.add_column(column)
    for made, cells in result["confusion"].items():
        counts = [cells.get(q, {}) for q in QUESTIONS]
        shown = [" / ".join(str(c.get(k, 0)) for k in ("right", "wrong", "inconclusive")) if c else "" for c in counts]
        out.add_row(made, *shown)
    return out


def main() -> None:
    """Make the zoo, check it, write the result and print it."""
    args = _arguments()
    STORE.mkdir(parents=True, exist_ok=True)
    if args.fresh:
        shutil.rmtree(STORE)
        STORE.mkdir()
    by_quick = args.ask == "quick"
    journal = STORE / ("rows-quick.jsonl" if by_quick else "rows.jsonl")
    if args.again:
        journal.unlink(missing_ok=True)
    zoo = list(specimens(CHOOSE if args.split == "choose" else REPORT))
    if args.quick:
        first = {s.made: s for s in reversed(zoo)}
        zoo = [first[made] for made in QUICK]
    if args.only:
        zoo = [s for s in zoo if any(word in s.name for word in args.only)]
    rows = examine_all(zoo, journal, quick=by_quick)
    # The tiny models are asked one question by itself, the same either way.
    tiny = {} if by_quick else noise_on_tiny_models(20 if args.quick else 200, STORE / "tiny")
    result = {
        "split": args.split,
        "headline": headline(rows) | ({"noise_on_tiny_passes_learned": tiny} if tiny else {}),
        "confusion": confusion(rows),
        "rows": rows,
        "versions": {"sway": dlm_sway.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    if not (args.quick or args.only or args.split == "choose"):
        name = "truth-quick.json" if by_quick else "truth.json"
        (RESULTS / name).write_text(json.dumps(result, indent=1) + "\n")
    console = Console()
    console.print(table(result))
    for name, value in result["headline"].items():
        shares = f"{value['share']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" if value["of"] else ""
        console.print(f"{name}: {value['count']} of {value['of']} {shares}", highlight=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five specimens, about 10 minutes; nothing is written")
    parser.add_argument("--ask", choices=("whole", "quick"), default="whole", help="a whole check, or `check --quick`")
    parser.add_argument("--only", nargs="*", default=[], help="specimens whose name holds one of these words")
    parser.add_argument("--split", choices=("choose", "report"), default="report")
    parser.add_argument("--again", action="store_true", help="ask sway anew; adapters and plain log-probs are kept")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run made and found")
    return parser.parse_args()


if __name__ == "__main__":
    main()
