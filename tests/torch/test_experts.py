"""Doge's mixture of experts: product keys find the best of all, in chunks or not, token by token or not."""

from __future__ import annotations

import pytest
import torch
from tiny_models import distinct_ids, tiny

from loquent.torch import experts

_MOE = {"is_moe": True, "num_experts": 36, "num_experts_per_tok": 5, "hidden_size": 16, "num_attention_heads": 2}


@pytest.mark.parametrize("normalized", [False, True])
def test_experts_are_the_best_of_all(normalized: bool) -> None:
    layer = tiny("doge", **_MOE, norm_topk_prob=normalized).model.blocks[0].mlp
    x = torch.randn(7, 16)
    chosen, weights = layer.route(x, [7])
    logits = layer.router(x).view(7, 2, 6)
    scores = (logits[:, 0, :, None] + logits[:, 1, None, :]).flatten(1)  # (tokens, experts)
    best = scores.topk(5)
    assert [set(row) for row in chosen.tolist()] == [set(row) for row in best.indices.tolist()]
    torch.testing.assert_close(weights, best.values.softmax(-1))
    expected = []
    for token, ids, share in zip(x, chosen, weights):
        inner = torch.nn.functional.silu(layer.expert_down.weight[ids] @ token) * share
        expected.append(inner @ layer.expert_up.weight[ids])
    gate, up = layer.gate_up(x).chunk(2, -1)
    shared = layer.down(torch.nn.functional.silu(gate) * up)
    torch.testing.assert_close(layer(x), shared + torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_chunks_of_tokens_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = tiny("doge", **_MOE).model.blocks[0].mlp
    x = torch.randn(11, 16)
    whole = layer(x)
    monkeypatch.setattr(experts, "_CHUNK_ELEMENTS", 5 * 16 * 3)
    torch.testing.assert_close(layer(x), whole)


def test_causal_routing_reads_token_by_token_and_flattened_does_not() -> None:
    ids = distinct_ids(1, 6)
    for layout, same in (("per_token", True), ("flattened", False)):
        model = tiny("doge", **_MOE, router_layout=layout)
        with torch.no_grad():
            whole, part = model(ids).logits[:, :4], model(ids[:, :4]).logits
        assert torch.allclose(whole, part, atol=1e-5) == same


def test_flattened_routing_is_of_each_row_alone() -> None:
    model = tiny("doge", **_MOE, router_layout="flattened")
    ids = distinct_ids(3, 6)
    with torch.no_grad():
        together = model(ids).logits
        alone = torch.cat([model(row[None]).logits for row in ids])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
