"""YAML as a document's frontmatter needs it: keys and values, no references, no tags, no key twice.

References can make a few lines stand for gigabytes, a tag can call a constructor on a value that it was not made for,
and of a key that stands twice one value would be lost without a word.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any


def plain_yaml(text: str) -> Any:
    """Return what a text holds.

    Raises:
        yaml.YAMLError: it is no YAML, or holds what is not read here; it has a `problem` and a `problem_mark`.
        ValueError: a number or a date that there is not.
        RecursionError: it is nested too deeply.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses what frontmatter has no use for."""

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise yaml.composer.ComposerError(None, None, "references are not read here", event.start_mark)
            if getattr(event, "tag", None):
                raise yaml.composer.ComposerError(None, None, "tags are not read here", event.start_mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen: set[str] = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    what = f"the key {key.value[:40]!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep=deep)

    return yaml.load(text, Loader=Loader)  # noqa: S506 (a safe loader with less in it)
