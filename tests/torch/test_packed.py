"""Packed weights: equal products, never stale ones, and plain layers wherever something else is wanted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny
from torch import nn

from loquent.engine.backend import Segment
from loquent.torch import packed
from loquent.torch.causal import CausalLM
from loquent.torch.packed import PackedLinears, can_pack
from loquent.torch.runner import TorchBackend

if not can_pack(torch.float32):
    pytest.skip("this build of torch has no packed products", allow_module_level=True)


@pytest.fixture(autouse=True)
def _pack_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_SMALL", 0)


def logits_of(model: CausalLM) -> torch.Tensor:
    """One row of logits by the backend, on a store of its own."""
    backend = TorchBackend(model)
    store = backend.open_store(4)
    store.resize(0, 2)
    logits: torch.Tensor = backend.run(store, [Segment(np.arange(7), 0, (np.arange(2),), 1, 7)]).logits
    return logits


def plain_logits_of(model: CausalLM) -> torch.Tensor:
    """The same row by the padded forward."""
    with torch.no_grad():
        row: torch.Tensor = model(torch.arange(7)[None]).logits[0, -1:]
    return row


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 17, 300])
@pytest.mark.parametrize("bias", [False, True])
def test_products_are_equal(rows: int, bias: bool, dtype: torch.dtype) -> None:
    if not can_pack(dtype):
        pytest.skip(f"this machine multiplies no packed {dtype}")
    layer = nn.Linear(37, 53, bias).to(dtype)
    x = torch.randn(rows, 37).to(dtype)
    with torch.inference_mode():
        found, expected = PackedLinears()(layer, x), layer(x)
    torch.testing.assert_close(found, expected, atol=1e-5 if dtype == torch.float32 else 0.02, rtol=0.02)


def test_memory_that_is_used_again_is_not_taken_for_the_old_weights() -> None:
    """Assigning `.data` counts as no change of version, and an allocator gives addresses out again."""
    layer, linears, x = nn.Linear(64, 64), PackedLinears(), torch.randn(4, 64)
    addresses = set()

    def check() -> None:
        with torch.inference_mode():
            torch.testing.assert_close(linears(layer, x), layer(x), atol=1e-4, rtol=0)

    for _ in range(30):
        check()
        addresses.add(layer.weight.data_ptr())
        for _ in range(2):
            layer.weight.data = torch.randn(64, 64)
        check()
        layer.to(torch.bfloat16).float()
    assert len(addresses) < 30, "no address was used again: this test shows nothing"


def test_a_converted_models_copies_are_freed() -> None:
    model = tiny("llama")
    logits_of(model)
    copies = TorchBackend(model)._packed
    assert copies.bytes > 0
    model.to(torch.float64)
    TorchBackend(model)
    assert copies.bytes == 0


def test_weights_that_changed_are_packed_again() -> None:
    model = tiny("llama")
    before = logits_of(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    ids = torch.arange(12)[None]
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    after = logits_of(model)
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, plain_logits_of(model), atol=2e-5, rtol=1e-4)
    model.load_state_dict(tiny("llama").state_dict())
    torch.testing.assert_close(logits_of(model), before)
    model.head.weight = nn.Parameter(model.head.weight.detach() * 2)
    torch.testing.assert_close(logits_of(model), before * 2)
    with torch.no_grad():
        model.model.blocks[0].attention.qkv.weight.data.zero_()  # .data hides this from the version, not from repacking
        model.model.blocks[0].attention.qkv.weight.add_(0)
    torch.testing.assert_close(logits_of(model), plain_logits_of(model), atol=2e-5, rtol=1e-4)


def test_hooks_and_replaced_layers_run() -> None:
    model = tiny("llama")
    before = logits_of(model)
    seen = []
    handle = model.model.blocks[0].mlp.down.register_forward_hook(
        lambda module, args, output: seen.append(output) or output * 0
    )
    silenced = logits_of(model)
    assert len(seen) == 1
    assert not torch.allclose(silenced, before)
    handle.remove()
    torch.testing.assert_close(logits_of(model), before)

    class Doubled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * 2

    model.model.blocks[1].mlp.down = Doubled(model.model.blocks[1].mlp.down)
    torch.testing.assert_close(logits_of(model), plain_logits_of(model), atol=2e-5, rtol=1e-4)


def test_the_switch_and_training_use_the_layers_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: PackedLinears, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("packed")

    monkeypatch.setattr(PackedLinears, "__call__", refuse)
    model = tiny("llama")
    with pytest.raises(AssertionError, match="packed"):
        logits_of(model)
    model.pack_weights = False
    torch.testing.assert_close(logits_of(model), plain_logits_of(model), atol=2e-5, rtol=1e-4)
    del model.pack_weights
    model.train()
    torch.testing.assert_close(logits_of(model), plain_logits_of(model), atol=2e-5, rtol=1e-4)


def test_the_cost_is_stated() -> None:
    linears, layer = PackedLinears(), nn.Linear(64, 32)
    with torch.inference_mode():
        linears(layer, torch.randn(4, 64))
    assert linears.bytes == 64 * 32 * 4
    linears.clear()
    assert linears.bytes == 0
