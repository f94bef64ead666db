"""Float32 plans against the torch path over all checkpoints: logits, hidden states, and what is generated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import LENGTH, Pair, assert_close
from random_weights import ids

from loquent.cache import PLAIN, Coding, StoreKind
from loquent.engine.backend import Segment
from loquent.native import why_unavailable
from loquent.torch.runner import TorchBackend

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

PAGE = 4
SPAN = 40


def native_backend(model: Any) -> Any:
    from loquent.native.lent import borrowing_backend

    assert model.survey_weights().obstacle is None
    return borrowing_backend(model.lend_weights())


def read(
    backend: Any, tokens: np.ndarray, sizes: list[int], layers: range, kind: StoreKind = PLAIN
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """All rows of logits and of the layers' outputs, of tokens read in pieces of these sizes on scattered pages."""
    store = backend.open_store(PAGE, kind)
    for group in range(len(store.groups)):
        store.resize(group, 16)
    pages = np.random.default_rng(1).permutation(16)
    logits, hidden, start = [], [], 0
    for size in sizes:
        stop = start + size
        tables = tuple(pages[: group.stop(stop, store.page_size)] for group in store.groups)
        coded = tuple(group.stop(start, store.page_size) for group in store.groups)
        segment = Segment(tokens[start:stop], start, tables, size, SPAN, coded=coded)
        forward = backend.run(store, [segment], layers)
        logits.append(forward.logits.clone())
        hidden.append([forward.hidden[layer].clone() for layer in layers])
        start = stop
    return torch.cat(logits), [torch.cat(states) for states in zip(*hidden)]


@pytest.mark.parametrize(
    "sizes", [[LENGTH], [1] * LENGTH, [3, 1, 9, 2, 9]], ids=["at once", "token by token", "in chunks"]
)
def test_logits_and_hidden_states_are_those_of_torch(pair: Pair, sizes: list[int]) -> None:
    backend, reference = native_backend(pair.ours), TorchBackend(pair.ours)
    tokens, layers = ids(1, LENGTH)[0].numpy(), range(reference.layers + 1)
    logits, hidden = read(backend, tokens, sizes, layers)
    expected_logits, expected_hidden = read(reference, tokens, [LENGTH], layers)
    assert_close(logits, expected_logits)
    for found, expected in zip(hidden, expected_hidden, strict=True):
        assert_close(found, expected, 1e-4 * max(1.0, float(expected.std())))


@pytest.mark.parametrize("bits", [2, 4])
def test_logits_over_coded_pages_are_those_of_torch(pair: Pair, bits: int) -> None:
    kind, tokens = StoreKind(Coding(bits, group=16, residual=3)), ids(1, LENGTH)[0].numpy()
    expected, _ = read(TorchBackend(pair.ours), tokens, [LENGTH], range(0), kind)
    logits, _ = read(native_backend(pair.ours), tokens, [3, 1, LENGTH - 5, 1], range(0), kind)
    first = 16 + 3 - 1  # of the rows that see a page coded
    assert_close(logits[:first], expected[:first])
    # Rounding before gives a group another float16 now and then, or a number another code. Codes themselves change
    # logits by a hundred times as much.
    assert float((logits - expected)[first:].abs().median()) < 1e-4


def test_greedy_ids_are_those_of_torch(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = {"inputs": ids(3, 11, seed=3), "max_new_tokens": 20, "do_sample": False}
    assert pair.ours.describe_backend().startswith("native")
    found = pair.ours.generate(**prompts)
    monkeypatch.setenv("LOQUENT_NATIVE", "0")
    assert pair.ours.describe_backend().startswith("torch")
    assert torch.equal(found, pair.ours.generate(**prompts))
