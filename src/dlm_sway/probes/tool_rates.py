"""Shares of requests in which something is so, over what varies on its own: a cluster counts as one request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dlm_sway.stats.proportions import Proportion, clopper_pearson, newcombe_paired, shared_counts

ONE_SIDED: Final = 0.90  # a two-sided interval of this confidence has one-sided 95 % bounds
_CELLS: Final = ((True, True), (False, True), (True, False), (False, False))


class Pairs:
    """Whether something is so of the base's reply and of the fine-tune's.

    Attributes:
        n_items: requests.
        n: clusters of them.
        base: share of the clusters in which it is so of the base.
        finetuned: the same of the fine-tune.
    """

    def __init__(self, pairs: Sequence[tuple[bool, bool]], clusters: Sequence[str]) -> None:
        counts = shared_counts(pairs, clusters)
        self._cells = tuple(counts.get(cell, 0.0) for cell in _CELLS)
        self.n_items, self.n = len(pairs), len(set(clusters))
        both, only_finetuned, only_base, _ = self._cells
        self.base, self.finetuned = (both + only_base) / self.n, (both + only_finetuned) / self.n

    def difference(self, times: int = 1) -> Proportion:
        """Return the fine-tune's share minus the base's, with `times` as many clusters of the same kind."""
        return newcombe_paired(*(times * cell for cell in self._cells), confidence=ONE_SIDED)


class Share:
    """Whether something is so of replies.

    Attributes:
        n_items: replies.
        n_so: those of which it is so.
        n: clusters of them.
    """

    def __init__(self, so: Sequence[bool], clusters: Sequence[str]) -> None:
        self.n_items, self.n_so, self.n = len(so), sum(so), len(set(clusters))
        self._so = shared_counts(so, clusters).get(True, 0.0)

    def rate(self, times: int = 1) -> Proportion:
        """Return the share of the clusters, with `times` as many of the same kind."""
        return clopper_pearson(times * self._so, times * self.n, confidence=ONE_SIDED)


def among(n_items: int, n_clusters: int, what: str) -> str:
    """Return how many there are, with their clusters where those are fewer."""
    return f"{n_items} {what}" + (f" in {n_clusters} clusters" if n_clusters < n_items else "")
