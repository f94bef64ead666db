"""Coded stores: models read what a straightforward KIVI reads, however their text is cut and whoever is beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kivi import Kivi
from numpy.typing import NDArray
from tiny_models import VOCABULARY, tiny

from loquent.cache import Coding, StoreKind
from loquent.engine.backend import Segment
from loquent.errors import ArgumentError
from loquent.torch import attend, attention, coded_pages, keys, planning
from loquent.torch.batch import Batch, make_batch
from loquent.torch.causal import CausalLM
from loquent.torch.groups import Row
from loquent.torch.positions import RotaryFrequencies
from loquent.torch.runner import TorchBackend
from loquent.torch.store import PageStore

LENGTH = 100
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "local": ("gpt_neo", {}),
    "wide local": ("gpt_neo", {"window_size": 45}),
    "grouped queries": ("llama", {}),
    "many heads of few channels": ("llama", {"head_dim": 6}),
    "one head": ("gpt_bigcode", {}),
    "partly rotary": ("gpt_neox", {}),
    "dynamic mask": ("doge", {}),
    "keeping few": ("doge", {"keep_window_size": 20}),
    "keeping few in a window": ("doge", {"keep_window_size": 20, "sliding_window": 50}),
}
PARTED = ["wide local", "grouped queries", "keeping few in a window"]


@pytest.fixture(autouse=True, scope="module")
def doubles() -> Iterator[None]:
    """Models in float64, so that how a text is cut does not show in float32, where it would change a code now and then.

    Cosines of an angle may differ in their last bit by how many are computed at once.
    """
    rounded = attend._rounded

    def turn(self: RotaryFrequencies, rotary: Any, key: Any, span: int, positions: torch.Tensor) -> Any:
        frequency, factor = self._frequencies(rotary, key, span, positions.device)
        angles = positions.unsqueeze(1).double() * frequency.double()
        cosines, sines = angles.cos() * factor, angles.sin() * factor
        return torch.cat([cosines, cosines], 1).unsqueeze(1), torch.cat([-sines, sines], 1).unsqueeze(1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attend, "_rounded", lambda values: rounded(values.float()))
        patch.setattr(RotaryFrequencies, "_turn", turn)
        yield


def model_of(name: str) -> CausalLM:
    family, fields = MODELS[name]
    return tiny(family, **fields).double()


def text(length: int = LENGTH, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, length)


def reference(model: CausalLM, tokens: NDArray[np.int64], coding: Coding) -> torch.Tensor:
    """The logits of all tokens, read at once."""
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(attention, "attend", Kivi(coding).attend)
        return model(torch.from_numpy(tokens)[None], use_cache=False).logits[0].float()


class Keeper:
    """Sequences in a store, each with its own scattered pages, and none that nobody looks at."""

    def __init__(self, store: PageStore, sequences: int, length: int = LENGTH, seed: int = 0) -> None:
        self.store, size = store, store.page_size
        each = -(-length // size)
        orders = [
            np.random.default_rng(seed + index).permutation(each * sequences) for index in range(len(store.groups))
        ]
        for index in range(len(store.groups)):
            store.resize(index, each * sequences)
        self.pages = [[order[s * each : (s + 1) * each] for order in orders] for s in range(sequences)]
        self.lengths = [0] * sequences

    def segment(self, sequence: int, tokens: NDArray[np.int64]) -> Segment:
        start, size, groups = self.lengths[sequence], self.store.page_size, self.store.groups
        stop = self.lengths[sequence] = start + len(tokens)
        known = tuple(group.stop(start, size) for group in groups)
        tables = []
        for group, pages in zip(groups, self.pages[sequence]):
            table = pages[: group.stop(stop, size)].copy()
            table[: group.first(start, size)] = -1
            tables.append(table)
        return Segment(tokens, start, tuple(tables), len(tokens), LENGTH, coded=known)


def read(backend: TorchBackend, coding: Coding | None, tokens: NDArray[np.int64], sizes: Sequence[int]) -> torch.Tensor:
    """The logits of all tokens, read in pieces."""
    keeper = Keeper(backend.open_store(16, StoreKind(coding)), 1)
    pieces = np.split(tokens, np.cumsum(sizes)[:-1])
    return torch.cat([backend.run(keeper.store, [keeper.segment(0, piece)]).logits for piece in pieces])


def cuts(length: int, way: str) -> list[int]:
    return {"at once": [length], "one by one": [1] * length, "in chunks": [1, 30, 17, 1, 1, length - 50]}[way]


@pytest.mark.parametrize("residual", [1, 7, 32])
@pytest.mark.parametrize("name", MODELS)
def test_models_read_what_the_reference_reads(name: str, residual: int) -> None:
    model, coding = model_of(name), Coding(2, group=16, residual=residual)
    expected = reference(model, text(), coding)
    plain = read(TorchBackend(model), None, text(), [LENGTH])
    if name != "local" or residual < 5:
        assert (plain - expected).abs().max() > 0.05
    for way in ("at once", "one by one", "in chunks"):
        logits = read(TorchBackend(model), coding, text(), cuts(LENGTH, way))
        torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-5)


@st.composite
def workloads(draw: st.DrawFn) -> tuple[str, Coding, list[NDArray[np.int64]], list[list[int]]]:
    """A model, how it codes, sequences, and in which pieces each is read, piece after piece beside the others'."""
    coding = Coding(draw(st.sampled_from([1, 2, 4, 8])), 16, draw(st.integers(1, 40)))
    lengths = draw(st.lists(st.integers(1, LENGTH), min_size=1, max_size=4))
    pieces = []
    for length in lengths:
        stops = sorted(draw(st.sets(st.integers(1, length), max_size=6)) | {length})
        pieces.append([stop - start for start, stop in zip([0, *stops], stops)])
    return draw(st.sampled_from(PARTED)), coding, [text(n, seed) for seed, n in enumerate(lengths)], pieces


