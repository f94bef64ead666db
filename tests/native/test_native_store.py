"""The native store as engines see it: groups by windows, pages read and written whole, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loquent.cache import Coding, PageGroup, StoreKind
from loquent.errors import ArgumentError
from loquent.native import why_unavailable

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")


def layer(window: int | None = None, kv_heads: int = 2, head_dim: int = 8, masked: bool = False) -> Any:
    from loquent.native.store import LayerShape

    return LayerShape(kv_heads, head_dim, masked, window)


def opened(*layers: Any, page_size: int = 16, key_values: str = "float32", coding: Coding | None = None) -> Any:
    from loquent.native.store import NativeStore

    return NativeStore(layers, page_size, key_values, StoreKind(coding))


def filled(store: Any, group: int, pages: int) -> np.ndarray:
    """Give a group so many pages of random bytes; what they hold."""
    store.resize(group, pages)
    content = np.random.default_rng(group).integers(0, 256, (pages, store.groups[group].bytes_per_page), np.uint8)
    store.write_pages(group, range(pages), content)
    return content


def test_layers_that_see_the_same_span_share_pages() -> None:
    store = opened(layer(5), layer(), layer(5, kv_heads=4), layer(), layer(9))
    of_a_head = 2 * 16 * 16 * 4 - 8 * 16 * 4  # keys of 8 dimensions, values of 8 padded to 16
    assert store.groups == (PageGroup(6 * of_a_head, 5), PageGroup(4 * of_a_head), PageGroup(2 * of_a_head, 9))
    assert (store.page_size, store.place) == (16, "memory")
    store.resize(1, 3)
    assert [store.pages(group) for group in range(3)] == [0, 3, 0]


def test_layers_that_are_seen_coded_have_pages_of_either_form() -> None:
    kv_heads, head_dim, tokens = 12, 64, 64
    wide = layer(kv_heads=kv_heads, head_dim=head_dim)
    store = opened(wide, layer(20), wide, layer(200), coding=Coding(bits=2, group=tokens, residual=32))
    found = [(group.window, group.residual) for group in store.groups]
    assert found == [(33, None), (20, None), (None, 32), (200, 32)]
    assert store.page_size == tokens
    numbers = 2 * 2 * kv_heads * head_dim * tokens  # of two layers
    assert store.groups[2].bytes_per_page * 8 == numbers * 2.5
    exact = [opened(wide, key_values=kind, page_size=tokens).groups[0] for kind in ("float32", "bfloat16")]
    for kind, expected in (("float32", exact[0]), ("bfloat16", exact[1]), ("int8", exact[1])):
        coded = opened(wide, key_values=kind, coding=Coding(group=tokens))
        assert coded.groups[0].bytes_per_page == expected.bytes_per_page


@pytest.mark.parametrize("coding", [None, Coding(bits=4, group=16, residual=5), Coding(bits=1, group=48, residual=1)])
@pytest.mark.parametrize("key_values", ["float32", "bfloat16", "int8"])
def test_pages_are_read_and_written_whole(key_values: str, coding: Coding | None) -> None:
    shapes = layer(masked=True), layer(7), layer(head_dim=20)
    store, other = (opened(*shapes, key_values=key_values, coding=coding) for _ in range(2))
    contents = [filled(store, group, 70) for group in range(len(store.groups))]
    assert len(contents) == (2 if coding is None else 3)
    store.copy(0, [3, 69], [5, 6])
    store.clear(1, [0, 9])
    contents[0][[5, 6]] = contents[0][[3, 69]]
    contents[1][[0, 9]] = 0
    for group, content in enumerate(contents):
        assert np.array_equal(store.read_pages(group, range(70)), content)
        assert np.array_equal(store.read_pages(group, [8, 2]), content[[8, 2]])
        assert store.read_pages(group, []).shape == (0, content.shape[1])
        other.resize(group, 70)
        assert not other.read_pages(group, range(70)).any()
        other.write_pages(group, np.arange(70)[::-1], content)
        assert np.array_equal(other.read_pages(group, range(70)), content[::-1])


def test_a_format_tells_stores_apart_whose_bytes_mean_different_things() -> None:
    stores = [
        opened(layer()),
        opened(layer(), layer()),
        opened(layer(3)),
        opened(layer(kv_heads=4, head_dim=4)),
        opened(layer(masked=True)),
        opened(layer(), page_size=32),
        opened(layer(), key_values="bfloat16"),
        opened(layer(), key_values="int8"),
        opened(layer(), coding=Coding()),
        opened(layer(), coding=Coding(bits=2)),
        opened(layer(), coding=Coding(residual=3)),
        opened(layer(), coding=Coding(group=32)),
    ]
    assert len({store.format for store in stores}) == len(stores)
    assert opened(layer()).format == stores[0].format


@pytest.mark.parametrize(("group", "page"), [(0, 2), (0, -1), (0, 2**40), (1, 0), (2, 0), (-1, 0)])
def test_pages_and_groups_that_are_not_there_are_refused(group: int, page: int) -> None:
    store = opened(layer(), layer(4))
    store.resize(0, 2)
    content = np.zeros((1, store.groups[0].bytes_per_page), np.uint8)
    for refused in (
        lambda: store.clear(group, [page]),
        lambda: store.copy(group, [page], [0]),
        lambda: store.copy(group, [0], [page]),
        lambda: store.read_pages(group, [page]),
        lambda: store.write_pages(group, [page], content),
    ):
        with pytest.raises(IndexError):
            refused()


def test_counts_and_contents_that_do_not_fit_are_refused() -> None:
    store = opened(layer())
    store.resize(0, 2)
    content = np.zeros((1, store.groups[0].bytes_per_page), np.uint8)
    with pytest.raises(ValueError, match="target"):
        store.copy(0, [0, 1], [1])
    with pytest.raises(ValueError, match="pages"):
        store.resize(0, -1)
    for wrong in (content[:, 1:].copy(), np.zeros((2, content.shape[1]), np.uint8), content[:0]):
        with pytest.raises(ValueError, match="content"):
            store.write_pages(0, [0], wrong)
    for wrong in (content[0], "x", None):
        with pytest.raises((TypeError, ValueError)):
            store.write_pages(0, [0], wrong)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"bits": 3}, "bits=3"),
        ({"bits": 0}, "bits=0"),
        ({"group": 24}, "group=24"),
        ({"group": 0}, "group=0"),
        ({"group": -16}, "group=-16"),
        ({"residual": 0}, "residual=0"),
        ({"library": "quanto"}, "'quanto'.*PyTorch"),
    ],
)
def test_codes_that_there_are_not_are_refused(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        opened(layer(), coding=Coding(**fields))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell of resident memory")
@pytest.mark.parametrize("key_values", ["float32", "bfloat16", "int8"])
def test_what_the_system_has_given_is_what_the_pages_take(key_values: str) -> None:
    """Not that and what is left of huge pages behind each chunk of them."""
    store = opened(*[layer(kv_heads=4, head_dim=64)] * 4, key_values=key_values)
    pages = 1280
    before = anonymous_bytes()
    store.resize(0, pages)
    store.clear(0, range(pages))  # which writes to them
    taken = pages * store.groups[0].bytes_per_page
    assert taken <= anonymous_bytes() - before + 2**20 < 1.1 * taken


def anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024
