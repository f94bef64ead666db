"""The page store: pages keep their content through growing, shrinking and copying."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny

from loquent.torch.page_memory import DeviceMemory
from loquent.torch.store import PageStore

FLOATS = torch.float32, DeviceMemory(torch.device("cpu"))


def filled(pages: int, dtype: torch.dtype = torch.float32) -> PageStore:
    """A Doge's store whose slots hold their own numbers."""
    store = PageStore(tiny("doge").decoder, 4, dtype, DeviceMemory(torch.device("cpu")))
    store.resize(0, pages)
    for layer, planes in enumerate(store.planes(layer) for layer in range(2)):
        for number, plane in enumerate(planes):
            slots = torch.arange(pages * 4.0).view(-1, *[1] * (plane.dim() - 1))
            plane.copy_(slots + 1000 * layer + 10_000 * number)
    return store


def content(store: PageStore, page: int) -> list[float]:
    """The first number of each slot of a page, in every plane of every layer."""
    return [
        float(p[slot].flatten()[-1])
        for layer in range(2)
        for p in store.planes(layer)
        for slot in range(page * 4, page * 4 + 4)
    ]


def test_planes_of_doge_hold_keys_values_and_mask_values() -> None:
    store = filled(3)
    assert [tuple(plane.shape) for plane in store.planes(0)] == [(12, 2, 8), (12, 2, 8), (12, 2)]
    assert store.groups[0].bytes_per_page == 4 * 2 * (2 * 2 * 8 + 2) * 4
    assert store.pages(0) == 3


def test_resizing_keeps_what_stays() -> None:
    store = filled(3)
    before = [content(store, page) for page in range(3)]
    store.resize(0, 7)
    assert [content(store, page) for page in range(3)] == before
    assert content(store, 5) == [0.0] * 24
    store.resize(0, 2)
    assert store.pages(0) == 2
    assert [content(store, page) for page in range(2)] == before[:2]


def test_copies_are_of_whole_pages_and_all_planes() -> None:
    store = filled(5)
    before = [content(store, page) for page in range(5)]
    store.copy(0, [0, 3], [4, 1])
    assert [content(store, page) for page in range(5)] == [before[0], before[3], before[2], before[3], before[0]]
    store.copy(0, [], [])


def test_pages_are_rearranged_in_another_number_of_them() -> None:
    store = filled(4)
    before = [content(store, page) for page in range(4)]
    store.rearrange(0, 6, [0, 3, 3], [4, 0, 2])
    assert store.pages(0) == 6
    nothing = [0.0] * len(before[0])
    found = [content(store, page) for page in range(6)]
    assert found == [before[3], nothing, before[3], nothing, before[0], nothing]
    store.rearrange(0, 2, [], [])
    assert [content(store, page) for page in range(2)] == [nothing] * 2


def test_writing_without_gradients_leaves_plain_tensors() -> None:
    store = filled(2)
    entries = [torch.ones(3, 2, 8, requires_grad=True) * 2, torch.ones(3, 2, 8), torch.ones(3, 2)]
    store.write(1, torch.tensor([5, 0, 2]), entries)
    store.write(0, slice(1, 4), entries)
    assert not store.planes(1)[0].requires_grad
    assert store.planes(1)[0][[5, 0, 2]].unique().tolist() == [2.0]
    assert store.planes(0)[2][1:4].unique().tolist() == [1.0]
    with torch.inference_mode():
        store.resize(0, 3)
    assert not store.planes(0)[0].is_inference()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pages_are_read_and_written_as_bytes(dtype: torch.dtype) -> None:
    store, other = filled(5, dtype), filled(3, dtype)
    before = [content(store, page) for page in range(5)]
    taken = store.read_pages(0, [4, 1])
    assert taken.shape == (2, store.groups[0].bytes_per_page)
    taken.flags.writeable = False
    other.write_pages(0, [0, 2], taken)
    assert [content(other, page) for page in range(3)] == [before[4], before[1], before[1]]
    assert store.read_pages(0, []).shape == (0, store.groups[0].bytes_per_page)
    other.write_pages(0, [], taken[:0])
    assert (store.format == other.format, store.place) == (True, "memory")


def test_cleared_pages_are_zeros() -> None:
    store = filled(3)
    before = [content(store, page) for page in range(3)]
    store.clear(0, [1])
    store.clear(0, [])
    assert [content(store, page) for page in range(3)] == [before[0], [0.0] * 24, before[2]]


def test_layers_with_a_window_have_pages_of_their_own() -> None:
    store = PageStore(tiny("gpt_neo", num_layers=4, attention_types=[[["global", "local"], 2]]).decoder, 4, *FLOATS)
    assert [(group.window, group.residual) for group in store.groups] == [(None, None), (5, None)]
    assert [store.exact_group[layer] for layer in range(4)] == [0, 1, 0, 1]
    store.resize(0, 3)
    store.resize(1, 2)
    assert [store.pages(group) for group in range(2)] == [3, 2]
    assert [len(planes[0]) for planes in map(store.planes, range(4))] == [12, 8, 12, 8]
    for planes in map(store.planes, range(4)):
        planes[0].fill_(1.0)
    store.clear(1, [0])
    assert [float(planes[0][0].sum()) for planes in map(store.planes, range(4))] == [32.0, 0.0, 32.0, 0.0]
    assert store.format != filled(1).format
