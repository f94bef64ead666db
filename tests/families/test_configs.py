"""The families' configs: fields and defaults as in transformers, both versions' spellings, and what is refused."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import transformers

import loquent
from loquent import ConfigError
from loquent.families import family, model_types
from loquent.parts import CrossDomainExperts, LinearScaling, Rotary


@pytest.mark.parametrize("model_type", model_types())
def test_fields_defaults_and_their_order_are_those_of_transformers(model_type: str) -> None:
    ours, theirs = family(model_type).config(), transformers.AutoConfig.for_model(model_type)
    names = [name for name in inspect.signature(type(theirs).__init__).parameters if name not in ("self", "kwargs")]
    assert {name: getattr(ours, name) for name in names} == {name: getattr(theirs, name) for name in names}
    assert list(ours._table.own)[: len(names)] == names
    for common in ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"):
        assert getattr(ours, common) == getattr(theirs, common)
    for common in ("tie_word_embeddings", "pad_token_id", "is_encoder_decoder", "num_labels"):
        assert getattr(ours, common) == getattr(theirs, common)


@pytest.mark.parametrize("model_type", model_types())
def test_a_file_of_transformers_is_written_again_as_it_was(model_type: str, tmp_path: Path) -> None:
    transformers.AutoConfig.for_model(model_type, unknown_field=[1]).save_pretrained(tmp_path)
    before = json.loads((tmp_path / "config.json").read_text())
    config = loquent.AutoConfig.from_pretrained(tmp_path)
    assert type(config) is family(model_type).config
    config.save_pretrained(tmp_path / "again")
    after = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {name: after.get(name) for name in before} == before
    assert _as_transformers_reads(tmp_path / "again") == _as_transformers_reads(tmp_path)


def _as_transformers_reads(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = transformers.AutoConfig.from_pretrained(folder).to_dict()
    fields.pop("_name_or_path")
    fields.pop("rope_parameters", None)  # for 5.x, which reads nothing else
    return fields


def test_neox_takes_all_spellings_of_its_rotary_fields() -> None:
    expected = Rotary(4, 500.0, 2048, LinearScaling(2.0))
    shape = {"hidden_size": 32, "num_attention_heads": 4}
    scaling = {"rope_type": "linear", "factor": 2.0}
    for fields in (
        {"rotary_pct": 0.5, "rotary_emb_base": 500, "rope_scaling": scaling},
        {"partial_rotary_factor": 0.5, "rope_theta": 500, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {**scaling, "rope_theta": 500, "partial_rotary_factor": 0.5}},
    ):
        config = loquent.GPTNeoXConfig(**shape, **fields)
        assert family("gpt_neox").compose(config).blocks[0].attention.rotary == expected
        assert (config.rotary_pct, config.rotary_emb_base) == (0.5, 500)


def test_neo_takes_attention_layers_in_place_of_types() -> None:
    config = loquent.GPTNeoConfig(num_layers=3, attention_layers=["local", "global", "local"])
    assert config.attention_layers == ["local", "global", "local"]
    windows = [block.attention.window for block in family("gpt_neo").compose(config).blocks]
    assert windows == [256, None, 256]
    config.attention_types = [[["global"], 3]]
    assert config.attention_layers == ["global"] * 3
    with pytest.raises(ConfigError, match="contradicts attention_types"):
        loquent.GPTNeoConfig(num_layers=1, attention_types=[[["global"], 1]], attention_layers=["local"])


def test_bigcode_counts_key_heads_itself() -> None:
    assert loquent.GPTBigCodeConfig().num_key_value_heads == 1
    assert loquent.GPTBigCodeConfig(multi_query=False, n_head=6).num_key_value_heads == 6


def test_doge_saves_its_own_fields_only_where_they_were_set(tmp_path: Path) -> None:
    loquent.DogeConfig().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert not {"router_layout", "head_dim"} & set(saved)
    moe = loquent.DogeConfig(is_moe=True, router_layout="flattened")
    moe.save_pretrained(tmp_path)
    again = loquent.AutoConfig.from_pretrained(tmp_path)
    experts = family("doge").compose(again).blocks[0].mlp
    assert isinstance(experts, CrossDomainExperts)
    assert experts.routing == "flattened"
    assert not family("doge").compose(again).incremental
    assert family("doge").compose(loquent.DogeConfig(is_moe=True)).incremental


REFUSED: dict[str, list[tuple[dict[str, Any], str]]] = {
    "llama": [
        ({"hidden_size": 100, "num_attention_heads": 3}, "hidden_size=100"),
        ({"num_attention_heads": 6, "hidden_size": 48, "num_key_value_heads": 4}, "num_attention_heads=6"),
        ({"num_key_value_heads": 0}, "num_key_value_heads=0"),
        ({"head_dim": 7}, "7"),
        ({"head_dim": -2}, "head_dim=-2"),
        ({"hidden_act": "gelo"}, "hidden_act='gelo'.*quick_gelu"),
        ({"attention_dropout": 1.5}, "attention_dropout=1.5"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps=-1.0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000"),
        ({"vocab_size": 0}, "vocab_size=0"),
        ({"hidden_size": "wide"}, "hidden_size='wide'"),
        ({"rope_theta": 0.0}, "rope_theta=0.0"),
        ({"head_dim": 2, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_scaling": {"rope_type": "sideways"}}, "sideways"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
    ],
    "gpt2": [
        ({"n_embd": 10, "n_head": 4}, "n_embd=10"),
        ({"n_inner": 0}, "n_inner=0"),
        ({"activation_function": "none"}, "activation_function='none'"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"n_positions": -5}, "n_positions=-5"),
        ({"resid_pdrop": -0.1}, "resid_pdrop=-0.1"),
        ({"scale_attn_weights": "yes"}, "scale_attn_weights='yes'"),
    ],
    "gpt_neo": [
        ({"num_layers": 2}, "describes 24 layers, but num_layers=2"),
        ({"num_layers": 1, "attention_types": [[["sideways"], 1]]}, "sideways"),
        ({"num_layers": 1, "attention_types": [[["global"], 10**12]]}, "attention_types"),
        ({"num_layers": 1, "attention_types": [["global", 1]]}, "attention_types"),
        ({"num_layers": 1, "attention_types": "global"}, "attention_types"),
        ({"window_size": 0}, "window_size=0"),
        ({"hidden_size": 10, "num_heads": 4}, "hidden_size=10"),
    ],
    "gpt_bigcode": [
        ({"n_embd": 10, "n_head": 4}, "n_embd=10"),
        ({"add_cross_attention": True, "multi_query": False}, "add_cross_attention=True"),
        ({"n_inner": -1}, "n_inner=-1"),
    ],
    "gpt_neox": [
        ({"hidden_size": 100, "num_attention_heads": 3}, "hidden_size=100"),
        ({"rotary_pct": 0.0}, "rotary_pct|partial_rotary_factor"),
        ({"rotary_pct": 1.5}, "rotary_pct|partial_rotary_factor"),
        ({"rotary_pct": 0.5, "partial_rotary_factor": 0.25}, "contradicts"),
        ({"hidden_act": "x"}, "hidden_act='x'"),
    ],
    "doge": [
        ({"keep_window_size": 0}, "keep_window_size=0"),
        ({"sliding_window": 0}, "sliding_window=0"),
        ({"is_moe": True, "num_experts": 10, "num_experts_per_tok": 10}, "num_experts_per_tok=10.*9 experts"),
        ({"is_moe": True, "num_experts": 10**12}, "num_experts=1000000000000"),
        ({"router_layout": "sideways"}, "router_layout='sideways'"),
        ({"num_key_value_heads": 3}, "num_attention_heads=8"),
    ],
}


@pytest.mark.parametrize(
    ("model_type", "fields", "said"),
    [(model_type, *case) for model_type, cases in REFUSED.items() for case in cases],
    ids=lambda value: str(value)[:60],
)
def test_configs_that_make_no_model_are_refused_by_name(model_type: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        loquent.AutoConfig.for_model(model_type, **fields)


def test_dropouts_reach_the_composition() -> None:
    gpt2 = family("gpt2").compose(loquent.GPT2Config(resid_pdrop=0.3, embd_pdrop=0.2, attn_pdrop=0.4))
    assert (gpt2.blocks[0].dropout, gpt2.embedding_dropout, gpt2.blocks[0].attention.dropout) == (0.3, 0.2, 0.4)
    neox = family("gpt_neox").compose(loquent.GPTNeoXConfig(hidden_dropout=0.3, attention_dropout=0.4))
    assert (neox.blocks[0].dropout, neox.embedding_dropout, neox.blocks[0].attention.dropout) == (0.3, 0.3, 0.4)
    doge = family("doge").compose(loquent.DogeConfig(hidden_dropout=0.3, attention_dropout=0.4))
    assert (doge.blocks[0].dropout, doge.embedding_dropout, doge.blocks[0].attention.dropout) == (0.3, 0.0, 0.4)


def test_scalings_extend_the_positions_that_generating_may_reach() -> None:
    def reached(**fields: Any) -> int | None:
        return family("llama").compose(loquent.LlamaConfig(max_position_embeddings=100, **fields)).max_positions

    assert reached() == 100
    assert reached(rope_scaling={"rope_type": "linear", "factor": 3.0}) == 300
    assert reached(rope_scaling={"rope_type": "dynamic", "factor": 2.5}) == 250
    assert reached(rope_scaling={"rope_type": "yarn", "factor": 4.0}) == 400
    original = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 25}
    assert reached(rope_scaling=original) == 100
