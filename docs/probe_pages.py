"""The pages of docs/probes, one a kind of probe, for `python docs/build.py`. Needs no torch.

What a probe asks and when it passes comes from its docstring, its options from its spec, the tests from their marks,
and the example from docs/probes/examples.json, which docs/examples.py records. No figure is written by hand.
"""  # noqa: INP001 (a script, no package)

from __future__ import annotations

import ast
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dlm_sway.cli.list_probes import described, sorted_by_category
from dlm_sway.core.docstrings import attributes
from dlm_sway.probes.registry import probes
from dlm_sway.suite.fields import holds

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = Path(__file__).with_name("probes")
RECORD: Final = FOLDER / "examples.json"
_STATISTICS: Final = Path(__file__).with_name("statistics")
_MARKS: Final = {
    "planted_fault": "A planted fault that it finds",
    "healthy_pair": "A healthy pair that it passes",
}
# Where errors and power are simulated, for kinds that no heading there names: page, and how the heading begins.
_SIMULATED: Final = {
    "adapter_ablation": ("probes-ablation.md", "The name of a shape"),
    "adapter_revert": ("probes-gen.md", "Probes that generate"),
    "delta_kl": ("simulations.md", "Rank test"),
    "external_perplexity": ("simulations.md", "Looks on the way"),
    "null_adapter": ("simulations.md", "Rank test"),
    "rank_profile": ("probes-ablation.md", "Cuts"),
    "style_fingerprint": ("probes-gen.md", "Probes that generate"),
    "target_gain": ("simulations.md", "Gain of 0"),
    "sampled_text": ("sampled-text.md", "How often it errs"),
    "tool_use_fidelity": ("probes-gen.md", "Probes that generate"),
}
_NOTHING_DRAWN: Final = {"numeric_floor": "It measures and decides nothing, so there is no error rate to simulate."}
_TYPES: Final = {
    "items": "texts",
    "sections": "texts",
    "texts": "list of text",
    "cases": "list of mappings",
    "path": "path",
}
_WORDS: Final = {int: "whole number", float: "number", bool: "`true` or `false`", str: "text"}
_BOUNDS: Final = {"ge": "at least", "gt": "over", "le": "at most", "lt": "under", "min_length": "at least"}
_SPECIAL: Final = re.compile(r"([|*])")
_GENERATED: Final = "<!-- Written by `python docs/build.py` from the code. Do not edit it by hand. -->"
_HEAD: Final = f"""\
# The probes

{_GENERATED}

A probe is one claim about a fine-tune. `sway check` runs the few that answer its questions, [a suite](../suite.md)
those that it names. `sway list-probes` prints what these pages begin with. [How to add one](../adding-a-probe.md).

N0, N1, N4 and N5 are [nulls](../design/0003-nulls.md); maxT is [the adjustment for several
tests](../statistics/multiplicity.md). Every probe also has the options `name` and `kind`.
"""


def pages() -> dict[Path, str]:
    """Return each page and what it should hold now."""
    own = sorted_by_category({k: c for k, c in probes().items() if c.__module__.startswith("dlm_sway.")})
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {"how": {}, "kinds": {}}
    found = {FOLDER / f"{kind}.md": _page(kind, cls, record) for kind, cls in own.items()}
    return {FOLDER / "README.md": _index(own, record), **found}