@settings(max_examples=30, deadline=None)
@given(workloads())
def test_any_split_in_any_company_gives_the_same_rows(
    work: tuple[str, Coding, list[NDArray[np.int64]], list[list[int]]],
) -> None:
    name, coding, texts, pieces = work
    backend = TorchBackend(model_of(name))
    keeper = Keeper(backend.open_store(16, StoreKind(coding)), len(texts))
    found: list[list[torch.Tensor]] = [[] for _ in texts]
    for step in range(max(map(len, pieces))):
        reading = [index for index in range(len(texts)) if step < len(pieces[index])]
        starts = [keeper.lengths[index] for index in reading]
        segments = [
            keeper.segment(index, texts[index][start : start + pieces[index][step]])
            for index, start in zip(reading, starts)
        ]
        logits = backend.run(keeper.store, segments).logits
        for index, rows in zip(reading, torch.split(logits, [len(segment.tokens) for segment in segments])):
            found[index].append(rows)
    for tokens, rows in zip(texts, found):
        expected = read(backend, coding, tokens, [len(tokens)])
        torch.testing.assert_close(torch.cat(rows), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PARTED)
def test_blocks_of_queries_and_of_sequences_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, coding = TorchBackend(model_of(name)), Coding(2, 16, 9)

    def together() -> torch.Tensor:
        keeper = Keeper(backend.open_store(16, StoreKind(coding)), 3)
        rows = []
        for start, stop in ((0, 60), (60, 80)):
            segments = [keeper.segment(index, text(80, index)[start:stop]) for index in range(3)]
            rows.append(backend.run(keeper.store, segments).logits)
        return torch.cat(rows)

    whole = together()
    monkeypatch.setattr(keys, "_JOINED_ROWS", 7)
    torch.testing.assert_close(together(), whole, atol=2e-5, rtol=1e-5)
    monkeypatch.setattr(attend, "_SCORE_ELEMENTS", 1000)
    monkeypatch.setattr(planning, "_DECODED_ELEMENTS", 16 * 32 * 4)
    monkeypatch.setattr(coded_pages, "_NUMBERS_AT_ONCE", 600)
    torch.testing.assert_close(together(), whole, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "wide local", "keeping few"])
def test_errors_fall_with_bits(name: str) -> None:
    model = model_of(name)
    plain = read(TorchBackend(model), None, text(), [LENGTH])
    errors = [
        float((read(TorchBackend(model), Coding(bits, 16, 16), text(), [LENGTH]) - plain).pow(2).mean())
        for bits in (1, 2, 4, 8)
    ]
    assert errors[0] > errors[1] > errors[2] > errors[3] > 0
    assert errors[3] < 1e-3 * errors[1]


