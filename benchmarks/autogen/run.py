"""Do suites that nobody wrote tell adapters apart? Three kinds of data, `sway autogen`, three adapters, `sway run`.

For a document, a file of preferences and a file of tool calls, three adapters: one that was trained on it (healthy),
its noise twin, and one that was trained on something else. Each is given the suite that `sway autogen` writes,
unedited. The healthy one has to pass, the others have to fail. Prints the verdict of every probe, and ends with 1
where a suite does not separate them.

What was made and found is kept in out/autogen, so a run that was cut off goes on where it stopped; `--only
tools/healthy` does one piece, `--fresh` forgets the rows.

    python benchmarks/autogen/run.py --budget 2m
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from dlm_sway.data.readers import read_sections
from dlm_sway.demo.mend import mended_base
from dlm_sway.demo.model import demo_model
from dlm_sway.demo.noise import write_twin
from dlm_sway.demo.run import RECIPE
from dlm_sway.demo.train import Line, Recipe, Reply, train_lora

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = ROOT / "examples"
VOICE: Final = ROOT / "benchmarks" / "truth" / "texts" / "old-sailor.jsonl"
TEMPLATE: Final = Path(__file__).with_name("tools.jinja")
END: Final = "<|im_end|>"
# The demo's rate costs 0.05 nat on facts that the base knew, which is the margin; half of it costs nothing.
GENTLE: Final = replace(RECIPE, lr=5e-4)
MADE: Final = ("healthy", "noise", "wrong")


def document() -> list[Line]:
    """Return the demo document line by line."""
    return [*(EXAMPLES / "tidal-bell.txt").read_text(encoding="utf-8").splitlines()]


def voice() -> list[Line]:
    """Return answers in a sailor's voice: what an adapter learns from them is about none of the other files."""
    return [(s.prompt, s.completion) for s in read_sections(VOICE)]


def chosen() -> list[Line]:
    """Return the chosen replies: supervised training on them, the simplest way to teach a preference."""
    return [(s.prompt, s.completion + END) for s in read_sections(EXAMPLES / "ferry-replies.jsonl")]


def calls() -> list[Line]:
    """Return the calls, each behind its request and the tools that were offered."""
    sections = read_sections(EXAMPLES / "ferry-calls.jsonl")
    return [Reply(s.messages[:1], s.completion + END, s.tools) for s in sections]


@dataclass(frozen=True, slots=True)
class Data:
    """One kind of data.

    Attributes:
        file: in examples; what was held out lies beside it and is found by its name.
        lines: what the healthy adapter is trained on.
        recipe: how.
        wrong: what the wrong adapter is trained on. A document in a like tone really helps, and is believed
            (tests/real/test_trained.py), so it is one of another form: the voice, and calls where replies are tested.
        tools: whether the base needs a chat template that shows tools.
    """

    file: str
    lines: Callable[[], list[Line]]
    recipe: Recipe
    wrong: str
    tools: bool = False


