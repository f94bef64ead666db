"""Forward passes against transformers: whole, token by token, in chunks, padded, with everything they can return."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checkpoints import LENGTH, Pair, assert_close
from random_weights import ids


@torch.no_grad()
def _in_pieces(model: Any, tokens: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """The logits of `tokens` (1, length) read in pieces through the cache."""
    cache, logits = None, []
    for piece in torch.split(tokens, sizes, dim=1):
        output = model(piece, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        logits.append(output.logits)
    return torch.cat(logits, 1)


@torch.no_grad()
def test_logits_of_one_forward_pass(pair: Pair) -> None:
    assert 0.3 < pair.reference.logits.std() < 3
    assert_close(pair.ours(ids(1, LENGTH)).logits, pair.reference.logits)


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1] * LENGTH, [3, 1, 9, 2, 9]], ids=["token by token", "in chunks"])
def test_in_pieces_through_the_cache(pair: Pair, sizes: list[int]) -> None:
    tokens = ids(1, LENGTH)
    ours = _in_pieces(pair.ours, tokens, sizes)
    # Scalings that depend on the length mix frequencies here, in both libraries alike.
    expected = _in_pieces(pair.theirs, tokens, sizes) if pair.depends_on_length else pair.reference.logits
    assert_close(ours, expected)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_equal_transformers_alone(pair: Pair, side: str) -> None:
    lengths = [LENGTH, 7, 1, 18]
    tokens, mask = ids(len(lengths), LENGTH, seed=1), torch.zeros(len(lengths), LENGTH, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, slice(LENGTH - length, None) if side == "left" else slice(length)] = 1
    logits = pair.ours(tokens, attention_mask=mask).logits
    for row, real in enumerate(mask.bool()):
        assert_close(logits[row, real], pair.theirs_alone(tokens[row : row + 1, real]).logits[0])


@torch.no_grad()
def test_hidden_states_and_attentions_of_all_layers(pair: Pair) -> None:
    found = pair.ours(ids(1, LENGTH), output_hidden_states=True, output_attentions=True)
    assert len(found.hidden_states) == len(pair.reference.hidden_states)
    assert len(found.attentions) == len(pair.reference.attentions)
    for ours, theirs in zip(found.hidden_states, pair.reference.hidden_states):
        assert_close(ours, theirs, 1e-4 * max(1.0, float(theirs.std())))
    for ours, theirs in zip(found.attentions, pair.reference.attentions):
        assert_close(ours, theirs)


@torch.no_grad()
def test_loss(pair: Pair) -> None:
    tokens = ids(1, LENGTH)
    labels = tokens.clone()
    labels[:, 3:7] = -100
    assert_close(pair.ours(tokens, labels=labels).loss, pair.theirs_alone(tokens, labels=labels).loss, 1e-5)


@torch.no_grad()
def test_embeddings_and_positions_of_the_callers_own(pair: Pair) -> None:
    embeddings = torch.randn(1, 9, pair.theirs.config.hidden_size, generator=torch.Generator().manual_seed(5))
    positions = torch.tensor([[0, 1, 2, 7, 8, 9, 10, 11, 12]])
    given = {"inputs_embeds": embeddings, "position_ids": positions}
    pair.theirs(ids(1, 1))  # see `Pair.theirs_alone`
    assert_close(pair.ours(**given).logits, pair.theirs(**given).logits)


def test_gradients(pair: Pair) -> None:
    tokens = ids(1, 12, seed=2)
    gradients = []
    for model in (pair.ours, pair.theirs):
        embedding = model.get_input_embeddings().weight
        gradients.append(torch.autograd.grad(model(tokens, labels=tokens).loss, embedding)[0])
    assert_close(*gradients, at_most=1e-4 * max(1.0, float(gradients[1].abs().max())))


@torch.no_grad()
def test_last_logits_only(pair: Pair) -> None:
    assert_close(pair.ours(ids(1, LENGTH), logits_to_keep=2).logits, pair.reference.logits[:, -2:])
