"""Coded pages of the native store: their bytes, and rows that are the same bits however their text is read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.cache import Coding, StoreKind
from loquent.engine.backend import Segment
from loquent.native import core, why_unavailable
from native.reading import Reader
from properties.models import EVERY, VOCABULARY, tiny

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

BITS = (1, 2, 4, 8)
LENGTH = 90


@cache
def backend_of(name: str, key_values: str = "float32") -> Any:
    from loquent.native.backend import NativeBackend
    from loquent.native.lent import LentWeights

    loan = tiny(name).lend_weights()
    return NativeBackend(loan.decoder, LentWeights(loan), key_values=key_values)


def kind(bits: int, group: int = 16, residual: int = 3) -> StoreKind:
    return StoreKind(Coding(bits=bits, group=group, residual=residual))


def text(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, length)


# --- what pages hold -------------------------------------------------------------------------------------------------


def half_next_to(number: np.float32, above: bool) -> np.float16:
    """The float16 number nearest to a number that is not below (above) it, of those that are finite."""
    number = np.clip(number, np.float32(-65504), np.float32(65504))
    half = np.float16(number)
    if (half < number) if above else (half > number):
        half = np.nextafter(half, np.float16(np.inf if above else -np.inf))
    return half + np.float16(0)  # no negative zero


def scale_and_codes(numbers: np.ndarray, bits: int) -> tuple[np.float16, np.float16, np.ndarray]:
    """m, s and the codes of one group of float32 numbers."""
    most = 2**bits - 1
    if not np.isfinite(numbers).all():
        return np.float16(0), np.float16(np.nan), np.zeros(len(numbers), np.uint8)
    low, high = numbers.min(), numbers.max()
    # With 1 and 2 bits codes stand for the centres of equal cells, with more for the ends of the range too.
    with np.errstate(over="ignore"):
        first = low + (high - low) / np.float32(2 ** (bits + 1)) if bits < 4 else low
    m = half_next_to(first, above=False)
    s = half_next_to((high - np.float32(m)) / np.float32(most + 0.5 if bits < 4 else most), above=True)
    if s == 0:
        return m, s, np.zeros(len(numbers), np.uint8)
    return m, s, np.clip(np.rint((numbers - np.float32(m)) / np.float32(s)), 0, most).astype(np.uint8)


def packed(codes: np.ndarray, bits: int) -> bytes:
    """Rows of codes (..., multiple of 16) as src/native/src/store.hpp lays them out."""
    words = codes.reshape(-1, 16).astype(np.uint64)
    if bits == 4:
        words = words.reshape(-1, 8, 2).swapaxes(1, 2).reshape(-1, 16)
    if bits == 8:
        return words.astype(np.uint8).tobytes()
    whole = (words << (np.arange(16, dtype=np.uint64) * np.uint64(bits))).sum(1, dtype=np.uint64)
    return b"".join(int(word).to_bytes(2 * bits, "little") for word in whole)


def whole_vectors(count: int) -> int:
    return -(-count // 16) * 16


def exact_planes(page: np.ndarray, layers: Any, size: int, dtype: str) -> list[list[tuple[np.ndarray, ...]]]:
    """Of each layer and head keys (head_dim, slots), values (slots, head_dim) and mask values of an exact page."""

    def take(count: int) -> np.ndarray:
        nonlocal page
        width = 4 if dtype == "float32" else 2
        numbers, page = page[: count * width], page[-(-count * width // 64) * 64 :]
        if dtype == "float32":
            return numbers.view(np.float32)
        return (numbers.view(np.uint16).astype(np.uint32) << 16).view(np.float32)

    planes = []
    for shape in layers:
        heads = []
        for _ in range(shape.kv_heads):
            keys = take(shape.head_dim * size).reshape(shape.head_dim, size)
            values = take(size * whole_vectors(shape.head_dim)).reshape(size, -1)[:, : shape.head_dim]
            mask = page[: size * 4 * shape.masked]
            page = page[len(mask) :]
            heads.append((keys, values, mask))
        planes.append(heads)
    assert not len(page)
    return planes


def coded_layer(heads: list[tuple[np.ndarray, ...]], bits: int, size: int) -> bytes:
    """The bytes that coding gives for one layer of a page."""
    values = np.concatenate([head[1] for head in heads], 1)  # (slots, kv_heads * head_dim)
    width, head_dim = values.shape[1], heads[0][1].shape[1]
    groups = range(0, width, size)
    coded = [[scale_and_codes(token[at : at + size], bits) for at in groups] for token in values]
    codes = np.zeros((size, whole_vectors(width)), np.uint8)
    codes[:, :width] = [np.concatenate([group[2] for group in token]) for token in coded]
    scales = np.array([[[group[part] for group in token] for token in coded] for part in (0, 1)])  # (2, slots, groups)
    found = b""
    for index, (keys, _, mask) in enumerate(heads):
        channels = [scale_and_codes(channel, bits) for channel in keys]
        found += packed(np.stack([channel[2] for channel in channels]), bits)
        if head_dim % 16 == 0:
            found += packed(codes[:, index * head_dim : (index + 1) * head_dim], bits)
        elif index == 0:
            found += packed(codes, bits)
        found += np.array([[channel[part] for channel in channels] for part in (0, 1)], np.float16).tobytes()
        if index == 0:
            found += scales.transpose(2, 0, 1).astype(np.float16).tobytes()
        found += mask.tobytes()
    return found


def numbers_to_code(layers: Any, size: int, seed: int) -> list[np.ndarray]:
    """Pages of numbers of all sorts: usual, equal, tiny, huge, and some that are none."""
    random = np.random.default_rng(seed)
    count = sum(2 * shape.kv_heads * whole_vectors(shape.head_dim) * size for shape in layers)
    usual = random.standard_normal((6, count)).astype(np.float32) * np.exp(random.standard_normal(count) * 2)
    usual[1] = usual[1, 0]
    usual[2] *= np.float32(1e-9)
    usual[3] *= np.float32(1e6)
    usual[4] = np.round(usual[4])
    usual[5, random.integers(0, count, 9)] = [np.nan, np.inf, -np.inf, 7e4, -7e4, 3e38, -3e38, -0.0, 1e-45]
    return list(usual.astype(np.float32))


def attending(layers: Any) -> Any:
    """A plan that does nothing but attention in these layers."""
    plan, width = core().Plan(4, 16), 16
    tokens = core().Matrix("float32", 4, width)
    plan.embed(tokens, None)
    for number, (kv_heads, head_dim, masked, _) in enumerate(layers):
        channels = 3 * kv_heads * head_dim
        plan.buffer(f"qkv {number}", channels)
        plan.buffer(f"read {number}", channels // 3)
        plan.linear("hidden", f"qkv {number}", core().Matrix("float32", channels, width))
        mask: dict[str, Any] = {}
        if masked:
            step = np.zeros(kv_heads * kv_heads * head_dim, np.float32)
            mask = {"keep": 5, "mask_decay": np.ones(kv_heads, np.float32), "mask_step": step}
        sizes = {"heads": kv_heads, "kv_heads": kv_heads, "head_dim": head_dim, "scale": 1.0}
        plan.attention(f"qkv {number}", f"read {number}", layer=number, **sizes, **mask)
    return plan


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group", [16, 32, 48, 128])
def test_codes_and_scales_are_those_of_the_definition(group: int, bits: int, dtype: str) -> None:
    """The coded page of each exact page, whatever that holds, byte for byte."""
    from loquent.native.store import LayerShape, NativeStore

    shapes = (3, 80, True), (2, 48, False), (4, 8, True), (1, 20, False), (2, 64, False)
    layers = [LayerShape(*shape, None) for shape in shapes]
    store = NativeStore(layers, 16, dtype, kind(bits, group, 1))
    pages = numbers_to_code(layers, group, bits)
    count = len(pages)
    for index in range(2):
        store.resize(index, count + 1)
    for page, numbers in enumerate(pages):
        halves = (numbers.view(np.uint32) >> 16).astype(np.uint16)
        content = (numbers if dtype == "float32" else halves).view(np.uint8)
        store.write_pages(0, [page], np.resize(content, (1, store.groups[0].bytes_per_page)))
    tables = np.arange(count + 1), np.arange(count)[::-1].copy()
    segment = Segment(np.zeros(1, np.int64), count * group, tables, 0, 4096, coded=(0, 0))
    attending(layers).run(store.memory, [segment], None, ())
    for page in range(count):
        planes = exact_planes(store.read_pages(0, [page])[0], layers, group, dtype)
        expected = b"".join(coded_layer(heads, bits, group) for heads in planes)
        assert store.read_pages(1, [count - 1 - page])[0].tobytes() == expected


# --- what is read of them --------------------------------------------------------------------------------------------


@cache
def texts() -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [text(length, length) for length in random.integers(20, LENGTH, 12)]


def alone(backend: Any, tokens: np.ndarray, coding: StoreKind) -> np.ndarray:
    return Reader(backend, 1, kind=coding).read({0: tokens})[0]


def one_by_one(backend: Any, tokens: np.ndarray, coding: StoreKind) -> np.ndarray:
    reader = Reader(backend, 1, kind=coding)
    return np.concatenate([reader.read({0: tokens[at : at + 1]})[0] for at in range(len(tokens))])


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    core().set_threads(request.param)
    yield request.param
    core().set_threads(0)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", EVERY)
def test_token_by_token_at_once_and_in_company(name: str, bits: int, threads: int) -> None:
    backend, coding = backend_of(name, "bfloat16" if bits == 2 else "float32"), kind(bits)
    rows = [alone(backend, tokens, coding) for tokens in texts()]
    for tokens, expected in list(zip(texts(), rows))[:2]:
        assert np.array_equal(one_by_one(backend, tokens, coding), expected)
    reader, numbers = Reader(backend, len(rows), 3, kind=coding), range(len(rows))
    first = reader.read({number: texts()[number][:-2] for number in numbers})
    second = reader.read({number: texts()[number][-2:-1] for number in reversed(numbers)})
    third = reader.read({number: texts()[number][-1:] for number in numbers})
    for number in numbers:
        assert np.array_equal(np.concatenate([first[number], second[number], third[number]]), rows[number])


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=15, deadline=None)
@given(
    coding=st.builds(kind, st.sampled_from(BITS), st.sampled_from([16, 32, 48]), st.integers(1, 40)),
    cuts=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=8), min_size=1, max_size=3),
    turns=st.lists(st.integers(1, 7), max_size=8),
    seed=st.integers(0, 99),
)
def test_any_pieces_in_any_company(name: str, coding: StoreKind, cuts: Any, turns: list[int], seed: int) -> None:
    backend = backend_of(name)
    sequences = [text(min(sum(sizes), LENGTH), seed + number) for number, sizes in enumerate(cuts)]
    reader, found = Reader(backend, len(cuts), seed, kind=coding), [[] for _ in cuts]
    left = [np.split(tokens, np.cumsum(sizes)[:-1].clip(max=len(tokens))) for tokens, sizes in zip(sequences, cuts)]
    left = [[piece for piece in pieces if len(piece)] for pieces in left]
    for turn in [*turns, *[7] * 8]:
        chosen = {n: left[n].pop(0) for n in range(len(left)) if turn >> n & 1 and left[n]}
        for number, rows in reader.read(chosen).items() if chosen else ():
            found[number].append(rows)
    for tokens, rows in zip(sequences, found):
        assert np.array_equal(np.concatenate(rows), alone(backend, tokens, coding))


@pytest.mark.parametrize("name", EVERY)
def test_rows_that_see_no_codes_are_those_of_a_plain_store(name: str) -> None:
    backend, tokens = backend_of(name), text(LENGTH)
    plain = Reader(backend, 1, page_size=16).read({0: tokens})[0]
    for residual in (LENGTH, 50):
        rows = alone(backend, tokens, kind(2, 16, residual))
        unseen = residual + 15 if any(shape.window is None for shape in backend._made.lowered.layers) else LENGTH
        assert np.array_equal(rows[:unseen], plain[:unseen])
        assert np.array_equal(rows, plain) == (unseen >= LENGTH)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo", "doge"])
def test_coded_pages_in_a_file_are_those_in_memory(name: str) -> None:
    backend, tokens, coding = backend_of(name), text(LENGTH), Coding(bits=2, group=16, residual=1)
    rows = alone(backend, tokens, StoreKind(coding))
    assert np.array_equal(one_by_one(backend, tokens, StoreKind(coding, offloaded=True)), rows)


def test_coded_pages_are_shared_by_forks() -> None:
    backend, tokens = backend_of("llama"), text(60)
    reader = Reader(backend, 2, kind=kind(4))
    reader.read({0: tokens[:50]})
    for index in range(2):
        reader.tables[index][1] = reader.tables[index][0]
    held = reader.tables[0][0][3]
    reader.tables[0][1, 3] = copied = next(page for page in range(12) if page not in reader.tables[0][0])
    reader.store.copy(0, [held], [copied])
    reader.lengths[1] = 50
    coded = reader.store.read_pages(1, range(2))
    other = np.concatenate([tokens[:50], text(6, 8)])
    found = reader.read({0: tokens[50:56], 1: other[50:]})
    for number, whole in ((0, tokens[:56]), (1, other)):
        assert np.array_equal(found[number], alone(backend, whole, kind(4))[50:])
    assert np.array_equal(reader.store.read_pages(1, range(2)), coded)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"coded": ()}, ValueError),
        ({"coded": (0,)}, ValueError),
        ({"coded": None}, ValueError),
        ({"coded": (0, "1")}, (RuntimeError, TypeError, ValueError)),
        ({"coded": (0, -1)}, IndexError),
        ({"coded": (0, 4)}, IndexError),
        ({"coded": (0, 2**62)}, IndexError),
        ({"tables": (np.arange(4), np.arange(2))}, IndexError),
        ({"tables": (np.arange(4), np.array([0, 1, 9]))}, IndexError),
        ({"tables": (np.arange(4), np.array([0, -1, 2]))}, IndexError),
        ({"tables": (np.arange(4), np.array([0, 1, -1]))}, IndexError),
        ({"tables": (np.array([-1, -1, -1, 3]), np.arange(3))}, IndexError),
        ({"tables": (np.array([-1, 1, 2, 3]), np.arange(3)), "coded": (0, 0)}, IndexError),
        ({"tables": (np.array([-1, -1, 2, -1]), np.arange(3))}, IndexError),
        ({"tables": (np.arange(4),)}, ValueError),
    ],
)
def test_hostile_segments_are_refused_before_anything_is_written(fields: dict[str, Any], error: Any) -> None:
    backend, coding = backend_of("llama"), kind(4, 16, 1)
    store = backend.open_store(16, coding)
    for index in range(2):
        store.resize(index, 5)
    backend.run(store, [Segment(text(47), 0, (np.arange(3), np.arange(2)), 1, 60, coded=(0, 0))])
    before = [store.read_pages(index, range(5)) for index in range(2)]
    usual = {"tokens": text(5), "start": 47, "tables": (np.array([-1, -1, 2, 3]), np.arange(3)), "coded": (0, 2)}
    with pytest.raises(error):
        backend.run(store, [Segment(**{"rows": 1, "span": 60} | usual | fields)])
    for index in range(2):
        assert np.array_equal(store.read_pages(index, range(5)), before[index])
    backend.run(store, [Segment(**{"rows": 1, "span": 60} | usual)])


def test_a_coded_store_is_no_plain_store() -> None:
    backend, tables = backend_of("llama"), (np.arange(2),)
    plain, coded = backend.open_store(16), backend.open_store(16, kind(4))
    for store in (plain, coded):
        store.resize(0, 2)
    with pytest.raises(ValueError, match="groups"):
        backend.run(coded, [Segment(text(3), 0, tables, 1, 60)])
    with pytest.raises(ValueError, match="groups"):
        backend.run(plain, [Segment(text(3), 0, tables * 2, 1, 60, coded=(0, 0))])
