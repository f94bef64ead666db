"""The backend that the engine drives: any split of any mix of sequences on any pages gives the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paged import resize, tables
from tiny_models import ALL, VOCABULARY, tiny
from torch import nn

from loquent.engine.backend import Segment
from loquent.errors import ArgumentError
from loquent.torch.causal import CausalLM
from loquent.torch.fingerprint import watched_numbers
from loquent.torch.runner import TorchBackend

PAGE = 4
POOL = 64


@cache
def model_of(name: str) -> CausalLM:
    """One model per family, kept for all examples."""
    return tiny(name)


def rows_at_once(name: str, tokens: np.ndarray) -> torch.Tensor:
    """The logits of a sequence read alone by the padded forward."""
    with torch.no_grad():
        return model_of(name)(torch.from_numpy(tokens)[None], use_cache=False).logits[0]


@st.composite
def workloads(draw: st.DrawFn) -> tuple[str, list[np.ndarray], list[list[int]], np.ndarray, list[int]]:
    """A family, sequences, how each is cut, a page order, and in which order the pieces are read."""
    name = draw(st.sampled_from(ALL))
    count = draw(st.integers(1, 4))
    seed = draw(st.integers(0, 2**31))
    generator = np.random.default_rng(seed)
    sequences = [generator.integers(0, VOCABULARY, draw(st.integers(1, 30))) for _ in range(count)]
    cuts = [sorted(draw(st.sets(st.integers(1, len(s)), max_size=5)) | {len(s)}) for s in sequences]
    order = np.arange(POOL) if draw(st.booleans()) else generator.permutation(POOL)
    turns = draw(st.lists(st.integers(0, 2**count - 1), min_size=0, max_size=8))
    return name, sequences, cuts, order, turns


def steps(cuts: list[list[int]], turns: list[int]) -> Iterator[list[int]]:
    """Which sequences read their next piece in each step, until all have been read."""
    left = [len(cut) for cut in cuts]
    for turn in [*turns, *[2 ** len(cuts) - 1] * 6]:
        chosen = [index for index in range(len(cuts)) if turn >> index & 1 and left[index]]
        for index in chosen:
            left[index] -= 1
        if chosen:
            yield chosen


@settings(max_examples=60, deadline=None)
@given(workloads())
def test_any_split_in_any_company_gives_the_same_rows(
    work: tuple[str, list[np.ndarray], list[list[int]], np.ndarray, list[int]],
) -> None:
    name, sequences, cuts, order, turns = work
    backend = TorchBackend(model_of(name))
    store = backend.open_store(PAGE)
    resize(store, POOL)
    places = [order[index * 8 : index * 8 + 8] for index in range(len(sequences))]
    starts, found = [0] * len(sequences), [[] for _ in sequences]
    for chosen in steps(cuts, turns):
        segments = []
        for index in chosen:
            stop = next(cut for cut in cuts[index] if cut > starts[index])
            piece = sequences[index][starts[index] : stop]
            held = tables(store, starts[index], places[index][: -(-stop // PAGE)])
            segments.append(Segment(piece, starts[index], held, len(piece), len(sequences[index])))
            starts[index] = stop
        logits = backend.run(store, segments).logits
        for index, rows in zip(chosen, logits.split([len(segment.tokens) for segment in segments])):
            found[index].append(rows)
    for sequence, rows in zip(sequences, found):
        torch.testing.assert_close(torch.cat(rows), rows_at_once(name, sequence), atol=5e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_evenly_spaced_sequences_read_in_place_are_right(name: str) -> None:
    """Sequences of different lengths in equal extents, listed in any order: one view serves them all."""
    backend = TorchBackend(model_of(name))
    store = backend.open_store(PAGE)
    resize(store, POOL)
    generator = np.random.default_rng(1)
    sequences = [generator.integers(0, VOCABULARY, length) for length in (29, 22, 30, 17, 25)]
    for place in (3, 0, 4, 1, 2):
        tokens = sequences[place][:-1]
        pages = np.arange(place * 8, place * 8 + -(-len(tokens) // PAGE))
        backend.run(store, [Segment(tokens, 0, tables(store, 0, pages), 0, 32)])
    segments = [
        Segment(
            sequences[p][-1:],
            len(sequences[p]) - 1,
            tables(store, len(sequences[p]) - 1, np.arange(p * 8, p * 8 + -(-len(sequences[p]) // PAGE))),
            1,
            32,
        )
        for p in (2, 4, 0, 3, 1)
    ]
    logits = backend.run(store, segments).logits
    expected = torch.stack([rows_at_once(name, sequences[place])[-1] for place in (2, 4, 0, 3, 1)])
    torch.testing.assert_close(logits, expected, atol=5e-5, rtol=1e-3)


def test_only_wanted_rows_and_layers_come_back() -> None:
    model = model_of("gpt2")
    backend = TorchBackend(model)
    store = backend.open_store(PAGE)
    resize(store, 8)
    first, second = np.arange(5), np.arange(7) + 20
    segments = [Segment(first, 0, (np.arange(2),), 2, 5), Segment(second, 0, (np.arange(2, 4),), 1, 7)]
    forward = backend.run(store, segments, hidden_layers=(0, 1, 2))
    assert forward.logits.dtype == torch.float32
    assert forward.logits.shape == (3, VOCABULARY)
    for layer in (0, 1, 2):
        expected = []
        for tokens, rows in ((first, 2), (second, 1)):
            with torch.no_grad():
                states = model(torch.from_numpy(tokens)[None], output_hidden_states=True).hidden_states
            expected.append(states[layer][0, -rows:])
        torch.testing.assert_close(forward.hidden[layer], torch.cat(expected), atol=1e-5, rtol=1e-4)
    nothing = backend.run(store, [Segment(first[:1], 5, (np.arange(2),), 0, 6)])
    assert nothing.logits.shape == (0, VOCABULARY)


def test_forked_pages_continue_apart() -> None:
    backend = TorchBackend(model_of("doge"))
    store = backend.open_store(PAGE)
    resize(store, 8)
    tokens = np.arange(6)
    backend.run(store, [Segment(tokens, 0, (np.array([0, 1]),), 0, 8)])
    store.copy(0, [1], [5])
    resize(store, 12)
    pages = {9: np.array([0, 1]), 30: np.array([0, 5])}
    segments = [Segment(np.array([last]), 6, (table,), 1, 8) for last, table in pages.items()]
    logits = backend.run(store, segments).logits
    for row, last in enumerate((9, 30)):
        torch.testing.assert_close(logits[row], rows_at_once("doge", np.append(tokens, last))[-1], atol=5e-5, rtol=1e-3)


def test_prefix_keys_differ_where_rotary_scaling_does() -> None:
    plain, scaled = model_of("llama"), tiny("llama", rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    assert TorchBackend(plain).prefix_key(10) == TorchBackend(plain).prefix_key(1000)
    assert TorchBackend(scaled).prefix_key(10) == TorchBackend(scaled).prefix_key(128)
    assert TorchBackend(scaled).prefix_key(10) != TorchBackend(scaled).prefix_key(1000)


def test_rotary_spans_are_those_of_the_segments() -> None:
    model = tiny("llama", rope_scaling={"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=16)
    backend = TorchBackend(model)
    store = backend.open_store(PAGE)
    resize(store, POOL)
    long, short = np.arange(30) + 3, np.arange(9)
    segments = [Segment(long, 0, (np.arange(8),), 1, 30), Segment(short, 0, (np.arange(8, 11),), 1, 9)]
    logits = backend.run(store, segments).logits
    with torch.no_grad():
        for row, tokens in enumerate((long, short)):
            expected = model(torch.from_numpy(tokens)[None]).logits[0, -1]
            torch.testing.assert_close(logits[row], expected, atol=5e-5, rtol=1e-3)
    mixed = backend.run(store, [Segment(short, 0, (np.arange(8, 11),), 1, 30)]).logits
    assert not torch.allclose(mixed[0], logits[1], atol=1e-3)


def test_what_the_backend_says_of_its_model() -> None:
    backend = TorchBackend(model_of("gpt2"))
    assert (backend.vocabulary, backend.max_positions, backend.layers, backend.incremental) == (71, 128, 2, True)
    store = backend.open_store(PAGE)
    assert store.groups[0].bytes_per_page == PAGE * 2 * 2 * 32 * 4
    experts = tiny("doge", is_moe=True, num_experts=16, num_experts_per_tok=4, router_layout="flattened")
    assert not TorchBackend(experts).incremental


@pytest.mark.parametrize("name", ["blocks.0.attention_norm.weight", "blocks.1.mlp.down.weight"])
def test_one_number_written_past_torch_is_seen(name: str) -> None:
    model = tiny("llama")
    backend = TorchBackend(model)
    assert not backend.weights_changed()
    model.base_model.get_parameter(name).data.view(-1)[3] = 40.0
    assert backend.weights_changed()
    assert not backend.weights_changed()


@pytest.mark.parametrize("name", ALL)
def test_remembering_goes_on_in_training_mode_where_nothing_drops_out(name: str) -> None:
    model = tiny(name)
    backend = TorchBackend(model)
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    for dropout in dropouts:
        dropout.p = 0.0
    model.train()
    assert not backend.weights_changed()
    for dropout in dropouts:
        dropout.p = 0.1
    assert backend.weights_changed()
    assert backend.weights_changed()  # another draw each time
    model.eval()
    assert backend.weights_changed()  # what was computed until now is wrong
    assert not backend.weights_changed()


class Doubled(nn.Linear):
    """Computes something else with the same weights."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * 2


