"""Beam-search sampling: the results' distribution is the exact one, ours and transformers' alike; chi-square tests.

Seeds are fixed; a test with the right distribution fails for one seed in a thousand (p = 0.001).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import pytest
import torch

from decoding.pairs import MakePair, random_llama

PROMPT = [3, 1]
END, PAD = 2, 5
ROWS = 2000
ASKED = {"num_beams": 2, "max_new_tokens": 2, "do_sample": True, "eos_token_id": END, "pad_token_id": PAD, "top_k": 0}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "warm, the best four": {"temperature": 1.7, "top_k": 4},
    "short ones preferred": {"length_penalty": -2.0, "early_stopping": True},
}


class Beam(NamedTuple):
    tokens: tuple[int, ...]
    score: float


def scores_behind(model: Any, tokens: tuple[int, ...], asked: dict[str, Any]) -> list[float]:
    """Log-probabilities of the next token, after temperature and top-k."""
    with torch.no_grad():
        logits = model(torch.tensor([[*PROMPT, *tokens]])).logits[0, -1].double()
    scores = torch.log_softmax(logits, 0) / asked.get("temperature", 1.0)
    if asked["top_k"]:
        scores[scores < scores.sort(descending=True).values[asked["top_k"] - 1]] = -math.inf
    return scores.tolist()


def in_order(weights: list[float], count: int) -> dict[tuple[int, ...], float]:
    """The probability of each order of drawing `count` of some items without replacement."""
    total, found = sum(weights), {}
    for order in itertools.permutations([i for i, weight in enumerate(weights) if weight], count):
        probability, left = 1.0, total
        for item in order:
            probability *= weights[item] / left
            left -= weights[item]
        found[order] = probability
    return found


def exact(model: Any, asked: dict[str, Any]) -> dict[tuple[int, ...], float]:
    """The distribution of the best of two beams of two tokens, by going through all draws of both steps."""
    penalty = asked.get("length_penalty", 1.0)
    result: dict[tuple[int, ...], float] = defaultdict(float)

    def step(beams: list[Beam], finished: list[Beam], share: float) -> None:
        items = [
            Beam((*beam.tokens, token), beam.score + gain)
            for beam in beams
            for token, gain in enumerate(scores_behind(model, beam.tokens, asked))
        ]
        count = 2 if beams[0].tokens else 4  # the second step ends the first two that it draws; the others are nothing
        ways: dict[Any, float] = defaultdict(float)  # many orders come to the same
        for order, chance in in_order([math.exp(item.score) for item in items], count).items():
            drawn = [items[index] for index in order]
            ended = [item.tokens[-1] == END or len(item.tokens) == 2 for item in drawn]
            new = tuple(sorted(item for item, is_end in zip(drawn[:2], ended) if is_end))
            live = [item for item, is_end in zip(drawn, ended) if not is_end]
            ways[tuple(sorted(live, key=lambda item: -item.score)[:2]), new] += chance
        for (live, new), chance in ways.items():
            best = sorted([*finished, *new], key=lambda item: -item.score / len(item.tokens) ** penalty)[:2]
            worst = best[-1].score / len(best[-1].tokens) ** penalty if len(best) == 2 else -math.inf
            done = len(best) == 2 and (
                asked.get("early_stopping") is True
                or not live
                or live[0].score / len(live[0].tokens) ** penalty <= worst
            )
            if done or not live:
                result[best[0].tokens] += share * chance
            else:
                step(list(live), best, share * chance)

    step([Beam((), 0.0)], [], 1.0)
    assert sum(result.values()) == pytest.approx(1)
    return result


def assert_distributed(found: list[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> None:
    """Chi-square with the results that are expected less than eight times put together."""
    counts = Counter(found)
    assert set(counts) <= {result for result, chance in expected.items() if chance}
    cells = sorted((chance * len(found), counts[result]) for result, chance in expected.items())
    rare = [cell for cell in cells if cell[0] < 8]
    cells = [*cells[len(rare) :], (sum(wanted for wanted, _ in rare), sum(seen for _, seen in rare))]
    statistic = sum((seen - wanted) ** 2 / wanted for wanted, seen in cells if wanted)
    freedom = len(cells) - 1
    assert freedom >= 5
    # Wilson and Hilferty's approximation of the quantile at p = 0.001.
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.0902 * math.sqrt(2 / (9 * freedom))) ** 3


def best_ones(rows: Any) -> list[tuple[int, ...]]:
    """What was generated, without padding."""
    new = [row[len(PROMPT) :] for row in rows.tolist()]
    return [tuple(row[: row.index(END) + 1] if END in row else row) for row in new]


@pytest.fixture(scope="module")
def small_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Models of six tokens."""
    return random_llama(tmp_path_factory.mktemp("six"), 1, vocabulary=6)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_distribution_is_the_exact_one(small_pair: tuple[Any, Any], name: str) -> None:
    ours, theirs = small_pair
    asked = ASKED | SETTINGS[name]
    expected = exact(theirs, asked)
    assert_distributed(best_ones(ours.generate([PROMPT] * ROWS, seed=list(range(ROWS)), **asked)), expected)
    torch.manual_seed(0)
    ids = torch.tensor([PROMPT] * ROWS)
    assert_distributed(best_ones(theirs.generate(ids, attention_mask=torch.ones_like(ids), **asked)), expected)