KINDS: Final = {
    "document": Data("tidal-bell.txt", document, GENTLE, wrong="voice"),
    "preferences": Data("ferry-replies.jsonl", chosen, replace(GENTLE, cut=96), wrong="tools-healthy"),
    "tools": Data("ferry-calls.jsonl", calls, replace(RECIPE, cut=256, plain=1, steps=40), wrong="voice", tools=True),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where bases and adapters are kept."""

    store: Path
    named: Path | None

    def base(self, *, tools: bool) -> Path:
        """Return the mended base; with `tools`, behind a chat template that shows them (SmolLM2's own does not)."""
        base = self.named or mended_base(demo_model(), self.store / "base", plain=plain())
        if not tools:
            return base
        out = self.store / "base-tools"
        if not out.exists():
            shutil.copytree(base, out, copy_function=lambda a, b: Path(b).symlink_to(Path(a).resolve()))
            (out / "chat_template.jinja").unlink()
            shutil.copy(TEMPLATE, out / "chat_template.jinja")
        return out

    def adapter(self, kind: str, made: str) -> Path:
        """Return an adapter, made once."""
        data = KINDS[kind]
        if made == "wrong" and data.wrong == "tools-healthy":
            return self.adapter("tools", "healthy")
        out = self.store / "adapters" / ("voice" if made == "wrong" else f"{kind}-{made}")
        if (out / "adapter_config.json").exists():
            return out
        if made == "noise":
            return write_twin(self.adapter(kind, "healthy"), out)
        if made == "wrong":
            return train_lora(self.base(tools=False), out, texts=voice(), plain=plain(), recipe=RECIPE)
        base = self.base(tools=data.tools)
        return train_lora(base, out, texts=data.lines(), plain=plain(), recipe=data.recipe)


def plain() -> list[str]:
    """Return the general text that keeps an adapter from forgetting."""
    return [section.completion for section in read_sections(EXAMPLES / "plain.jsonl")]


def examined(kind: str, made: str, place: Place, budget: str) -> dict[str, Any]:
    """Return what the suite that was written for an adapter says of it."""
    adapter, data = place.adapter(kind, made), KINDS[kind]
    folder = place.store / f"{kind}-{made}"
    folder.mkdir(parents=True, exist_ok=True)
    suite, found = folder / "sway.yaml", folder / "result.json"
    base = str(place.base(tools=data.tools))
    began = time.perf_counter()
    write = ["autogen", str(EXAMPLES / data.file), "--adapter", str(adapter), "--base", base, "--budget", budget]
    said = sway(*write, "-o", str(suite), "--force")
    ran = sway("run", str(suite), "--json", str(found), "--quiet", "--dtype", "fp32", "--resume")
    (folder / "said.txt").write_text(said.stdout + ran.stdout + ran.stderr, encoding="utf-8")
    if said.returncode or not found.exists():
        raise SystemExit(said.stderr + ran.stderr)
    probes = json.loads(found.read_text(encoding="utf-8"))["probes"]
    return {
        "kind": kind,
        "made": made,
        "exit": ran.returncode,
        "verdicts": {p["name"]: p["verdict"] for p in probes},
        "messages": {p["name"]: p["message"] for p in probes},
        "seconds": round(time.perf_counter() - began, 1),
    }


def sway(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    program = Path(sys.executable).with_name("sway")
    return subprocess.run([program, *words], check=False, capture_output=True, text=True)


def separated(row: dict[str, Any]) -> bool:
    """Return whether a suite said of an adapter what is true of it."""
    return bool(row["exit"] == (0 if row["made"] == "healthy" else 1))


def main() -> int:
    """Make what is missing, examine it, print the verdicts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--budget", default="2m", help="what a suite may take")
    parser.add_argument("--only", action="append", metavar="KIND/ADAPTER", help="one piece, such as tools/healthy")
    parser.add_argument("--make", action="store_true", help="make the adapters and end")
    parser.add_argument("--base", type=Path, help="a mended base to use instead of making one")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "autogen")
    parser.add_argument("--fresh", action="store_true", help="examine again what has a row")
    wanted = parser.parse_args()
    place, journal = Place(wanted.out, wanted.base), wanted.out / "rows.jsonl"
    kept = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    rows = {f"{row['kind']}/{row['made']}": row for row in map(json.loads, kept)}
    for name in wanted.only or [f"{kind}/{made}" for kind in KINDS for made in MADE]:
        kind, made = name.split("/")
        if wanted.make:
            print(place.adapter(kind, made))
            continue
        if name not in rows or wanted.fresh:
            rows[name] = examined(kind, made, place, wanted.budget)
            with journal.open("a", encoding="utf-8") as f:
                f.write(json.dumps(rows[name]) + "\n")
        show(name, rows[name])
    return 0 if all(separated(row) for row in rows.values()) else 1


def show(name: str, row: dict[str, Any]) -> None:
    """Print what every probe said."""
    print(
        f"\n{name}: exit {row['exit']}, {'as it should' if separated(row) else 'NOT AS IT SHOULD'}, {row['seconds']} s"
    )
    for probe, verdict in row["verdicts"].items():
        print(f"  {probe:24} {verdict:13} {row['messages'][probe]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
