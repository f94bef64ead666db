"""Doge where mask values tie: transformers keeps any of the keys, we keep the latest, whatever the batch looks like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from checkpoints import assert_close, config_of, tensors_of
from random_weights import VOCABULARY, randomize
from torch import Tensor

import loquent

KEPT, LENGTH = 5, 20


def _save(folder: Path, *, all_tie: bool, **switches: Any) -> None:
    model = transformers.AutoModelForCausalLM.from_config(
        config_of("doge", num_key_value_heads=2, **switches), attn_implementation="eager"
    ).eval()
    randomize(model)
    if all_tie:
        for layer in model.model.layers:
            torch.nn.init.zeros_(layer.self_attn.A)  # as in a fresh model
    model.save_pretrained(folder)


@pytest.fixture(scope="module", params=["all tie", "equal tokens tie"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("doge")
    _save(folder, all_tie=request.param == "all tie", keep_window_size=KEPT)
    return loquent.AutoModelForCausalLM.from_pretrained(folder)


def _repetitive(rows: int) -> Tensor:
    return torch.randint(3, (rows, LENGTH), generator=torch.Generator().manual_seed(0)) % VOCABULARY


@torch.no_grad()
def test_the_latest_of_equal_keys_are_kept(tmp_path: Path) -> None:
    # With all values equal that is a sliding window, which transformers has too.
    _save(tmp_path / "kept", all_tie=True, keep_window_size=KEPT)
    _save(tmp_path / "window", all_tie=True, sliding_window=KEPT)
    assert all(
        torch.equal(tensor, tensors_of(tmp_path / "kept")[name])
        for name, tensor in tensors_of(tmp_path / "window").items()
        if name != "model.norm.weight"  # scaled by each model's own logits
    )
    kept = loquent.AutoModel.from_pretrained(tmp_path / "kept")
    window = transformers.AutoModel.from_pretrained(tmp_path / "window", attn_implementation="eager").eval()
    tokens = _repetitive(1)
    found = kept(tokens, output_hidden_states=True).hidden_states[:-1]
    for ours, theirs in zip(found, window(tokens, output_hidden_states=True).hidden_states):
        assert_close(ours, theirs, 1e-4 * max(1.0, float(theirs.std())))


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_neighbors_change_nothing(model: Any, side: str) -> None:
    tokens, mask = _repetitive(4), torch.ones(4, LENGTH, dtype=torch.long)
    for row, padding in enumerate([0, 3, 9, 15]):
        mask[row, slice(padding) if side == "left" else slice(LENGTH - padding, None)] = 0
    found = model(tokens, attention_mask=mask).logits
    for row, real in enumerate(mask.bool()):
        assert_close(found[row, real], model(tokens[row : row + 1, real]).logits[0], 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1] * LENGTH, [7, 1, 6, 6], [19, 1]])
def test_chunks_change_nothing(model: Any, sizes: list[int]) -> None:
    tokens, cache, pieces = _repetitive(2), None, []
    for piece in tokens.split(sizes, dim=1):
        output = model(piece, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        pieces.append(output.logits)
    assert_close(torch.cat(pieces, 1), model(tokens).logits, 1e-5)


@torch.no_grad()
def test_generating_in_a_batch_changes_nothing(model: Any) -> None:
    tokens = _repetitive(3)[:, :9]
    mask = torch.ones_like(tokens)
    mask[1, :4] = 0
    mask[2, :8] = 0
    found = model.generate(tokens, attention_mask=mask, max_new_tokens=12, do_sample=False)
    for row, real in enumerate(mask.bool()):
        alone = tokens[row : row + 1, real]
        expected = model.generate(alone, attention_mask=torch.ones_like(alone), max_new_tokens=12, do_sample=False)
        assert found[row, 9:].tolist() == expected[0, alone.shape[1] :].tolist()
