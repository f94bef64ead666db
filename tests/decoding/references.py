"""Rules that transformers 4 has not, from their definitions in plain Python: the reference for the array rules."""

from __future__ import annotations

import math
from collections.abc import Sequence

INF = math.inf


def probabilities(scores: Sequence[float]) -> list[float]:
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    return [weight / sum(weights) for weight in weights]


def dry(
    text: list[int],
    multiplier: float,
    base: float,
    allowed: int,
    breakers: Sequence[tuple[int, ...]] = (),
    window: int = 0,
) -> dict[int, float]:
    """What each token loses: by comparing every earlier place with the end, token by token, as llama.cpp defines it."""
    text = text[-window:] if window else text
    # The breaker that begins last counts, and of those that begin there the longest.
    begins = [
        (start, start + len(breaker))
        for breaker in breakers
        for start in range(len(text))
        if starts(text, start, breaker)
    ]
    free = len(text) - max(begins)[1] if begins else len(text)
    longest: dict[int, int] = {}
    for place in range(len(text) - 1):
        length = 0
        while length < free and length <= place and text[place - length] == text[len(text) - 1 - length]:
            length += 1
        if length >= allowed:
            token = text[place + 1]
            longest[token] = max(length, longest.get(token, 0))
    single = {breaker[0] for breaker in breakers if len(breaker) == 1}
    return {token: multiplier * base ** (n - allowed) for token, n in longest.items() if token not in single}


def starts(text: list[int], start: int, words: tuple[int, ...]) -> bool:
    return tuple(text[start : start + len(words)]) == words


def xtc(scores: list[float], threshold: float) -> list[float]:
    """Sorted, all of the likely tokens but the last go; equal ones are as likely as each other."""
    chances = probabilities(scores)
    likely = [score for score, chance in zip(scores, chances) if chance >= threshold]
    if len(likely) < 2:
        return list(scores)
    return [-INF if chance >= threshold and score > min(likely) else score for score, chance in zip(scores, chances)]


def top_n_sigma(scores: list[float], count: float) -> list[float]:
    finite = [score for score in scores if score > -INF]
    mean = sum(finite) / len(finite)
    sigma = math.sqrt(sum((score - mean) ** 2 for score in finite) / len(finite))
    return [score if score >= max(scores) - count * sigma else -INF for score in scores]


def top_h(scores: list[float], share: float) -> list[float]:
    """Tokens enter best first while the sum of their entropy terms is within the share."""
    chances = probabilities(scores)
    terms = [-chance * math.log(chance) if chance else 0.0 for chance in chances]
    order = sorted(range(len(scores)), key=lambda token: -scores[token])
    kept, reached = [order[0]], terms[order[0]]
    for token in order[1:]:
        reached += terms[token]
        if reached > share * sum(terms) + 1e-12:
            break
        kept.append(token)
    return [score if token in kept else -INF for token, score in enumerate(scores)]


def mirostat(
    rows: Sequence[Sequence[float]], chosen: Sequence[int], tau: float, eta: float
) -> list[tuple[float, list[float]]]:
    """Before each token: mu, and the scores that are left (llama.cpp's version 2)."""
    mu, seen = 2 * tau, []
    for row, token in zip(rows, chosen):
        bits = [-math.log2(chance) if chance else INF for chance in probabilities(row)]
        left = [score if surprise <= mu or score == max(row) else -INF for score, surprise in zip(row, bits)]
        seen.append((mu, left))
        chance = probabilities(left)[token]
        if chance:
            mu -= eta * (-math.log2(chance) - tau)
    return seen


def occurrences(scores: list[float], generated: list[int], frequency: float, presence: float) -> list[float]:
    return [
        score - frequency * generated.count(token) - presence * (token in generated)
        for token, score in enumerate(scores)
    ]
