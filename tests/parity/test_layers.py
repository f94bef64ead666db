"""What backends say of layers, natively and on torch: hidden states, the head on them, and models cut short."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from checkpoints import LENGTH, Pair, assert_close
from random_weights import ids
from torch import Tensor, nn

from loquent.engine.backend import Backend, Forward, Segment
from loquent.native import why_unavailable
from loquent.torch.runner import TorchBackend

PAGE = 4
PIECES = (9, 1, 14)  # of LENGTH tokens


def native(model: Any) -> Backend:
    if why_unavailable() is not None:
        pytest.skip(f"no native core: {why_unavailable()}")
    from loquent.native.lent import borrowing_backend

    return borrowing_backend(model.lend_weights())


@pytest.fixture(params=[native, TorchBackend], ids=["native", "torch"])
def backend(request: pytest.FixtureRequest, pair: Pair) -> Backend:
    made: Backend = request.param(pair.ours)
    return made


def read(backend: Backend, layers: range, scored: int | None) -> list[Forward]:
    """All rows of `ids(1, LENGTH)`, read in pieces on pages back to front; of each piece's rows, `scored` are."""
    tokens, store = ids(1, LENGTH)[0].numpy(), backend.open_store(PAGE)
    for group in range(len(store.groups)):
        store.resize(group, LENGTH // PAGE)
    forwards, start = [], 0
    for size in PIECES:
        stop = start + size
        pages = torch.arange(LENGTH // PAGE).flip(0)[: -(-stop // PAGE)].numpy()
        segment = Segment(tokens[start:stop], start, (pages,) * len(store.groups), size, LENGTH, scored=scored)
        forward = backend.run(store, [segment], layers)
        hidden = {layer: states.clone() for layer, states in forward.hidden.items()}
        forwards.append(Forward(forward.logits.clone(), hidden))
        start = stop
    return forwards


def every_layer(forwards: list[Forward]) -> list[Tensor]:
    """Of each layer from 0 on, the states of all tokens."""
    return [torch.cat([forward.hidden[layer] for forward in forwards]) for layer in sorted(forwards[0].hidden)]


def scale(states: Tensor) -> float:
    """How far apart numbers may be that should be equal."""
    return 1e-4 * max(1.0, float(states.std()))


def cut(model: Any, depth: int) -> Any:
    """A model of transformers that has only its first blocks."""
    shallow = copy.deepcopy(model)
    [name] = [
        name
        for name, child in shallow.base_model.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == model.config.num_hidden_layers
    ]
    setattr(shallow.base_model, name, getattr(shallow.base_model, name)[:depth])
    shallow.config.num_hidden_layers = depth
    return shallow


def test_hidden_states_are_those_of_transformers_however_few_rows_are_scored(pair: Pair, backend: Backend) -> None:
    layers = range(backend.layers + 1)
    forwards = read(backend, layers, scored=1)
    for found, expected in zip(every_layer(forwards), pair.reference.hidden_states, strict=True):
        assert_close(found, expected[0], scale(expected))
    last = torch.tensor(PIECES).cumsum(0) - 1
    assert_close(torch.cat([forward.logits for forward in forwards]), pair.reference.logits[0, last])


@torch.no_grad()
def test_the_head_on_a_layers_states_is_that_of_transformers(pair: Pair, backend: Backend) -> None:
    """DoLa's lens: transformers calls the head on `hidden_states[layer]` as they are."""
    hidden = pair.reference.hidden_states
    for states in hidden:
        expected = pair.theirs.get_output_embeddings()(states[0])
        assert_close(backend.head(states[0]), expected, scale(expected))
    assert_close(backend.head(hidden[-1][0]), pair.reference.logits[0])
    assert backend.tied == pair.theirs.config.tie_word_embeddings


@torch.no_grad()
def test_truncated_models_are_those_with_fewer_layers(pair: Pair, backend: Backend) -> None:
    full = read(backend, range(backend.layers + 1), scored=None)
    for depth in range(1, backend.layers):
        shallow, theirs = backend.truncated(depth), cut(pair.theirs, depth)
        theirs(ids(1, 1))  # what dynamic rotary scaling remembers of longer inputs goes
        reference = theirs(ids(1, LENGTH), output_hidden_states=True, use_cache=False)
        forwards = read(shallow, range(depth + 1), scored=None)
        assert_close(torch.cat([forward.logits for forward in forwards]), reference.logits[0])
        for found, expected in zip(every_layer(forwards), reference.hidden_states, strict=True):
            assert_close(found, expected[0], scale(expected))
        for found, expected in zip(every_layer(forwards)[:-1], every_layer(full)):
            assert torch.equal(found, expected)
        assert shallow.layers == depth
        assert f"the first {depth} of {backend.layers} blocks" in shallow.describe()
    assert "blocks" not in backend.describe()
