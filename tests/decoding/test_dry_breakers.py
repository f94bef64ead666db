"""Sequence breakers of DRY: every way in which tokens write a text, and what a breaker changes when a model writes."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models

import loquent
from decoding.pairs import MakePair
from loquent.decoding.arguments.dry_breakers import breakers_of

PIECES = ("a", "b", "c", ":", "a:", ":b", "--", "-", "x-", "b-", "\n")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Pieces of text, some of which hold a breaker or a part of one."""
    backend = Tokenizer(models.BPE(vocab={piece: at for at, piece in enumerate(PIECES)}, merges=[]))
    backend.decoder = decoders.Fuse()
    return loquent.PreTrainedTokenizerFast(tokenizer_object=backend)


def test_all_tokens_that_contain_a_breaker_are_breakers(tokenizer: Any) -> None:
    assert set(breakers_of([":"], tokenizer)) == {(3,), (4,), (5,)}
    assert set(breakers_of(["\n", 2], tokenizer)) == {(10,), (2,)}


def test_longer_breakers_may_begin_in_one_token_and_end_in_others(tokenizer: Any) -> None:
    assert set(breakers_of(["--"], tokenizer)) == {(6,), (6, 7), (7, 7), (8, 7), (9, 7)}


def test_no_breaker_needs_no_tokenizer() -> None:
    assert breakers_of([], None) == ()
    assert breakers_of([4, 4, 2], None) == ((4,), (2,))


def test_a_breaker_lets_a_model_repeat(tokenizer: Any, llama_pair: MakePair) -> None:
    """Greedy text that loops: DRY ends the loop, and does nothing where each of its tokens is a breaker."""
    model, _ = llama_pair(2)
    prompt = [[1, 2, 3, 1, 2, 3, 1, 2]]
    plain = model.generate(prompt, max_new_tokens=30)[0].tolist()
    arguments = {"max_new_tokens": 30, "dry_multiplier": 10.0, "tokenizer": tokenizer}
    held = model.generate(prompt, dry_sequence_breakers=[], **arguments)[0].tolist()
    assert held != plain
    pairs = [tuple(held[at : at + 4]) for at in range(8, len(held) - 3)]
    assert len(set(pairs)) == len(pairs)
    broken = model.generate(prompt, dry_sequence_breakers=sorted(set(plain)), **arguments)[0].tolist()
    assert broken == plain
    assert model.generate(prompt, **arguments)[0].tolist() != plain  # the default ones are those of the tokenizer
