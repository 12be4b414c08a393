"""A model in 16 bits computes in fp32 for a moment."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from tests.models import ARCHITECTURES, backend_of

from dlm_sway.backends.hf_widen import widened


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_widened_weights_give_what_an_fp32_copy_gives(arch: str) -> None:
    core = backend_of(arch, "qv", "bf16").model.get_base_model()
    ids = torch.arange(1, 9)[None]
    with torch.inference_mode():
        with widened(core):
            wide = core(input_ids=ids).logits
        expected = deepcopy(core).float()(input_ids=ids).logits
        narrow = core(input_ids=ids).logits
    assert wide.dtype == torch.float32
    torch.testing.assert_close(wide, expected, atol=1e-4, rtol=1e-4)
    assert narrow.dtype == torch.bfloat16


def test_an_error_leaves_the_weights_as_they_were() -> None:
    core = backend_of("llama", "qv", "bf16").model.get_base_model()
    before = {n: p.data for n, p in core.named_parameters()}
    handle = core.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
    try:
        with pytest.raises(ZeroDivisionError), widened(core):
            core(input_ids=torch.arange(1, 9)[None])
    finally:
        handle.remove()
    assert all(p.data_ptr() == before[n].data_ptr() and p.dtype == before[n].dtype for n, p in core.named_parameters())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in core.modules())
