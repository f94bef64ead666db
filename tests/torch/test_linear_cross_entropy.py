"""The loss without logits: the value and the gradients of the one with them, however it is cut into chunks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from loquent.torch import linear_cross_entropy as module
from loquent.torch.linear_cross_entropy import linear_cross_entropy


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("biased", [True, False])
def test_it_is_the_cross_entropy_of_the_logits(chunk: int, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CPU_LOGITS", 1)
    monkeypatch.setattr(module, "_ROWS", chunk)
    torch.manual_seed(0)
    hidden, weight = torch.randn(23, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    bias = torch.randn(50, requires_grad=True) if biased else None
    targets = torch.randint(0, 50, (23,))
    inputs = [hidden, weight, *([] if bias is None else [bias])]
    found = linear_cross_entropy(hidden, weight, bias, targets)
    expected = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="sum")
    torch.testing.assert_close(found, expected)
    # A factor behind it reaches the gradients, as the division by the number of tokens does.
    pairs = zip(torch.autograd.grad(found / 3, inputs), torch.autograd.grad(expected / 3, inputs), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_what_is_frozen_gets_no_gradient() -> None:
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.randn(50, 8)
    linear_cross_entropy(hidden, weight, None, torch.tensor([1, 2, 3, 4])).backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0
    assert weight.grad is None
    with torch.no_grad():
        assert linear_cross_entropy(hidden, weight, None, torch.tensor([1, 2, 3, 4])).item() > 0


def test_autocast_chooses_the_type_of_the_products() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(64, 32, requires_grad=True), torch.randn(100, 32, requires_grad=True)
    targets = torch.randint(0, 100, (64,))
    exact = F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum").item()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = linear_cross_entropy(hidden, weight, None, targets)
    assert rounded.dtype == torch.float32
    assert rounded.item() != exact
    assert rounded.item() == pytest.approx(exact, rel=0.01)
    rounded.backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32
