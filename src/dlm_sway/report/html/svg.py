"""A chart as SVG for a page with two themes, made of nothing but shapes, words and variables of its style sheet.

The renderer's output is rebuilt from a list of what is allowed, so that no link, image, style or script could get
through it, whatever the data made the renderer do.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from xml.etree import ElementTree as ET

from dlm_sway.core.extras import needs_extra
from dlm_sway.report.palette import variables
from dlm_sway.report.text import legal_in_xml

_NS: Final = "{http://www.w3.org/2000/svg}"
_TAGS: Final = frozenset({"svg", "g", "path", "line", "rect", "text", "tspan"})
_KEPT: Final = frozenset(
    {
        *("d", "transform", "x", "y", "x1", "y1", "x2", "y2", "width", "height", "viewBox", "fill", "stroke"),
        *("stroke-width", "stroke-dasharray", "stroke-linecap", "opacity", "fill-opacity", "stroke-opacity"),
        *("text-anchor", "font-size", "font-weight"),
    }
)
_NUMBER: Final = re.compile(r"-?\d+\.\d{2,}")
_FREE_COLOUR: Final = re.compile(r"#[0-9a-fA-F]{3,8}|none|transparent|var\(--[a-z]+\)")


def draw(chart: Any, *, label: str) -> str:
    """Return a chart as an SVG element with a text for those who do not see it.

    Args:
        chart: an Altair chart in the colours of `palette.TOKENS`.
        label: the text.

    Raises:
        MissingExtraError: what draws is not installed.
    """
    with needs_extra("drawing pictures"):
        import vl_convert
    # What draws ends the whole process where a text cannot stand in XML, so none may reach it.
    spec = legal_in_xml(json.dumps(chart.to_dict(), ensure_ascii=False))
    return rebuilt(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]), label=label)


def rebuilt(svg: str, *, label: str) -> str:
    """Return an SVG with only what is allowed in it, the tokens of the palette as variables."""
    root = _copy(ET.fromstring(svg), variables())  # noqa: S314 (the renderer's own, without a DTD)
    if root is None:
        return ""
    root.set("role", "img")
    root.set("aria-label", label)
    root.set("preserveAspectRatio", "xMinYMid meet")
    return ET.tostring(root, encoding="unicode")


def _copy(source: ET.Element, colours: dict[str, str]) -> ET.Element | None:
    tag = source.tag.removeprefix(_NS)
    if tag not in _TAGS or _is_empty(source):
        return None
    kept = {name: _value(name, value, colours) for name, value in source.attrib.items() if name in _KEPT}
    made = ET.Element(tag, {name: value for name, value in kept.items() if value})
    made.text = source.text if tag in ("text", "tspan") else None
    if source.get("role") == "graphics-symbol" and tag != "g" and source.get("aria-label"):
        ET.SubElement(made, "title").text = source.get("aria-label")
    for child in source:
        copy = _copy(child, colours)
        if copy is not None:
            made.append(copy)
    return made if len(made) or tag != "g" else None


def _is_empty(source: ET.Element) -> bool:
    return source.get("display") == "none" or source.get("d") == "" or source.get("fill") == "#00000000"


def _value(name: str, value: str, colours: dict[str, str]) -> str:
    if name in ("fill", "stroke"):
        colour = colours.get(value.lower(), value)
        return colour if _FREE_COLOUR.fullmatch(colour) else "none"
    if name == "opacity" and value == "1":
        return ""
    return _NUMBER.sub(lambda found: f"{float(found[0]):.1f}", value)
