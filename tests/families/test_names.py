"""Name tables against the tensors that transformers saves: all of them, in their shapes, and reversible bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.families import family
from loquent.weights import decoder_weights, head_weights

with warnings.catch_warnings():
    # It calls torch.jit.script when imported, which torch warns of.
    warnings.simplefilter("ignore", DeprecationWarning)
    import transformers
    import transformers.models.gpt_bigcode.modeling_gpt_bigcode

Draw = Callable[[st.SearchStrategy[Any]], Any]

_small, _few = st.integers(1, 9), st.integers(1, 3)
_switch = st.booleans()
_activation = st.sampled_from(["gelu", "prelu"])


def _shared(draw: Draw) -> dict[str, Any]:
    return {
        "vocab_size": draw(_small),
        "num_hidden_layers": draw(_few),
        "max_position_embeddings": draw(_small),
        "tie_word_embeddings": draw(_switch),
    }


def _grouped(draw: Draw) -> dict[str, Any]:
    key_heads, head_dim = draw(_few), 2 * draw(_few)
    heads = key_heads * draw(_few)
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "hidden_size": heads * head_dim,
        "head_dim": draw(st.sampled_from([2, head_dim])),
        "intermediate_size": draw(_small),
        "hidden_act": draw(_activation),
        "attention_bias": draw(_switch),
        "mlp_bias": draw(_switch),
    }


def _llama(draw: Draw) -> dict[str, Any]:
    return _shared(draw) | _grouped(draw)


def _doge(draw: Draw) -> dict[str, Any]:
    experts = draw(st.integers(1, 17))
    moe = {"is_moe": draw(_switch), "num_experts": experts, "num_experts_per_tok": 1}
    return _shared(draw) | _grouped(draw) | moe


def _gpt2(draw: Draw) -> dict[str, Any]:
    heads = draw(_few)
    return {
        **_shared(draw),
        "num_attention_heads": heads,
        "hidden_size": heads * draw(_small),
        "n_inner": draw(st.none() | _small),
        "activation_function": draw(_activation),
    }


def _gpt_bigcode(draw: Draw) -> dict[str, Any]:
    return _gpt2(draw) | {"multi_query": draw(_switch)}


def _gpt_neo(draw: Draw) -> dict[str, Any]:
    shared, heads = _shared(draw), draw(_few)
    layers = shared.pop("num_hidden_layers")
    return {
        **shared,
        "num_layers": layers,
        "attention_types": [[["local"], layers]],
        "num_heads": heads,
        "hidden_size": heads * draw(_small),
        "intermediate_size": draw(st.none() | _small),
        "activation_function": draw(_activation),
    }


def _gpt_neox(draw: Draw) -> dict[str, Any]:
    heads = draw(_few)
    return {
        **_shared(draw),
        "num_attention_heads": heads,
        "hidden_size": heads * 2 * draw(_small),
        "intermediate_size": draw(_small),
        "rotary_pct": 1.0,
        "attention_bias": draw(_switch),
        "hidden_act": draw(_activation),
        "use_parallel_residual": draw(_switch),
    }


DRAWS: dict[str, Callable[[Draw], dict[str, Any]]] = {
    "llama": _llama,
    "doge": _doge,
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt_bigcode,
    "gpt_neo": _gpt_neo,
    "gpt_neox": _gpt_neox,
}


def _saved_by_transformers(model_type: str, fields: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(model_type, **fields))
    tied = set(model._tied_weights_keys) if fields["tie_word_embeddings"] else set()
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


@pytest.mark.parametrize("model_type", DRAWS)
@given(data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_all_tensors_that_transformers_saves_and_no_others(model_type: str, data: st.DataObject) -> None:
    fields, found = DRAWS[model_type](data.draw), family(model_type)
    config = found.config(**fields)
    decoder = found.compose(config)
    base, head = decoder_weights(decoder), head_weights(decoder)
    shapes = {}
    for piece in found.names(config).pieces:
        if piece.ours in base:
            shapes[f"{found.prefix}.{piece.theirs}"] = piece.shape_of_theirs(base[piece.ours])
        elif piece.ours in head:
            shapes[piece.theirs] = piece.shape_of_theirs(head[piece.ours])
        else:
            assert piece.ours == "head.weight", "a piece that fills nothing"
            assert decoder.head.tied
    assert shapes == _saved_by_transformers(model_type, fields)


@pytest.mark.parametrize("model_type", DRAWS)
@given(data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_round_trips_bit_for_bit_and_fills_every_number_once(model_type: str, data: st.DataObject) -> None:
    found = family(model_type)
    config = found.config(**DRAWS[model_type](data.draw))
    decoder = found.compose(config)
    wanted = decoder_weights(decoder) | head_weights(decoder)
    ours = {name: np.full(shape, -1, np.int64) for name, shape in wanted.items()}
    theirs = {}
    for piece in found.names(config).pieces:
        if piece.ours in wanted:
            shape = piece.shape_of_theirs(wanted[piece.ours])
            start = sum(array.size for array in theirs.values())
            theirs[piece] = np.arange(start, start + prod(shape)).reshape(shape)
    for piece, array in theirs.items():
        rows = slice(None) if piece.rows is None else slice(*piece.rows)
        assert (ours[piece.ours][rows] == -1).all(), f"{piece.theirs} overlaps another"
        ours[piece.ours][rows] = piece.layout.to_ours(array)
    assert sorted(np.concatenate([array.ravel() for array in ours.values()]).tolist()) == list(
        range(sum(array.size for array in theirs.values()))
    )
    for piece, array in theirs.items():
        rows = slice(None) if piece.rows is None else slice(*piece.rows)
        assert np.array_equal(piece.layout.to_theirs(ours[piece.ours][rows]), array)