def test_a_replaced_layer_is_seen_in_either_mode() -> None:
    model = tiny("llama")
    backend = TorchBackend(model)
    plain = model.base_model.blocks[0].mlp.down
    double = Doubled(plain.in_features, plain.out_features, bias=False).eval()
    double.weight = plain.weight
    model.base_model.blocks[0].mlp.down = double
    assert backend.weights_changed()
    model.train()
    assert backend.weights_changed()
    model.base_model.blocks[0].mlp.down = plain
    assert backend.weights_changed()
    assert not backend.weights_changed()


def test_large_weights_are_watched_in_place_however_they_are_laid_out() -> None:
    whole = torch.arange(600.0 * 400).view(600, 400)
    for weight in (whole, whole.T, whole[:, :300], whole[::2].T, whole.view(-1)[::2], whole[:1].expand(600, 400)):
        watched = watched_numbers(weight)
        assert watched.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
        assert 2 < len(watched) <= 16
    small = whole[:4, :3].T
    assert torch.equal(watched_numbers(small), small)


def test_a_model_without_memory_is_refused() -> None:
    model = tiny("llama").to("meta")
    with pytest.raises(ArgumentError, match=r"on the meta device, .* from_pretrained"):
        model.generate(torch.tensor([[1, 2]]), max_new_tokens=2)


