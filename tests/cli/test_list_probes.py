from __future__ import annotations

from collections.abc import Callable

import pytest

from dlm_sway.cli.app import run
from dlm_sway.cli.list_probes import described

Capture = pytest.CaptureFixture[str]


class Second:
    """Measures.

    Asks: whether it [bold]runs[/bold],
        over two lines.
    Null: rotation (N1)
    Passes when: it does.

    Not a field: this.
    """

    category = "attribution"


class First:
    """Has no fields."""

    category = "adherence"


def test_the_fields_of_a_probe_come_from_its_docstring() -> None:
    assert described(Second) == {
        "Asks": "whether it [bold]runs[/bold], over two lines.",
        "Null": "rotation (N1)",
        "Passes when": "it does.",
    }
    assert described(First) == {}


def test_probes_are_listed_by_category_with_their_fields(stand_in: Callable[..., None], capsys: Capture) -> None:
    stand_in("dlm_sway.probes.registry", probes=lambda: {"a_second": Second, "z_first": First})
    assert run(["list-probes"]) == 0
    assert capsys.readouterr().out == (
        "z_first  adherence\n"
        "\n"
        "a_second  attribution\n"
        "  Asks         whether it [bold]runs[/bold], over two lines.\n"
        "  Null         rotation (N1)\n"
        "  Passes when  it does.\n"
    )
