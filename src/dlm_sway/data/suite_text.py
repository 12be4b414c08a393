"""A plan as a suite file: YAML that runs as it is, with comments that say what each probe asks and can decide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dlm_sway.core.sections import counts_by_kind
from dlm_sway.data.cost import clock
from dlm_sway.data.feed import Feed
from dlm_sway.data.material import Material
from dlm_sway.data.planner import Plan, Planned
from dlm_sway.data.splits import INSTEAD

_WIDTH: Final = 116
# Lists that several probes read stand once, under an anchor.
SHARED: Final = ("trained", "held_out", "cases", "sections")
_PLACE: Final = "x-texts"
# What is wanted of each kind of section, and what would be a fault.
INTENTS: Final[Mapping[str, str]] = {
    "prose": "prose: its facts and tone should become more probable, held-out text of the same source too, and long "
    "spans should not come out word for word",
    "instruction": "instruction: the answer should hold in any words (generalize), and not for the trained words alone",
    "chat": "chat: replies should become more probable for the request, in any words (generalize)",
    "preference": "preference: the chosen reply should gain on the rejected one, whatever their lengths",
    "tool": "tool: calls should stay valid, name tools that were offered, and be the right ones more often",
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a suite says of where it came from.

    Attributes:
        version: of sway.
        base: directory or Hub id.
        adapter: directory, as the suite should name it; None where the user has to fill it in.
        notes: further lines, such as how controls match.
    """

    version: str
    base: str
    adapter: str | None
    notes: tuple[str, ...] = ()


def suite_text(plan: Plan, material: Material, header: Header) -> str:
    """Return the suite file of a plan.

    Reading it back as YAML gives exactly the specs of the plan. What users wrote stands in it as data and, where a
    comment names it, on one line without control characters.
    """
    lines = [*comments(_top(plan, material, header)), "", "version: 1", "", "models:"]
    lines.append(f"  base: {_inline(header.base)}")
    place = "path/to/adapter" if header.adapter is None else header.adapter
    remark = "  # put the directory of your adapter here" if header.adapter is None else ""
    lines += [f"  ft: {_inline(place)}{remark}", "", "defaults:"]
    lines += [f"  seed: {plan.feed.seed}", f"  draws: {plan.draws}", ""]
    shared = _shared(plan)
    if shared:
        lines += ["# Texts that several probes read.", f"{_PLACE}:"]
        for role in shared:
            lines += [f"  {role}: &{role}", *block(plan.feed.values(role), 4)]
        lines.append("")
    lines.append("suite:")
    for probe in plan.probes:
        lines += [*_probe(probe, plan, shared), ""]
    return "\n".join(lines).rstrip() + "\n"


def _top(plan: Plan, material: Material, header: Header) -> Iterator[str]:
    yield f"Written by sway {header.version} autogen from what was trained on; run it with: sway run FILE"
    yield ""
    yield f"seed {plan.feed.seed}, {plan.draws} draws; about {clock(plan.seconds)} on two CPU cores" + _size(plan)
    for source, summary, digest in zip(material.sources, material.summaries, material.sha256, strict=True):
        yield f"data {summary}"
        yield f"  weight {source.weight:g}, sha256 {digest or 'none: no single file'}"
    kinds = counts_by_kind(plan.feed.split.trained)
    yield "kinds of sections: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    yield from (f"intent of {INTENTS[kind]}" for kind in kinds)
    yield plan.feed.split.how
    if plan.feed.split.dropped:
        yield f"dropped from the held-out side, since the data hold it or nearly so: {plan.feed.split.dropped}"
    if again := len(plan.feed.split.held_out) - len(plan.feed.split.newly_asked):
        yield f"held-out sections whose prompt was trained on too, so that they are scored and not asked: {again}"
    yield from (f"cannot be tested: {line}" for line in plan.feed.split.cannot)
    if plan.feed.split.cannot:
        yield f"instead: {INSTEAD}"
    else:
        yield "prompts that are answered freely are held-out ones or in other words, never those trained on"
    yield from header.notes
    yield "spread between clusters is assumed for the power of each probe (0.2 nat/token); results print what they saw"
    if plan.left_out:
        yield ""
        yield "Left out:"
        yield from (f"  {left.kind}: {left.why}" for left in plan.left_out)


def _size(plan: Plan) -> str:
    size = (
        f"{plan.weights / 1e6:,.0f} M weights" if plan.weights else "a base of unknown size, reckoned as 135 M weights"
    )
    return f" for {size}" + ("" if plan.budget is None else f", of {clock(plan.budget)} allowed")


def _probe(probe: Planned, plan: Plan, shared: Sequence[str]) -> Iterator[str]:
    yield from (f"  {line}" for line in comments([probe.why, f"power: {probe.power}"]))
    yield f"  - name: {probe.kind}"
    yield f"    kind: {probe.kind}"
    for key, value in probe.spec.items():
        role = _same(probe.roles.get(key, ""), plan.feed)
        if role in shared:
            yield f"    {key}: *{role}"
        elif isinstance(value, list):
            yield f"    {key}:"
            yield from block(value, 6)
        else:
            yield f"    {key}: {_inline(value)}"


def _shared(plan: Plan) -> list[str]:
    """Return the roles that at least two probes read, in a fixed order."""
    used = [_same(role, plan.feed) for probe in plan.probes for role in probe.roles.values()]
    return [role for role in SHARED if used.count(role) > 1]


def _same(role: str, feed: Feed) -> str:
    """Return the role whose list a role's list is."""
    if role == "unseen":
        return "held_out" if feed.held_out else "trained"
    return "cases" if role == "fresh_cases" and not feed.split.held_out else role


def block(values: Iterable[Any], indent: int) -> list[str]:
    """Return values as lines of YAML, a list entry each, behind `indent` blanks."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes texts of several lines as they are, and aliases only where this module does."""

        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        odd = any(not (char.isprintable() or char == "\n") for char in value)  # YAML breaks lines at some of them
        # As a block these would leave the text open, so that the dumper ends it with dots, which end the whole file.
        open_ended = value == "\n" or value.endswith("\n\n")
        style = '"' if odd or open_ended else "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    found = yaml.dump(list(values), Dumper=Dumper, allow_unicode=True, sort_keys=False, width=_WIDTH - indent)
    return [" " * indent + line if line.strip() else "" for line in found.rstrip("\n").split("\n")]


def _inline(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").strip()


def comments(lines: Iterable[str]) -> Iterator[str]:
    """Yield comment lines; nothing in them can end a comment or move a terminal's cursor."""
    import textwrap

    for line in lines:
        plain = "".join(char if char.isprintable() else " " for char in line)
        if not plain.strip():
            yield "#"
        for part in textwrap.wrap(
            plain, _WIDTH - 2, break_long_words=False, drop_whitespace=True, subsequent_indent="  "
        ):
            yield f"# {part}"
