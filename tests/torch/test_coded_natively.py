"""Whole models over the native store's coded pages: the logits of a straightforward KIVI, and their error by bits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from kivi import Kivi
from tiny_models import VOCABULARY, tiny

from loquent.cache import PLAIN, Coding, StoreKind
from loquent.native import why_unavailable
from loquent.torch import attention
from native.reading import Reader

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

LENGTH = 95
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "local": ("gpt_neo", {"window_size": 45}),
    "grouped queries": ("llama", {}),
    "heads of 16": ("llama", {"hidden_size": 64}),
    "heads of 6": ("llama", {"head_dim": 6}),
    "one head": ("gpt_bigcode", {}),
    "partly rotary": ("gpt_neox", {}),
    "dynamic mask": ("doge", {}),
    "keeping few in a window": ("doge", {"keep_window_size": 20, "sliding_window": 50}),
}


def backend_of(model: Any) -> Any:
    from loquent.native.backend import NativeBackend
    from loquent.native.lent import LentWeights

    loan = model.lend_weights()
    return NativeBackend(loan.decoder, LentWeights(loan))


def logits(backend: Any, tokens: np.ndarray, kind: StoreKind) -> np.ndarray:
    return Reader(backend, 1, kind=kind).read({0: tokens})[0].view(np.float32)


@pytest.mark.parametrize("coding", [Coding(4, 16, 1), Coding(2, 16, 20), Coding(8, 32, 5), Coding(1, 48, 3)], ids=str)
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_logits_are_those_of_kivi(name: str, coding: Coding, monkeypatch: pytest.MonkeyPatch) -> None:
    family, fields = MODELS[name]
    model = tiny(family, **fields)
    tokens = np.random.default_rng(len(name)).integers(0, VOCABULARY, LENGTH)
    found = logits(backend_of(model), tokens, StoreKind(coding))
    plain = model(torch.from_numpy(tokens)[None], use_cache=False).logits[0].numpy()
    monkeypatch.setattr(attention, "attend", Kivi(coding).attend)
    expected = model(torch.from_numpy(tokens)[None], use_cache=False).logits[0].numpy()
    assert np.abs(expected - plain).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_errors_fall_with_bits(name: str) -> None:
    family, fields = MODELS[name]
    backend = backend_of(tiny(family, **fields))
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, LENGTH)
    plain = logits(backend, tokens, PLAIN)
    errors = [np.abs(logits(backend, tokens, StoreKind(Coding(bits, 16, 1))) - plain).mean() for bits in (1, 2, 4, 8)]
    assert all(more > 1.5 * less > 0 for more, less in pairwise(errors)), errors
