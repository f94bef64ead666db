"""Checkpoints in both directions: nothing is lost, renamed or left unused on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from checkpoints import (
    ACTIVATION_FIELD,
    ALL_ACTIVATIONS,
    LENGTH,
    SWITCHES,
    MakePair,
    Pair,
    assert_close,
    config_fields,
    config_of,
    make,
    rewrite,
    tensors_of,
)
from random_weights import ids

import loquent
from loquent.families import family_of
from loquent.torch.loading import wanted_tensors


@torch.no_grad()
def test_saved_by_us_and_loaded_by_transformers(pair: Pair, tmp_path: Path) -> None:
    pair.ours.save_pretrained(tmp_path)
    before, after = tensors_of(pair.folder), tensors_of(tmp_path)
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor), name
    fields, saved = config_fields(pair.folder), config_fields(tmp_path)
    assert {name: saved.get(name) for name in fields} == fields
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    again(ids(1, 1))
    assert torch.equal(again(ids(1, LENGTH)).logits, pair.reference.logits)


@torch.no_grad()
def test_every_tensor_matters(pair: Pair) -> None:
    canonical, expected = wanted_tensors(pair.ours), pair.ours(ids(1, LENGTH)).logits
    pieces = [piece for piece in family_of(pair.ours.config).names(pair.ours.config).pieces if piece.ours in canonical]
    assert len(pieces) == len(tensors_of(pair.folder))
    for piece in pieces:
        whole = canonical[piece.ours]
        part = whole if piece.rows is None else whole[slice(*piece.rows)]
        before = part.clone()
        part.add_(torch.randn(part.shape, generator=torch.Generator().manual_seed(0)))
        changed = (pair.ours(ids(1, LENGTH)).logits - expected).abs().max()
        part.copy_(before)
        assert changed > 1e-4, f"{piece.theirs} has no effect"
    assert torch.equal(pair.ours(ids(1, LENGTH)).logits, expected)


@torch.no_grad()
@pytest.mark.parametrize("family", SWITCHES)
def test_every_tensor_of_a_file_matters(make_pair: MakePair, family: str, tmp_path: Path) -> None:
    pair = make_pair(family, next(iter(SWITCHES[family])))
    expected = pair.ours(ids(1, LENGTH)).logits
    for count, (name, tensor) in enumerate(tensors_of(pair.folder).items()):
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
        rewrite(pair.folder, tmp_path / str(count), {**tensors_of(pair.folder), name: tensor + noise})
        changed = loquent.AutoModelForCausalLM.from_pretrained(tmp_path / str(count))(ids(1, LENGTH)).logits
        assert (changed - expected).abs().max() > 1e-4, f"{name} has no effect"


@torch.no_grad()
@pytest.mark.parametrize("family", SWITCHES)
def test_base_models_with_and_without_the_prefix_of_heads(make_pair: MakePair, family: str, tmp_path: Path) -> None:
    pair = make_pair(family, next(iter(SWITCHES[family])))
    expected = pair.theirs.base_model(ids(1, LENGTH)).last_hidden_state
    from_heads = loquent.AutoModel.from_pretrained(pair.folder)
    assert_close(from_heads(ids(1, LENGTH)).last_hidden_state, expected)
    pair.theirs.base_model.save_pretrained(tmp_path / "theirs")
    from_base = loquent.AutoModel.from_pretrained(tmp_path / "theirs")
    assert torch.equal(from_base(ids(1, LENGTH)).last_hidden_state, from_heads(ids(1, LENGTH)).last_hidden_state)
    from_base.save_pretrained(tmp_path / "ours")
    before, after = tensors_of(tmp_path / "theirs"), tensors_of(tmp_path / "ours")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    again = transformers.AutoModel.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    assert_close(again(ids(1, LENGTH)).last_hidden_state, expected, 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("family", [family for family in SWITCHES if "tied" in str(SWITCHES[family])])
def test_a_stored_head_is_ignored_where_it_is_tied(make_pair: MakePair, family: str, tmp_path: Path) -> None:
    tied = next((name for name, switches in SWITCHES[family].items() if switches.get("tie_word_embeddings")), None)
    pair = make_pair(family, tied or next(iter(SWITCHES[family])))
    head = "embed_out.weight" if family == "gpt_neox" else "lm_head.weight"
    assert head not in tensors_of(pair.folder)
    stale = {**tensors_of(pair.folder), head: torch.zeros_like(pair.theirs.get_input_embeddings().weight)}
    rewrite(pair.folder, tmp_path / "stored", stale)
    model = loquent.AutoModelForCausalLM.from_pretrained(tmp_path / "stored")
    assert torch.equal(model(ids(1, LENGTH)).logits, pair.ours(ids(1, LENGTH)).logits)
    model.save_pretrained(tmp_path / "again")
    assert head not in tensors_of(tmp_path / "again")


BUFFERS: dict[str, list[str]] = {
    "llama": ["model.layers.0.self_attn.rotary_emb.inv_freq"],
    "gpt2": ["transformer.h.0.attn.bias", "h.1.attn.masked_bias"],
    "gpt_neo": ["transformer.h.0.attn.attention.bias", "transformer.h.2.attn.attention.masked_bias"],
    "gpt_bigcode": ["transformer.h.0.attn.bias"],
    "gpt_neox": [
        "gpt_neox.layers.0.attention.bias",
        "gpt_neox.layers.1.attention.masked_bias",
        "gpt_neox.layers.2.attention.rotary_emb.inv_freq",
    ],
    "doge": ["model.rotary_emb.inv_freq"],
}


@torch.no_grad()
@pytest.mark.parametrize("family", SWITCHES)
def test_buffers_of_older_versions_are_dropped(make_pair: MakePair, family: str, tmp_path: Path) -> None:
    pair = make_pair(family, next(iter(SWITCHES[family])))
    buffers = {name: torch.ones(1, 1, 4, 4, dtype=torch.uint8) for name in BUFFERS[family]}
    rewrite(pair.folder, tmp_path / "old", {**tensors_of(pair.folder), **buffers})
    model = loquent.AutoModelForCausalLM.from_pretrained(tmp_path / "old")
    assert torch.equal(model(ids(1, LENGTH)).logits, pair.ours(ids(1, LENGTH)).logits)
    rewrite(pair.folder, tmp_path / "strange", {**tensors_of(pair.folder), "h.0.attn.strange": torch.ones(1)})
    with pytest.raises(loquent.CheckpointError, match=r"h\.0\.attn\.strange"):
        loquent.AutoModelForCausalLM.from_pretrained(tmp_path / "strange")


@torch.no_grad()
@pytest.mark.parametrize("activation", ALL_ACTIVATIONS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_activation_function(family: str, activation: str, tmp_path: Path) -> None:
    switches: dict[str, Any] = {ACTIVATION_FIELD[family]: activation}
    make(tmp_path, config_of(family, **switches))
    pair = Pair(tmp_path, family, switches)
    assert_close(pair.ours(ids(1, LENGTH)).logits, pair.reference.logits)
