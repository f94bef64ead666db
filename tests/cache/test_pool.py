"""The page pool: exact counting, runs set aside, remembered pages given up oldest first, and the limit."""

from __future__ import annotations

import pytest

from loquent.cache import Budget, PagePool
from loquent.cache.pool import Extent
from loquent.errors import CapacityError

NOWHERE = Extent(0, 0)


def allocate(pool: PagePool, count: int) -> list[int]:
    return [pool.allocate(NOWHERE, 0) for _ in range(count)]


@pytest.mark.parametrize(("tokens", "pages"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_pages_for_tokens(tokens: int, pages: int) -> None:
    assert PagePool(4).pages_for(tokens) == pages


def test_a_page_is_free_when_its_last_holder_leaves() -> None:
    pool = PagePool(4)
    [page] = allocate(pool, 1)
    pool.share(page)
    assert pool.is_shared(page)
    pool.release(page)
    assert not pool.is_shared(page)
    assert pool.held == 1
    pool.release(page)
    assert pool.held == 0
    assert allocate(pool, 1) == [page]


def test_an_extent_gives_consecutive_pages() -> None:
    pool = PagePool(4)
    extents = [pool.set_aside(3), pool.set_aside(2)]
    pages = [[pool.allocate(extent, index) for index in range(extent.stop - extent.start)] for extent in extents]
    assert pages == [[0, 1, 2], [3, 4]]
    assert pool.allocate(extents[0], 3) not in pages[0] + pages[1]  # past its end: any other


def test_pages_set_aside_for_others_are_taken_last() -> None:
    pool = PagePool(4, 10, Budget(40))
    aside = pool.set_aside(2)
    assert allocate(pool, 3) == [2, 3, aside.start]
    assert pool.allocate(aside, 0) == aside.start + 1
    with pytest.raises(CapacityError, match="all 4 pages"):
        allocate(pool, 1)


def test_no_room_for_an_extent_gives_an_empty_one() -> None:
    pool = PagePool(4, 10, Budget(30))
    pages = allocate(pool, 3)
    pool.release(pages[0])
    pool.release(pages[2])
    assert pool.set_aside(2) == NOWHERE
    assert pool.set_aside(1) == Extent(pages[0], pages[0] + 1)


def test_an_extent_that_was_given_up_can_be_set_aside_again() -> None:
    pool = PagePool(4, 10, Budget(40))
    first = pool.set_aside(2)
    assert pool.set_aside(1) == NOWHERE
    pool.give_up(first)
    assert pool.set_aside(2) == first


def test_remembered_pages_go_oldest_first_and_only_when_needed() -> None:
    forgotten: list[int] = []
    pool = PagePool(4, 10, Budget(40))
    pages = allocate(pool, 4)
    for page in (pages[1], pages[2], pages[0]):
        pool.release(page, forgotten.append)
    pool.release(pages[3])
    assert (pool.held, pool.remembered) == (0, 3)
    assert allocate(pool, 1) == [pages[3]]  # one that costs nothing
    assert forgotten == []
    assert allocate(pool, 2) == [pages[1], pages[2]]
    assert forgotten == [pages[1], pages[2]]


def test_sharing_a_remembered_page_makes_it_held_and_safe() -> None:
    forgotten: list[int] = []
    pool = PagePool(4, 10, Budget(20))
    old, young = allocate(pool, 2)
    pool.release(old, forgotten.append)
    pool.release(young, forgotten.append)
    pool.share(old)
    assert (pool.held, pool.remembered) == (1, 1)
    assert allocate(pool, 1) == [young]
    assert forgotten == [young]


def test_an_extent_prefers_pages_that_cost_nothing() -> None:
    forgotten: list[int] = []
    pool = PagePool(4, 10, Budget(50))
    pages = allocate(pool, 5)
    pool.release(pages[0], forgotten.append)
    for page in pages[1:3]:
        pool.release(page)
    assert pool.set_aside(2) == Extent(1, 3)
    pool.give_up(Extent(1, 3))
    assert pool.set_aside(3) == Extent(0, 3)
    assert forgotten == []
    assert pool.allocate(Extent(0, 3), 0) == 0
    assert forgotten == [0]


def test_forgetting_everything_tells_each_owner_once() -> None:
    forgotten: list[int] = []
    pool = PagePool(4)
    for page in allocate(pool, 3):
        pool.release(page, forgotten.append)
    pool.forget_all()
    pool.forget_all()
    assert sorted(forgotten) == [0, 1, 2]
    assert pool.remembered == 0


def test_shrinking_keeps_what_is_held_or_set_aside() -> None:
    forgotten: list[int] = []
    pool = PagePool(4)
    pages = allocate(pool, 5)
    extent = pool.set_aside(2)
    for page in (pages[0], pages[4]):
        pool.release(page, forgotten.append)
    pool.shrink()
    assert pool.capacity == extent.stop
    pool.give_up(extent)
    pool.shrink()
    assert pool.capacity == 4
    assert forgotten == [4]
    assert (pool.held, pool.remembered) == (3, 1)
