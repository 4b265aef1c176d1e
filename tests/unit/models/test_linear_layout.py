"""Weights lie in another order, and are what they were."""

import torch

from streamgen.models.linear_layout import lay_out_for_few_rows
from tests.small_engine import small_dit


def test_another_layout_changes_neither_weights_nor_what_they_compute() -> None:
    dit, before = small_dit(), small_dit()
    assert lay_out_for_few_rows(dit) == sum(
        isinstance(one, torch.nn.Linear) for one in before.modules()
    )
    state, weight = dit.state_dict(), dit.get_parameter("blocks.0.ffn.0.weight")
    assert weight.t().is_contiguous()
    for name, value in before.state_dict().items():
        assert torch.equal(state[name], value)
    x = torch.randn(5, weight.shape[1])
    torch.testing.assert_close(
        x @ weight.t(), x @ before.get_parameter("blocks.0.ffn.0.weight").t()
    )


def test_a_merge_into_the_weights_keeps_the_layout() -> None:
    """As LoRAs are merged: in place."""
    dit = small_dit()
    lay_out_for_few_rows(dit)
    weight = dit.get_parameter("blocks.0.self_attn.q.weight")
    with torch.no_grad():
        weight.copy_(torch.ones_like(weight))
    assert weight.t().is_contiguous()
