"""What the result of a suite came from: enough to run it again, to judge it again, and to tell two runs apart."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlm_sway.data.control import corpus_hash
from dlm_sway.probes.base import Env
from dlm_sway.suite.arrange import Arranged
from dlm_sway.suite.base_files import base_files
from dlm_sway.suite.provenance import adapter_hashes, how_computed, machine, sha256_of
from dlm_sway.suite.settings import Settings
from dlm_sway.suite.spec import Suite

if TYPE_CHECKING:
    from dlm_sway.probes.drive import Driven


def suite_provenance(
    suite: Suite, own: Settings, arranged: Arranged, *, driven: Driven | None, facts: Mapping[str, str], env: Env
) -> dict[str, Any]:
    """Return versions, hashes, settings, device and dtype, and the numeric floor."""
    model = own.model(suite)
    return {
        **machine(),
        "host": platform.node(),
        "suite": _suite(suite, own, arranged),
        "model": {
            "kind": model.kind,
            "trust_remote_code": model.trust_remote_code,
            **base_files(model.base, revision=model.revision),
        },
        "adapter_sha256": None if model.adapter is None else adapter_hashes(model.adapter),
        "data_sha256": {name: sha256_of(path) for name, path in suite.data.items()},
        "control_corpus_sha256": corpus_hash(),
        "seed": env.seed,
        "alpha": env.alpha,
        "format": env.format,
        "n_draws": env.n_draws if driven is None else driven.n_draws,
        "fast": own.fast,
        **how_computed(driven),
        **facts,
    }


def _suite(suite: Suite, own: Settings, arranged: Arranged) -> dict[str, Any]:
    return {
        "sha256": suite.sha256,
        "categories": arranged.categories,
        "weights": own.score_weights(suite),
        "score_threshold": suite.defaults.score_threshold,
        "coverage_threshold": suite.defaults.coverage_threshold,
        "only": list(own.only),
        "skip": list(own.skip),
        "limit": own.limit,
        "added": arranged.added,
    }