def _index(own: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    lines = [_HEAD, *_how(record), ""]
    for category in dict.fromkeys(cls.category for cls in own.values()):
        lines += [f"## {category.capitalize()}", "", "| kind | asks | trained | noise twin |", "|---|---|---|---|"]
        for kind, cls in own.items():
            if cls.category == category:
                seen = record["kinds"].get(kind, {})
                verdicts = " | ".join(seen[a]["verdict"] if a in seen else "-" for a in ("trained", "twin"))
                lines.append(f"| [`{kind}`]({kind}.md) | {_plain(_title(cls))} | {verdicts} |")
        lines.append("")
    return "\n".join(lines)


def _how(record: Mapping[str, Any]) -> Iterator[str]:
    if not record["kinds"]:
        yield "No examples were recorded: `make examples` records them."
        return
    how = record["how"]
    bands = " and ".join(f"`{how[a]['band']}`" for a in ("trained", "twin") if a in how)
    yield (
        "The last two columns are what each said of the demo's trained adapter and of its noise twin, which has the "
        "same size and learned nothing (`-`: not asked). `make examples` runs "
        "[this suite](../../examples/every-probe.yaml) on both, with small samples so that it takes minutes; several "
        f"answers are therefore inconclusive. Sway {how['version']} put them in the bands {bands}."
    )


def _page(kind: str, cls: Any, record: Mapping[str, Any]) -> str:
    fields = [f"- **{name}**: {_plain(text)}" for name, text in described(cls).items()]
    parts = [f"# `{kind}`", "", _GENERATED, "", f"{_plain(_title(cls))} Category: {cls.category}.", "", *fields, ""]
    parts += [*_options(cls.spec_type), *_example(record["kinds"].get(kind)), *_tested(kind)]
    return "\n".join([*parts, "[All probes](README.md)", ""])


def _title(cls: Any) -> str:
    return (inspect.getdoc(cls) or "").splitlines()[0]


def _options(spec: Any) -> Iterator[str]:
    means = attributes(spec)
    own = {name: field for name, field in spec.model_fields.items() if name in means}
    if not own:
        return
    yield from ("## Options", "", "| option | type | default | means |", "|---|---|---|---|")
    for name, field in own.items():
        yield f"| `{name}` | {_type(spec, name, field)} | {_default(field)} | {_plain(means[name])} |"
    yield ""
    for name, field in own.items():
        for model in _models_in(field.annotation):
            yield from _entry(name, model)


def _entry(name: str, model: type[BaseModel]) -> Iterator[str]:
    means = attributes(model)
    yield from (f"An entry of `{name}` has", "", "| key | type | default | means |", "|---|---|---|---|")
    for key, field in model.model_fields.items():
        words = _plain(means.get(key, ""))
        yield f"| `{key}` | {_type(model, key, field)} | {_default(field)} | {words} |"
    yield ""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    inner = [m for part in typing.get_args(annotation) for m in _models_in(part)]
    return [annotation, *inner] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else inner


def _type(spec: Any, name: str, field: FieldInfo) -> str:
    words = _TYPES.get(holds(spec, name)) or _words(field.annotation)
    said = [(key, value) for m in field.metadata for key in _BOUNDS if (value := getattr(m, key, None)) is not None]
    bounds = [f"{_BOUNDS[key]} {value}" for key, value in said]
    if words == "text" and bounds:
        return "text, not empty"
    return f"{words}, {' and '.join(bounds)}" if bounds else words


def _words(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(f"`{choice}`" for choice in inner)
    if origin is Annotated:
        return _words(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(part) for part in inner if part is not type(None)))
    if origin in (tuple, list):
        return f"list of {_words(inner[0])}"
    plain = (
        "mapping" if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)) else "any"
    )
    return _WORDS.get(annotation, plain)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), "", {}):
        return "empty"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def _example(seen: Mapping[str, Any] | None) -> Iterator[str]:
    yield from ("## Example", "")
    if seen is None or "trained" not in seen:
        yield from ("No example was recorded: `make examples` records one.", "")
        return
    yield from ("In [the suite of every probe](../../examples/every-probe.yaml):", "")
    yield from ("```yaml", seen["entry"], "```", "")
    yield from ("| adapter | claim | verdict | effect | 95 % interval | p |", "|---|---|---|---|---|---|")
    shown = [(words, seen[a]) for a, words in (("trained", "trained"), ("twin", "noise twin")) if a in seen]
    for words, result in shown:
        for name, claim in result["claims"].items():
            yield f"| {words} | {f'`{name}`' if name else '-'} | {claim['verdict']} | {_figures(claim)} |"
    yield from ("", "```text")
    for words, result in shown:
        yield from (f"{words}: {_inside(c['message'])}" for c in result["claims"].values())
        yield from (f"    {_inside(line)}" for line in result["evidence"])
    yield from ("```", "")


def _figures(claim: Mapping[str, Any]) -> str:
    effect = "-" if claim["effect"] is None else f"{_number(claim['effect'])} {claim['unit'] or ''}".strip()
    interval = "-" if claim["interval"] is None else f"[{', '.join(_number(x) for x in claim['interval'])}]"
    return f"{_plain(effect)} | {interval} | {'-' if claim['p'] is None else _number(claim['p'])}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _inside(text: str) -> str:
    """Return text that cannot end the fence it stands in."""
    return " ".join(text.split()).replace("```", "'''")


def _tested(kind: str) -> Iterator[str]:
    yield from ("## How it is tested", "")
    path = f"tests/probes/test_{kind}.py"
    for mark, words in _MARKS.items():
        names = ", ".join(f"`{name}`" for name in marked(ROOT / path, mark))
        yield f"- {words}: {names or 'none'} ([source](../../{path}))"
    yield f"- {_NOTHING_DRAWN[kind] if kind in _NOTHING_DRAWN else _simulated(kind)}"
    yield ""


def marked(path: Path, mark: str) -> list[str]:
    """Return the names of a file's tests that bear a pytest mark."""
    if not path.is_file():
        return []
    tests = (n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.FunctionDef))
    return [t.name for t in tests if any(isinstance(d, ast.Attribute) and d.attr == mark for d in t.decorator_list)]


def _simulated(kind: str) -> str:
    for page in sorted(_STATISTICS.glob("probes-*.md")):
        for heading in _headings(page):
            if kind in re.findall(r"\w+", heading):
                return _link(page, heading)
    name, begins = _SIMULATED[kind]
    page = _STATISTICS / name
    return _link(page, next(heading for heading in _headings(page) if heading.startswith(begins)))


def _headings(page: Path) -> list[str]:
    return re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))


def _link(page: Path, heading: str) -> str:
    anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    return f"How often it errs, and what it finds: [simulated](../statistics/{page.name}#{anchor})"


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
