"""Packs: documents that share a row are read, and learn, as if each were alone."""

from __future__ import annotations

import pytest
import torch
from tiny_models import ALL, tiny
from torch import Tensor
from torch.nn import functional as F

from loquent.parts import Attention
from loquent.torch.batch import make_packed_batch
from loquent.torch.causal import CausalLM
from loquent.torch.linear_cross_entropy import linear_cross_entropy
from loquent.torch.score_matrices import attend_by_matrices

# Three packs of 14 tokens: several documents, one, and one of a single token.
LENGTHS = [[5, 9], [14], [12, 1, 1]]


def _read(model: CausalLM, ids: Tensor, lengths: list[list[int]]) -> Tensor:
    """Hidden states (tokens, width) of packs."""
    documents = torch.tensor([[n for n, length in enumerate(pack) for _ in range(length)] for pack in lengths])
    flat = [length for pack in lengths for length in pack]
    batch = make_packed_batch(model.decoder, documents, flat, model.base_model.frequencies, model.dtype)
    return model.stack.read(ids.flatten(), batch)[0]


def _separately(model: CausalLM, ids: Tensor) -> list[Tensor]:
    """Hidden states of each document by itself."""
    cut = [part for row, lengths in zip(ids, LENGTHS) for part in row.split(lengths)]
    return [model.base_model(document[None], use_cache=False).last_hidden_state[0] for document in cut]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("training", [True, False])
def test_a_document_sees_itself_only(name: str, training: bool) -> None:
    model, ids = tiny(name), torch.randint(0, 71, (3, 14), generator=torch.Generator().manual_seed(3))
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(_read(model, ids, LENGTHS), torch.cat(_separately(model, ids)), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_the_loss_and_its_gradients_are_those_of_the_separate_documents(name: str) -> None:
    model, ids = tiny(name), torch.randint(0, 71, (3, 14), generator=torch.Generator().manual_seed(4))
    targets = torch.randint(0, 71, (42,), generator=torch.Generator().manual_seed(5))

    def gradients(loss: Tensor) -> list[Tensor]:
        model.zero_grad()
        loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    together = linear_cross_entropy(_read(model, ids, LENGTHS), model.head.weight, model.head.bias, targets)
    hidden = torch.cat(_separately(model, ids))
    apart = F.cross_entropy(model.head(hidden), targets, reduction="sum")
    assert together.item() == pytest.approx(apart.item(), rel=1e-5)
    for one, other in zip(gradients(together), gradients(apart), strict=True):
        torch.testing.assert_close(one, other, atol=3e-5, rtol=1e-3)


@pytest.mark.parametrize("grouped", [1, 2, 4])
def test_score_matrices_have_the_gradients_of_plain_attention(grouped: int) -> None:
    generator = torch.Generator().manual_seed(6)
    part = Attention(4, 4 // grouped, 8, scale=0.3, qkv_bias=False, output_bias=False)
    shapes = [(2, 5, 4, 8), (2, 5, part.kv_heads, 8), (2, 5, part.kv_heads, 8), (2, 5, part.kv_heads)]
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    mask = torch.zeros(2, 1, 5, 5).masked_fill_(torch.ones(5, 5).triu(1).bool(), float("-inf"))

    def plain(queries: Tensor, keys: Tensor, values: Tensor, added: Tensor) -> Tensor:
        keys, values = (t.repeat_interleave(grouped, 2) for t in (keys, values))
        scores = torch.einsum("bqhd,bkhd->bhqk", queries, keys) * 0.3
        scores = scores + added.repeat_interleave(grouped, 2).transpose(1, 2).unsqueeze(2) + mask
        return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), values)

    wanted = torch.randn(2, 5, 4, 8, generator=generator, dtype=torch.float64)
    results = [plain(*inputs), attend_by_matrices(part, *inputs, mask)]
    torch.testing.assert_close(results[1], results[0], atol=1e-6, rtol=1e-5)
    expected, found = (torch.autograd.grad(result, inputs, wanted) for result in results)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
