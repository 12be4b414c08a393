"""Fills the tables of figures from benchmarks/results: `python docs/figures.py`. Needs no torch."""  # noqa: INP001 (a script, no package)

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ("README.md", "docs/performance.md")
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


def speed(results: dict[str, Any]) -> str:
    """Return the table of the speed benchmark."""
    rows = [f"| {text} | {_ratio(results, key)} |" for key, text in _RATIOS.items() if key in results]
    rows += [f"| {text} | {shape.format(results[key])} |" for key, (text, shape) in _PLAIN.items() if key in results]
    return "\n".join(["| what | measured |", "|---|---|", *rows]) + "\n"


def _ratio(results: dict[str, Any], key: str) -> str:
    low, high = results[f"{key}_range"]
    return f"{results[key]:.2f} x [{low:.2f}, {high:.2f}]" if low < high else f"{results[key]:.2f} x, timed once"


def filled(page: str) -> str:
    """Return a page's text with every table as the results have it."""
    tables = {"speed": speed(json.loads((ROOT / "benchmarks/results/speed.json").read_text(encoding="utf-8")))}
    return _PLACE.sub(lambda m: m[1] + tables[m[2]] + m[3], (ROOT / page).read_text(encoding="utf-8"))


if __name__ == "__main__":
    for name in PAGES:
        (ROOT / name).write_text(filled(name), encoding="utf-8")
