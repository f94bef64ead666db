"""Counter-based random numbers: the published vectors, uniformity, independence, and seeds that repeat."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

import loquent
from loquent.decoding.random import Purpose, bits, branch_seed, fresh_seed, philox, uniform

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((ONES,) * 4, (ONES,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers_of_random123(counter: tuple[int, int, int, int], key: tuple[int, int], words: str) -> None:
    assert " ".join(f"{word:08x}" for word in philox(counter, key)) == words


def test_bits_are_the_first_words_of_their_counter() -> None:
    assert bits(0, 0, Purpose.DRAW) == 0xE169C58D_6627E8D5
    seed, position = 0x299F31D0_A4093822, 0x85A308D3_243F6A88
    a, b, *_ = philox((0x243F6A88, 0x85A308D3, Purpose.BRANCH, 0), (0xA4093822, 0x299F31D0))
    assert bits(seed, position, Purpose.BRANCH) == b << 32 | a


@pytest.mark.parametrize("vary", ["position", "seed"])
def test_numbers_are_uniform(vary: str) -> None:
    """Chi-square over 64 bins: 63 degrees of freedom, p = 0.001 at 103.4."""
    count = 6400
    numbers = [uniform(*((7, i) if vary == "position" else (i, 7)), Purpose.DRAW) for i in range(count)]
    assert all(0 <= number < 1 for number in numbers)
    observed, _ = np.histogram(numbers, 64, (0, 1))
    assert ((observed - count / 64) ** 2 / (count / 64)).sum() < 103.4
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.05


def test_purposes_seeds_positions_and_branches_differ() -> None:
    numbers = {bits(seed, at, purpose) for seed in range(8) for at in range(8) for purpose in Purpose}
    assert len(numbers) == 8 * 8 * len(Purpose)
    seeds = {branch_seed(seed, branch) for seed in range(8) for branch in range(8)}
    assert len(seeds) == 64
    assert branch_seed(3, 0) == 3


def test_set_seed_repeats_every_generator() -> None:
    def draw() -> tuple[object, ...]:
        return fresh_seed(), fresh_seed(), random.random(), float(np.random.rand()), float(torch.rand(()))

    loquent.set_seed(5)
    first = draw()
    loquent.set_seed(5)
    assert draw() == first
    assert first[0] != first[1]
    loquent.set_seed(6)
    assert not set(draw()) & set(first)


def test_fresh_seeds_are_not_the_same_in_every_process() -> None:
    code = "from loquent.decoding.random import fresh_seed; print(fresh_seed())"
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(outputs) == 2
    assert all(output.strip().isdigit() for output in outputs)


def test_set_seed_seeds_torch_before_it_was_used() -> None:
    code = "import loquent; loquent.set_seed(3); import numpy, torch; print(numpy.random.rand(), float(torch.rand(())))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loquent.set_seed(3)
    assert [float(number) for number in printed.split()] == [np.random.rand(), float(torch.rand(()))]


@pytest.mark.parametrize("seed", [-1, "7", 1.5, None, True])
def test_only_non_negative_integers_are_seeds(seed: object) -> None:
    with pytest.raises(loquent.ArgumentError, match="must be a non-negative integer"):
        loquent.set_seed(seed)
