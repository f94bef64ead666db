"""Which layers share page tables, and which pages of a group are there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loquent.cache import Coding, LayerGroup, PageGroup, layer_groups


def test_layers_of_a_plain_store_share_by_window() -> None:
    assert layer_groups([None, None]) == [LayerGroup((0, 1), None, None)]
    assert layer_groups([8, None, 8, 3]) == [
        LayerGroup((0, 2), 8, None),
        LayerGroup((1,), None, None),
        LayerGroup((3,), 3, None),
    ]


def test_layers_of_a_coded_store_share_by_form_and_window() -> None:
    found = layer_groups([None, 300, 16, None, 17, 300], Coding(residual=16))
    assert found == [
        LayerGroup((0, 1, 3, 4, 5), 17, None),
        LayerGroup((2,), 16, None),
        LayerGroup((0, 3), None, 16),
        LayerGroup((1, 5), 300, 16),
        LayerGroup((4,), 17, 16),
    ]
    assert layer_groups([4, 16, 4], Coding(residual=16)) == [LayerGroup((0, 2), 4, None), LayerGroup((1,), 16, None)]


@given(st.integers(0, 200), st.none() | st.integers(1, 60), st.none() | st.integers(1, 60), st.sampled_from([1, 4, 16]))
def test_pages_of_a_group_are_those_that_some_query_sees(
    length: int, window: int | None, residual: int | None, page_size: int
) -> None:
    group = PageGroup(1, window, residual)
    first = group.first(length, page_size)
    assert first == min(p // page_size for p in range(length + 1) if window is None or p > length - window)
    last_coded = max(0, length - (residual or 0))
    assert group.stop(length, page_size) == (-(-length // page_size) if residual is None else last_coded // page_size)


@given(st.integers(0, 300), st.integers(1, 60), st.sampled_from([None, 61, 100]))
def test_a_page_is_exact_until_it_has_been_coded(length: int, residual: int, window: int | None) -> None:
    exact, coded = (
        PageGroup(1, group.window, group.residual) for group in layer_groups([window], Coding(2, 16, residual))
    )
    assert exact.first(length, 16) <= coded.stop(length, 16)
