"""Decoding strategies, each a coroutine in a file of its own, opening with its paper and its update rule."""

from loquent.decoding.strategies.beam import beam_search
from loquent.decoding.strategies.contrastive import contrastive_search
from loquent.decoding.strategies.single import one_by_one
from loquent.decoding.strategies.speculative import speculate

__all__ = ["beam_search", "contrastive_search", "one_by_one", "speculate"]
