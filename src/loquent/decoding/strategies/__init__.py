"""Decoding strategies, each a coroutine in a file of its own, opening with its paper and its update rule."""

from loquent.decoding.strategies.beam import beam_search
from loquent.decoding.strategies.beam_sample import beam_sampling
from loquent.decoding.strategies.constrained import constrained_beam_search
from loquent.decoding.strategies.contrastive import contrastive_search
from loquent.decoding.strategies.diverse import diverse_beam_search
from loquent.decoding.strategies.single import one_by_one
from loquent.decoding.strategies.speculative import speculate

__all__ = [
    "beam_sampling",
    "beam_search",
    "constrained_beam_search",
    "contrastive_search",
    "diverse_beam_search",
    "one_by_one",
    "speculate",
]
