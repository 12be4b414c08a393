"""From the data that a model was fine-tuned on, and its adapter, to the suite that tests it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dlm_sway.core.errors import BadInputError
from dlm_sway.core.paths import way_from
from dlm_sway.data.cost import weights_of
from dlm_sway.data.dlm import read_header
from dlm_sway.data.dlm_store import adapter_of
from dlm_sway.data.match import control_match
from dlm_sway.data.material import Material, Source, read_material
from dlm_sway.data.planner import Plan, plan
from dlm_sway.data.splits import HeldOut, split
from dlm_sway.data.suite_size import LEAST_SCALE, LIMITS, fullness, smaller
from dlm_sway.data.suite_text import Header, suite_text

_AUTO = HeldOut("auto")


@dataclass(frozen=True, slots=True)
class Written:
    """A suite before it is written.

    Attributes:
        text: the file's content.
        plan: what is in it and what is not.
        material: what was read.
        base: of the models.
        adapter: directory, or None where the user has to fill it in.
        notes: how controls match.
    """

    text: str
    plan: Plan
    material: Material
    base: str
    adapter: Path | None
    notes: tuple[str, ...]


def autogen(
    sources: Sequence[Source],
    *,
    adapter: Path | None = None,
    base: str | None = None,
    held_out: HeldOut = _AUTO,
    budget: float | None = None,
    draws: int = 39,
    seed: int = 0,
    beside: Path | None = None,
) -> Written:
    """Return the suite for an adapter that was trained on `sources`, with as many of its texts as a suite may hold.

    A single `.dlm` document names its base, and its store the adapter, where they are not given.

    Args:
        sources: what it was trained on.
        adapter: a PEFT directory.
        base: directory or Hub id; as the adapter or the document records it when None.
        held_out: what the fine-tune has not seen.
        budget: seconds that the suite may take, or None.
        draws: null adapters.
        seed: of samples, splits and draws.
        beside: folder that the suite is written to; its paths are relative to it.

    Raises:
        BadInputError: something cannot be read, the base is not recorded anywhere, or texts are too long for a suite.
        MissingExtraError: a package is not installed.
    """
    material = read_material(sources, seed=seed)
    adapter, base = _models(sources, adapter, base)
    parted = split(material, held_out, seed=seed)
    home = Path.cwd() if beside is None else beside
    header = Header(_version(), _base(home, base), None if adapter is None else _from(home, adapter))
    scale, weights = 1.0, weights_of(base)
    small: tuple[str, ...] = ()
    while True:
        made = plan(parted, draws=draws, seed=seed, budget=budget, weights=weights, largest=scale)
        notes = (*_matched(made), *small)
        text = suite_text(made, material, replace(header, notes=notes))
        if (full := fullness(text, made)) <= 1:
            return Written(text, made, material, base, adapter, notes)
        if scale <= LEAST_SCALE:
            what = f"even the fewest of its texts do not fit in a suite, which holds {LIMITS}"
            raise BadInputError(what, where=sources[0].name, remedy="shorten the texts, or offer fewer tools a request")
        scale = smaller(made.feed.scale, full)
        small = (f"made smaller, to at most {scale:.0%} of full size: a suite holds {LIMITS}",)


def _matched(plan_: Plan) -> tuple[str, ...]:
    items = plan_.feed.trained_items
    return (f"controls: {control_match(items, seed=plan_.feed.seed).line}",) if items else ()


def _models(sources: Sequence[Source], adapter: Path | None, base: str | None) -> tuple[Path | None, str]:
    document = Path(sources[0].name)
    header = read_header(document) if len(sources) == 1 and document.suffix.lower() == ".dlm" else None
    if adapter is None and header is not None:
        try:
            adapter = adapter_of(header, document)
        except BadInputError:
            adapter = None  # not trained yet; the suite says where to fill it in
    if adapter is not None and base is None:
        from dlm_sway.adapters.config import load_config

        base = load_config(adapter).base_model_name_or_path
    if base is None and header is not None:
        base = header.base
        if base is None and header.base_model:
            what = f"`base_model` {header.base_model[:60]!r} is no name that sway knows"
            raise BadInputError(what, where=document, remedy="name the base with --base")
    if base is None:
        what = "no base is recorded: there is no adapter that names it"
        raise BadInputError(what, where=document, remedy="name it with --base, or its adapter with --adapter")
    return adapter, base


def _base(home: Path, base: str) -> str:
    """Return a base as the suite should name it: a folder is found from where the suite lies, an id is no path."""
    return _from(home, Path(base)) if Path(base).expanduser().is_dir() else base


def _from(home: Path, path: Path) -> str:
    """Return a path relative to a folder where it lies in or near it, else absolute."""
    absolute = path.expanduser().absolute()
    near = way_from(home, absolute)
    found = near if near.count("..") < 2 else str(absolute)  # noqa: PLR2004 (further up, a relative path only confuses)
    return found if found.startswith(("/", ".")) else f"./{found}"


def _version() -> str:
    try:
        return version("dlm-sway")
    except PackageNotFoundError:
        return "unknown"