def test_a_store_of_another_type_is_refused() -> None:
    model = tiny("llama")
    backend = TorchBackend(model)
    store = backend.open_store(PAGE)
    resize(store, 2)
    model.to(torch.bfloat16)
    with pytest.raises(ArgumentError, match="store"):
        backend.run(store, [Segment(np.arange(3), 0, (np.arange(1),), 1, 3)])
    fresh = backend.open_store(PAGE)
    resize(fresh, 2)
    logits = backend.run(fresh, [Segment(np.arange(3), 0, (np.arange(1),), 1, 3)]).logits
    assert logits.dtype == torch.float32
    with torch.no_grad():
        expected = model(torch.arange(3)[None]).logits[0, -1].float()
    torch.testing.assert_close(logits[0], expected, atol=0.05, rtol=0.05)


def read_once(backend: TorchBackend, fields: list[dict[str, Any]], layers: tuple[int, ...] = ()) -> Any:
    """One step of sequences of 12 tokens, each on pages of its own."""
    store = backend.open_store(PAGE)
    resize(store, 3 * len(fields))
    segments = [
        Segment(
            (np.arange(12) * 5 + 7 * place) % VOCABULARY,
            0,
            tables(store, 0, np.arange(3) + 3 * place),
            span=12,
            **given,
        )
        for place, given in enumerate(fields)
    ]
    return backend.run(store, segments, layers)