def test_the_distribution_differs_between_settings(small_pair: tuple[Any, Any]) -> None:
    """So the test above can fail."""
    ours, theirs = small_pair
    found = best_ones(ours.generate([PROMPT] * ROWS, seed=list(range(ROWS)), **ASKED))
    with pytest.raises(AssertionError):
        assert_distributed(found, exact(theirs, ASKED | {"temperature": 1.2}))


def test_scores_are_sums_of_what_was_drawn_from(small_pair: tuple[Any, Any]) -> None:
    ours, theirs = small_pair
    asked = ASKED | {"temperature": 1.7, "top_k": 4, "length_penalty": 0.5, "num_return_sequences": 2}
    found = ours.generate([PROMPT] * 5, seed=[1, 2, 3, 4, 5], return_dict_in_generate=True, **asked)
    for tokens, score in zip(best_ones(found.sequences), found.sequences_scores.tolist()):
        gains = [scores_behind(theirs, tokens[:at], asked)[token] for at, token in enumerate(tokens)]
        assert score == pytest.approx(sum(gains) / len(tokens) ** 0.5, abs=1e-4)


def test_a_batch_draws_what_each_row_draws_alone(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(1)
    prompts = [[3, 4, 5, 6], [7, 7], [30, 2, 9, 9, 9, 12, 8]]
    asked: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 3, "do_sample": True, "max_new_tokens": 12}
    asked |= {"eos_token_id": [2, 5], "pad_token_id": 1, "top_p": 0.9, "temperature": 1.3}
    width = max(map(len, prompts))
    batch = ours.generate(prompts, seed=[5, 6, 7], **asked)[:, width:].tolist()
    for row, prompt in enumerate(prompts):
        alone = ours.generate([prompt], seed=5 + row, **asked)[:, len(prompt) :].tolist()
        assert [tokens[: len(alone[0])] for tokens in batch[3 * row : 3 * row + 3]] == alone
    assert len({tuple(row) for row in batch}) > 6
    assert ours.generate(prompts, seed=[8, 9, 10], **asked)[:, width:].tolist() != batch


def test_a_temperature_of_zero_searches(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(0)
    asked: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 8, "eos_token_id": 2, "pad_token_id": 1}
    searched = ours.generate([[3, 4]], do_sample=False, **asked).tolist()
    assert ours.generate([[3, 4]], do_sample=True, temperature=0.0, seed=1, **asked).tolist() == searched
