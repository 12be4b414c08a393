"""Fills the tables of figures from benchmarks/results: `python docs/figures.py`. Needs no torch."""  # noqa: INP001 (a script, no package)

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ("README.md", "docs/performance.md", "docs/statistics/truth.md")
_PLACE: Final = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- /figures -->)", re.DOTALL)
_RATIOS: Final = {
    "stacked_vs_prompt_loop": "25 views of 32 prompts in stacked passes, against one prompt and one view at a time",
    "stacked_vs_view_loop": "the same, against one batched pass a view",
    "suite_ratio": "eight probes with 39 draws in shared passes, over the same with 3 draws in a loop over prompts",
    "batch_vs_loop": "`next_token_dist_batch` of 32 prompts, against a loop",
    "onednn_vs_mkl": "fp32 products through oneDNN, against MKL on this AMD processor",
    "multi_rank_ratio": "nulls of three ranks, over nulls of one",
    "null_marginal": "one more null, over one pass of the base alone",
    "growth": "time per view-token with `--batch-tokens` 8192, over 2048",
    "pass_growth": "the same for passes of 8192, which sway does not make on a CPU (1.20 x on another machine)",
    "gemm_fraction": "share of the time that the matrix products alone would take",
}
_PLAIN: Final = {
    "check_seconds": ("`sway check`, 24 lines of data, 39 nulls, process start included", "{:.0f} s"),
    "check_quick_seconds": ("`sway check --quick`, 19 nulls", "{:.0f} s"),
    "peak_rss_mb": ("peak memory of that check (weights: 513 MB)", "{:.0f} MB"),
    "gemm_gflops": ("fp32 matrix products on the machine of these seconds, at the slower end", "{:.0f} GFLOP/s"),
    "help_ms": ("`sway --help`", "{:.0f} ms"),
}
_TRUTH: Final = {
    "decided_right": "answers that agree with the truth, of those that decide",
    "inconclusive": "answers that do not decide",
    "healthy_passes_learned": "healthy adapters that pass `learned`",
    "healthy_passes_on_target": "healthy adapters that pass `on target`",
    "noise_passes_learned": "noise adapters that pass `learned`",
    "noise_on_tiny_passes_learned": "the same on tiny random models",
    "off_target_passes_on_target": "those of another document or shuffled text that help too little, and pass it",
    "untrue_on_target_passes": "adapters of any making that are not on target, and pass it",
    "broken_passes": "reciting, collapsed, mis-scaled, renamed, NaN and no-op adapters with a pass as verdict",
}
_QUESTIONS: Final = {
    "sound": "sound",
    "applied": "applied",
    "learned": "learned",
    "on_target": "on target",
    "generalises": "generalises",
    "no_harm": "harmless",
}


def speed(results: dict[str, Any]) -> str:
    """Return the table of the speed benchmark."""
    rows = [f"| {text} | {_ratio(results, key)} |" for key, text in _RATIOS.items() if key in results]
    rows += [f"| {text} | {shape.format(results[key])} |" for key, (text, shape) in _PLAIN.items() if key in results]
    return "\n".join(["| what | measured |", "|---|---|", *rows]) + "\n"


def _ratio(results: dict[str, Any], key: str) -> str:
    low, high = results[f"{key}_range"]
    return f"{results[key]:.2f} x [{low:.2f}, {high:.2f}]" if low < high else f"{results[key]:.2f} x, timed once"


def truth(results: dict[str, Any]) -> str:
    """Return the shares that the truth benchmark found, with their exact 95 % binomial intervals."""
    found = results["headline"]
    rows = (f"| {text} | {_share(found[key])} |" for key, text in _TRUTH.items())
    return "\n".join(["| of adapters whose truth is known | measured |", "|---|---|", *rows]) + "\n"


def _share(found: dict[str, Any]) -> str:
    return f"{found['count']} of {found['of']}: {found['share']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"


def quick(whole: dict[str, Any], results: dict[str, Any]) -> str:
    """Return the shares of a whole check beside those of `--quick`, asked of the same adapters."""
    both = [(text, whole["headline"][key], results["headline"].get(key)) for key, text in _TRUTH.items()]
    rows = [f"| {text} | {_share(a)} | {_share(b)} |" for text, a, b in both if b]
    head = ["| of adapters whose truth is known | `check` | `check --quick` |", "|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def confusion(results: dict[str, Any]) -> str:
    """Return how often each question was right, wrong and undecided, by how an adapter was made."""
    lines = [f"| made | {' | '.join(_QUESTIONS.values())} |", "|---" * (len(_QUESTIONS) + 1) + "|"]
    for made, cells in results["confusion"].items():
        lines.append(f"| {made} | {' | '.join(_cell(cells.get(q, {})) for q in _QUESTIONS)} |")
    return "\n".join(lines) + "\n"


def _cell(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts[said]} {said}" for said in ("right", "wrong", "inconclusive") if counts.get(said))


def filled(page: str) -> str:
    """Return a page's text with every table as the results have it."""
    tables = {
        "speed": speed(_results("speed")),
        "truth": truth(_results("truth")),
        "quick": quick(_results("truth"), _results("truth-quick")),
        "confusion": confusion(_results("truth")),
        "quick_confusion": confusion(_results("truth-quick")),
    }
    return _PLACE.sub(lambda m: m[1] + tables[m[2]] + m[3], (ROOT / page).read_text(encoding="utf-8"))


def _results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    for name in PAGES:
        (ROOT / name).write_text(filled(name), encoding="utf-8")
