"""The order of packs: whole epochs, and nothing to remember."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loquent.errors import ArgumentError
from loquent.training.data import Order
from loquent.training.data.order import permutation


@given(st.integers(1, 50), st.integers(1, 7), st.integers(0, 2**64), st.integers(1, 5))
def test_epochs_follow_one_another_without_a_gap(count: int, rows: int, seed: int, epochs: int) -> None:
    order = Order(count, rows, seed)
    steps = -(-count * epochs // rows)
    read = np.concatenate([order.batch(step) for step in range(steps)])[: count * epochs]
    for epoch in read.reshape(epochs, count):
        assert sorted(epoch) == list(range(count))
    later = Order(count, rows, seed)
    assert later.batch(steps - 1).tolist() == order.batch(steps - 1).tolist()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    epochs = [Order(100, 100, seed).batch(step).tolist() for seed in (0, 1, -1) for step in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_an_order_stays_what_it_was() -> None:
    # Checkpoints of earlier versions go on with these.
    assert permutation(10, 1, 0).tolist() == [3, 5, 2, 9, 7, 0, 8, 6, 1, 4]


def test_positions_are_equally_likely() -> None:
    firsts = np.array([permutation(4, seed, 3)[0] for seed in range(4000)])
    assert np.all(np.abs(np.bincount(firsts) - 1000) < 120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "count=0 must be at least 1"),
        ((1, 0), "rows=0 must be at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Order(*arguments)


def test_steps_count_from_0() -> None:
    with pytest.raises(ArgumentError, match="step=-1 must be at least 0"):
        Order(1, 1).batch(-1)
    assert Order(5, 6).steps_per_epoch == 5 / 6