@pytest.mark.parametrize("name", ALL)
def test_hidden_states_of_more_rows_than_are_scored(name: str) -> None:
    backend = TorchBackend(model_of(name))
    everything = read_once(backend, [{"rows": 12}] * 4, layers=(0, 1, 2))
    some = read_once(
        backend,
        [{"rows": 12, "scored": 1}, {"rows": 3}, {"rows": 2, "scored": 0}, {"rows": 0}],
        layers=(0, 2),
    )
    rows = [*range(12), 21, 22, 23, 34, 35]
    torch.testing.assert_close(some.logits, everything.logits[[11, 21, 22, 23]], atol=1e-5, rtol=1e-4)
    assert sorted(some.hidden) == [0, 2]
    for layer, states in some.hidden.items():
        torch.testing.assert_close(states, everything.hidden[layer][rows], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(backend.head(some.hidden[2][-2:]), everything.logits[[34, 35]], atol=1e-5, rtol=1e-4)
    nothing = read_once(backend, [{"rows": 0}, {"rows": 2, "scored": 0}], layers=(1,))
    assert (nothing.logits.shape, nothing.hidden[1].shape) == ((0, VOCABULARY), (2, 32))


def test_the_heads_logits_are_float32_in_any_type() -> None:
    model = tiny("llama").to(torch.bfloat16)
    backend, states = TorchBackend(model), torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    logits = backend.head(states)
    assert logits.dtype == torch.float32
    expected = states.bfloat16().float() @ model.head.weight.float().T
    torch.testing.assert_close(logits, expected, atol=0.02, rtol=0.02)
    assert backend.head(states[:0]).shape == (0, VOCABULARY)


@pytest.mark.parametrize("fields", [{"rows": 13}, {"rows": -1}, {"rows": 2, "scored": 3}, {"rows": 2, "scored": -1}])
def test_rows_that_are_not_there_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"12 tokens cannot have {fields['rows']} rows"):
        read_once(TorchBackend(model_of("gpt2")), [{"rows": 1}, fields])


def test_layers_depths_and_states_that_are_not_there_are_refused() -> None:
    backend = TorchBackend(model_of("gpt2"))
    for layer in (-1, 3):
        with pytest.raises(ValueError, match=f"no layer {layer} of 0 to 2"):
            read_once(backend, [{"rows": 1}], layers=(0, layer))
    with pytest.raises(ValueError, match="no layer 2 of 0 to 1"):
        read_once(backend.truncated(1), [{"rows": 1}], layers=(2,))
    for depth in (0, 2, -1):
        with pytest.raises(ValueError, match=f"depth={depth}"):
            backend.truncated(depth)
    with pytest.raises(ValueError, match="depth=1"):
        backend.truncated(1).truncated(1)
    for shape in ((32,), (2, 31), (1, 2, 32)):
        with pytest.raises(ValueError, match=r"not \(rows, 32\)"):
            backend.head(torch.zeros(shape))


def bytes_per_page(backend: TorchBackend) -> int:
    [group] = backend.open_store(PAGE).groups
    return group.bytes_per_page


def test_a_truncated_backend_has_a_smaller_store_and_says_so() -> None:
    backend = TorchBackend(model_of("doge"), "there are hooks on head")
    shallow = backend.truncated(1)
    assert (backend.layers, shallow.layers) == (2, 1)
    assert shallow.describe() == "torch (float32 on cpu; there are hooks on head; the first 1 of 2 blocks)"
    assert 2 * bytes_per_page(shallow) == bytes_per_page(backend)


@pytest.mark.parametrize("asked", [0, 1], ids=["the whole is asked first", "the truncated one is asked first"])
def test_a_truncated_backend_follows_what_is_written_past_torch(asked: int) -> None:
    model = tiny("llama")
    backend = TorchBackend(model)
    views = [backend, backend.truncated(1)]
    before = [read_once(view, [{"rows": 12}]).logits for view in views]  # with packed copies from here on
    assert not any(view.weights_changed() for view in views)
    for parameter in model.parameters():
        parameter.data.mul_(1.3)
    assert views[asked].weights_changed()
    after = [read_once(view, [{"rows": 12}]).logits for view in views]
    assert views[1 - asked].weights_changed()
    assert not any(view.weights_changed() for view in views)
    with torch.no_grad():
        expected = model(((torch.arange(12) * 5) % VOCABULARY)[None], output_hidden_states=True)
        shallow = model.head(model.base_model.norm(expected.hidden_states[1][0]))
    torch.testing.assert_close(after[0], expected.logits[0], atol=5e-5, rtol=1e-3)
    torch.testing.assert_close(after[1], shallow, atol=5e-5, rtol=1e-3)
    assert not any(torch.allclose(rows, old, atol=1e-3) for rows, old in zip(after, before))
