"""The arithmetic of coded pages, bit for bit that of a reference in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kivi import coded, page_through_codes

from loquent.cache import Coding
from loquent.parts import Attention, DynamicMask
from loquent.torch.coded_pages import KiviPages
from loquent.torch.coding import decode, encode, pack, unpack
from loquent.torch.page_memory import DeviceMemory

BITS = [1, 2, 4, 8]
groups = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 20)),
    elements=st.floats(-3, 3, width=32) | st.floats(width=32, allow_nan=False, allow_infinity=False) | st.just(0.5),
)


def decoded(codes: torch.Tensor, minimum: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    read = torch.empty(codes.shape)
    decode(codes, minimum, step, read)
    return read


def read_page(pages: KiviPages, page: int, planes: list[torch.Tensor], plane: int) -> torch.Tensor:
    """The last of four pages of two sequences."""
    read = torch.empty(2, 40, *planes[plane].shape[2:])
    pages.decode(torch.tensor([0, page, 2, page]), plane, read[:, 5:37])
    assert torch.equal(read[0, 21:37], read[1, 21:37])
    return read[1, 21:37]


@given(groups, st.sampled_from(BITS))
def test_codes_minimum_and_step_are_those_of_the_reference(numbers: np.ndarray, bits: int) -> None:
    codes, minimum, step = encode(torch.from_numpy(numbers), bits, 1)
    with np.errstate(over="ignore"):
        expected = [coded(row, bits) for row in numbers]
    assert codes.tolist() == [row[0].tolist() for row in expected]
    assert minimum.tolist() == [float(row[1]) for row in expected]
    assert step.tolist() == [float(row[2]) for row in expected]


@given(groups, st.sampled_from(BITS))
def test_what_is_read_is_near_what_was_coded(numbers: np.ndarray, bits: int) -> None:
    numbers = np.clip(numbers, -1000, 1000)
    codes, minimum, step = (x if x.dim() == 2 else x[:, None] for x in encode(torch.from_numpy(numbers), bits, 1))
    read = decoded(codes, minimum, step).numpy()
    assert (np.abs(read - numbers) <= step.float().numpy() * 0.5001 + 1e-4).all()
    spread = (numbers.max(1) - numbers.min(1)) / (2**bits - 1)
    assert (step[:, 0].numpy() <= spread * 1.002 + 1.0).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_group_with_a_number_that_is_none_reads_as_none(wrong: float) -> None:
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    numbers[1, 2] = wrong
    codes, minimum, step = encode(torch.from_numpy(numbers), 4, 1)
    assert step.isnan().tolist() == [False, True, False]
    read = decoded(codes, minimum[:, None], step[:, None])
    assert read.isnan().all(1).tolist() == [False, True, False]
    assert torch.allclose(read[[0, 2]], torch.from_numpy(numbers)[[0, 2]], atol=0.1)


@pytest.mark.parametrize("bits", BITS)
def test_packing_takes_the_bits_that_it_says(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (3, 16, 5), dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (3, 2 * bits, 5)
    assert torch.equal(unpack(packed, bits), codes)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("kv_heads", "head_dim"), [(2, 8), (1, 24), (4, 10), (2, 32)], ids=str)
def test_pages_read_as_those_of_the_reference(bits: int, kv_heads: int, head_dim: int) -> None:
    """Values are coded 16 channels at a time, over heads, the last of a token maybe fewer."""
    coding = Coding(bits, group=16, residual=1)
    part = Attention(kv_heads, kv_heads, head_dim, 1.0, False, False, dynamic_mask=DynamicMask(5, False))
    store = KiviPages(part, coding, torch.float32, DeviceMemory(torch.device("cpu")))
    store.resize(4)
    generator = torch.Generator().manual_seed(bits)
    planes = [torch.randn(2, 16, kv_heads, head_dim, generator=generator) * 3 for _ in range(2)]
    planes.append(torch.rand(2, 16, kv_heads, generator=generator))
    store.encode(torch.tensor([3, 1]), planes)
    for place, page in enumerate((3, 1)):
        expected = page_through_codes(planes[0][place].numpy(), planes[1][place].numpy(), coding)
        for plane in range(2):
            assert read_page(store, page, planes, plane).tolist() == expected[plane].tolist()
        assert torch.equal(read_page(store, page, planes, 2), planes[2][place])
    numbers = kv_heads * head_dim
    codes_and_ranges = 2 * 16 * numbers * bits // 8 + 4 * numbers + 4 * 16 * -(-numbers // 16)
    assert store.bytes_per_page == codes_and_ranges + 4 * 16 * kv_heads


def test_bits_of_groups_of_64() -> None:
    part = Attention(12, 12, 64, 1.0, False, False)
    store = KiviPages(part, Coding(2, 64, 32), torch.float32, DeviceMemory(torch.device("cpu")))
    assert store.bytes_per_page * 8 == 2.5 * 64 * 12 * 64 * 2
