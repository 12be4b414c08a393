"""An adapter trained with a chat template that its base lacks: the merge that ships the template is the right one."""

from __future__ import annotations

from pathlib import Path

from tests.chain.made import READS, answers, broken, make
from tests.models import CHAT

from dlm_sway.core.result import Verdict


def test_a_merge_is_held_against_the_template_beside_the_adapter(tmp_path: Path) -> None:
    made = make(tmp_path, template=None)
    READS(template=CHAT).save_pretrained(made.adapter)
    merged = made.merged()
    result = made.walk(merged=merged, data=answers(tmp_path), every=True)
    assert not [f for link in result.links for f in link.findings if f.verdict is Verdict.FAIL]
    READS(template=CHAT.replace("[assistant]", "[bot]")).save_pretrained(merged)
    link, found = broken(made.walk(merged=merged))
    assert (link.name, found.step, found.cause) == ("merged", "tokens", "another chat template")
