"""Drafts without models: lookups against brute force, paces, and texts between two vocabularies."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loquent.decoding.drafts import LookupDraft
from loquent.decoding.drafts.universal import Tongue
from loquent.decoding.pace import Adaptive, Constant, Costs, Heuristic, Kept, Pace


def returned(generator: Generator[Any, Any, Any]) -> Any:
    """What a generator returns that yields nothing."""
    with pytest.raises(StopIteration) as stopped:
        next(generator)
    return stopped.value.value


def looked_up(text: list[int], longest: int, count: int, ends: tuple[int, ...] = ()) -> list[int]:
    proposals = returned(LookupDraft(longest, ends).propose(np.array(text), count))
    assert all(proposal.odds is None for proposal in proposals)
    return [proposal.token for proposal in proposals]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=24), st.integers(1, 5), st.integers(1, 6))
def test_a_lookup_finds_the_leftmost_of_the_longest_ngrams(text: list[int], longest: int, count: int) -> None:
    expected: list[int] = []
    for size in range(min(longest, len(text) - 1), 0, -1):
        starts = [at for at in range(len(text) - size) if text[at : at + size] == text[-size:]]
        if starts:
            expected = text[starts[0] + size :][:count]
            break
    assert looked_up(text, longest, count) == expected


def test_nothing_is_looked_up_behind_an_end() -> None:
    text = [5, 6, 1, 9, 7, 5, 6]
    assert looked_up(text, 2, 4) == [1, 9, 7, 5]
    assert looked_up(text, 2, 4, ends=(9,)) == [1, 9]


def test_the_heuristic_adds_two_or_takes_one() -> None:
    kept = Kept()
    pace = Heuristic(3, kept)
    counts = []
    for stood in (3, 5, 0, 6, 7, 0, 0):
        counts.append(pace.count())
        pace.learn(counts[-1], stood)
    assert counts == [3, 5, 7, 6, 8, 7, 6]
    assert Heuristic(3, kept).count() == 5
    assert Heuristic(3).count() == 3
    for _ in range(9):
        pace.learn(1, 0)
    assert pace.count() == 1


def drafted(pace: Pace, share: float, rounds: int, company: int = 1) -> list[int]:
    """What a pace asks for, where that share of the drafted tokens stands."""
    random, counts = np.random.default_rng(0), []
    for _ in range(rounds):
        count = pace.count(company)
        counts.append(count)
        if count:
            falls = np.flatnonzero(random.random(count) >= share)
            pace.learn(count, int(falls[0]) if len(falls) else count)
    return counts


def test_drafts_grow_with_what_stands_and_shrink_with_what_falls() -> None:
    good, middling, bad = (
        np.mean(drafted(Adaptive(16, Costs(32, draft=0.1)), share, 200)[20:]) for share in (0.99, 0.7, 0.3)
    )
    assert good > 8 > middling > bad
    assert drafted(Adaptive(5, Costs(32, draft=0.1)), 1.0, 50)[-1] == 5
    pace = Adaptive(16, Costs(32, draft=0.1))
    drafted(pace, 1.0, 60)
    assert np.mean(drafted(pace, 0.0, 80)[40:]) < 0.2


def test_drafts_that_fall_are_given_up_but_for_ever_fewer_tries() -> None:
    pace = Adaptive(10, Costs(8, draft=0.4))
    counts = drafted(pace, 0.0, 600)
    assert sum(counts) < 20
    assert drafted(pace, 1.0, 600)[-1] > 2


def test_where_no_draft_can_pay_none_is_tried() -> None:
    counts = drafted(Adaptive(10, Costs(6, draft=0.4)), 1.0, 100, company=16)
    assert sum(counts) == 0
    assert drafted(Adaptive(10, Costs(6, draft=0.4)), 1.0, 100)[-1] > 0
    assert Constant(4).count(16) == 4


def test_drafts_that_cost_nothing_pay_in_a_batch_too_but_fewer_of_them() -> None:
    alone, few, many = (drafted(Adaptive(10, Costs(8, draft=0.0)), 1.0, 200, company)[-1] for company in (1, 8, 64))
    assert (alone, many) == (10, 0)  # where computing takes all of the time, a row more costs all that it can give
    assert few > 2
    assert sum(drafted(Adaptive(10, Costs(8, draft=0.0)), 0.5, 200, company=64)) < 20


def test_what_the_host_does_for_each_token_counts() -> None:
    cheap, dear = Costs(4, host=0.01, draft=0.1, draft_host=0.01), Costs(4, host=0.6, draft=0.1, draft_host=0.6)
    assert np.mean(drafted(Adaptive(10, cheap), 0.6, 200)) > 1
    assert np.mean(drafted(Adaptive(10, dear), 0.6, 200)) < 0.4
    # A lookup has no passes of its own; the larger part the host has in a pass, the more one pass less is worth.
    assert np.mean(drafted(Adaptive(10, Costs(4, host=0.6)), 0.6, 200)) > 1
    assert Costs(4, row=0.5).round(1, 2) == pytest.approx(Costs(4).round(1, 2) + 3 * 0.5)
    assert Costs(4, row=0.5, draft=0.1).round(1, 2) == pytest.approx(Costs(4, draft=0.1).round(1, 2) + 5 * 0.5)


def test_drafts_that_gain_less_than_is_asked_are_not_made() -> None:
    costs = Costs(4, host=0.1, draft=0.12, draft_host=0.1)
    eager, wary = (np.mean(drafted(Adaptive(10, costs, gain), 0.7, 300)) for gain in (1.05, 1.5))
    assert eager > 3 * wary
    assert sum(drafted(Adaptive(10, costs, 2.5), 1.0, 300)) == 0  # not even tried


def test_the_best_count_is_that_of_the_papers_formula() -> None:
    # Leviathan et al., theorem 3.8: (1 - a**(k + 1)) / ((1 - a) * (k * c + 1)); rows are free here.
    for share, cost, best in [(0.8, 0.05, None), (0.6, 0.2, None), (0.9, 0.02, None)]:
        pace = Adaptive(30, Costs(10**9, draft=cost + 0.03))
        speeds = [(1 - share ** (k + 1)) / ((1 - share) * (k * (cost + 0.06) + 1)) for k in range(31)]
        best = int(np.argmax(speeds))
        assert abs(pace._optimum(share, 1) - best) <= 1


class Letters:
    """A tokenizer of single letters, or of pairs from the left; ids are made as they come. "^" begins a prompt."""

    def __init__(self, size: int) -> None:
        self.size, self.known = size, ["^"]

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        parts = [text[at : at + self.size] for at in range(0, len(text), self.size)]
        self.known += [part for part in dict.fromkeys(parts) if part not in self.known]
        return [0] * add_special_tokens + [self.known.index(part) for part in parts]

    def decode(self, tokens: list[int], skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        return "".join(self.known[token] for token in tokens if token or not skip_special_tokens)


@given(st.text("abc", max_size=12), st.text("abc", max_size=6), st.integers(2, 8))
def test_tokens_that_continue_others_say_the_text(before: str, after: str, behind: int) -> None:
    for size in (1, 2):
        tongue = Tongue(Letters(size), (), behind)
        tokens = tongue.tokens(before, special=True)
        kept, follow = tongue.behind_with(tokens, after)
        assert tongue.text(tokens[:kept] + follow) == before + after
        assert kept >= len(tokens) - 1
        whole = tokens[:kept] + follow
        assert tongue.said_by(whole, len(follow)) == tongue.text(follow)
