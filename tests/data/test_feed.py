"""What a feed writes of texts: clusters keep apart what the data keep apart."""

from __future__ import annotations

from dlm_sway.core.sections import Section
from dlm_sway.data.feed import Feed
from dlm_sway.data.splits import Split


def _feed(*clusters: str, held_out: tuple[str, ...] = ()) -> Feed:
    sides = [
        tuple(Section("prose", "", f"{side} {i}", "d", i, cluster=cluster) for i, cluster in enumerate(names))
        for side, names in (("trained", clusters), ("held out", held_out))
    ]
    return Feed(Split(sides[0], sides[1], ""))


def _clusters(feed: Feed) -> list[str | None]:
    return [text.get("cluster") for text in feed.trained]


def test_a_cluster_is_written_without_its_folders_where_that_tells_all_apart() -> None:
    assert _clusters(_feed("runs/a.md:1", "runs/a.md:1", "runs/b.md:1")) == ["a.md:1", "a.md:1", None]


def test_clusters_that_differ_in_their_folders_alone_are_written_whole() -> None:
    names = [f"repo{i // 2}/README.md" for i in range(8)]
    assert _clusters(_feed(*names)) == names


def test_a_cluster_that_ends_with_a_slash_is_written_whole() -> None:
    names = ["https://a.example/x/", "https://a.example/x/", "https://a.example/y/", "https://a.example/y/"]
    assert _clusters(_feed(*names)) == names


def test_clusters_of_both_sides_are_told_apart() -> None:
    feed = _feed("a/x.md", "a/x.md", held_out=("b/x.md", "b/x.md"))
    assert [text["cluster"] for text in (*feed.trained, *feed.held_out)] == ["a/x.md"] * 2 + ["b/x.md"] * 2