@pytest.mark.parametrize("name", PARTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_of_few_bits_themselves_are_near(name: str, dtype: torch.dtype) -> None:
    coding = Coding(4, 16, 16)
    expected = reference(model_of(name), text(), coding)
    logits = read(TorchBackend(model_of(name).to(dtype)), coding, text(), cuts(LENGTH, "in chunks"))
    assert (logits - expected).pow(2).mean().sqrt() < (0.01 if dtype is torch.float32 else 0.2)


def test_a_residual_beyond_the_text_is_the_plain_store() -> None:
    backend = TorchBackend(model_of("wide local"))
    coded = read(backend, Coding(1, 16, LENGTH), text(), cuts(LENGTH, "in chunks"))
    plain = read(backend, None, text(), cuts(LENGTH, "in chunks"))
    torch.testing.assert_close(coded, plain, atol=2e-5, rtol=1e-5)


def test_forked_pages_continue_apart_and_come_back_from_bytes() -> None:
    backend, coding = TorchBackend(model_of("grouped queries")), Coding(2, 16, 20)
    keeper = Keeper(backend.open_store(16, StoreKind(coding)), 2)
    first = np.append(text(70), text(30, 7))
    backend.run(keeper.store, [keeper.segment(0, first[:70])])
    held = [len(table) for table in keeper.segment(1, first[:70]).tables]
    for group, count in enumerate(held):
        pages = [list(keeper.pages[sequence][group][:count]) for sequence in range(2)]
        keeper.store.copy(group, *pages)
        content = keeper.store.read_pages(group, pages[1])
        assert content.shape == (count, keeper.store.groups[group].bytes_per_page)
        keeper.store.clear(group, pages[0])
        assert not np.array_equal(keeper.store.read_pages(group, pages[0]), content)
        keeper.store.write_pages(group, pages[0], content)
        keeper.store.resize(group, keeper.store.pages(group) + 3)
    second = np.append(first[:70], text(30, 8))
    logits = backend.run(keeper.store, [keeper.segment(0, first[70:]), keeper.segment(1, second[70:])]).logits
    for tokens, rows in zip((first, second), torch.split(logits, 30)):
        expected = read(backend, coding, tokens, [LENGTH])[70:]
        torch.testing.assert_close(rows, expected, atol=2e-5, rtol=1e-5)


def last_tokens(model: CausalLM, coding: Coding, *, with_weights: bool) -> tuple[torch.Tensor, Batch]:
    """The last hidden states of two sequences' new tokens, whose beginnings a coded store has read, and their batch."""
    backend, base = TorchBackend(model), model.base_model
    keeper = Keeper(backend.open_store(16, StoreKind(coding)), 2)
    for index in range(2):
        backend.run(keeper.store, [keeper.segment(index, text(60, index)[: 50 + index])])
    segments = [keeper.segment(index, text(60, index)[50 + index :]) for index in range(2)]
    rows = [Row(len(s.tokens), s.start, s.span, s.tables, s.coded) for s in segments]
    ids = torch.from_numpy(np.concatenate([s.tokens for s in segments]))
    where = (base.frequencies, model.device, model.dtype)
    batch = make_batch(base.decoder, rows, *where, store=keeper.store, with_weights=with_weights)
    return base.read(ids, batch)[0], batch


@pytest.mark.parametrize("name", ["wide local", "keeping few in a window"])
def test_gradients_flow_to_new_tokens(name: str) -> None:
    model, coding = model_of(name), Coding(2, 16, 9)
    with torch.no_grad():
        expected, _ = last_tokens(model, coding, with_weights=False)
    hidden, _ = last_tokens(model, coding, with_weights=False)
    torch.testing.assert_close(hidden, expected, atol=1e-9, rtol=1e-7)
    hidden.sum().backward()
    assert all(float(block.attention.qkv.weight.grad.abs().sum()) > 0 for block in model.base_model.blocks)


@torch.no_grad()
@pytest.mark.parametrize("name", ["wide local", "keeping few in a window"])
def test_attention_weights_come_back_by_position(name: str) -> None:
    model, coding = model_of(name), Coding(2, 16, 9)
    hidden, batch = last_tokens(model, coding, with_weights=True)
    torch.testing.assert_close(hidden, last_tokens(model, coding, with_weights=False)[0], atol=1e-5, rtol=1e-5)
    for layer, block in enumerate(model.base_model.decoder.blocks):
        part = block.attention
        for group, weights in zip(batch.plans[layer].groups, batch.weights[layer]):
            firsts, queries = group.keys(part.window).first, group.queries
            for place, new in np.ndindex(len(firsts), queries.length):
                row, position = weights[place, :, new], queries.pasts[place] + new
                positions = torch.arange(row.shape[-1]) + firsts[place]
                seen = (positions <= position) & (positions > position - (part.window or LENGTH))
                torch.testing.assert_close(row.sum(-1), torch.ones(len(row), dtype=row.dtype))
                assert not row[:, ~seen].any()
                count = min(int(seen.sum()), part.dynamic_mask.keep if part.dynamic_mask else LENGTH)
                assert ((row > 0).sum(-1) == count).all()


@pytest.mark.parametrize(
    ("coding", "named"),
    [(Coding(3), "bits=3"), (Coding(4, 40), "group=40"), (Coding(4, 0), "group=0"), (Coding(4, 16, 0), "residual=0")],
    ids=str,
)
def test_codings_that_there_are_none_of_are_refused(coding: Coding, named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        TorchBackend(model_of("gpt2")).open_store(16, StoreKind(coding))


def test_a_page_whose_numbers_are_gone_is_not_coded() -> None:
    backend = TorchBackend(model_of("gpt2"))
    keeper = Keeper(backend.open_store(16, StoreKind(Coding(2, 16, 1))), 1)
    backend.run(keeper.store, [keeper.segment(0, text(16))])
    segment = keeper.segment(0, text(1))
    segment.tables[0][0] = -1
    with pytest.raises(ValueError, match="given back"):
        backend.run(keeper.store, [segment])
