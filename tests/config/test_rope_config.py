"""Rotary fields in both spellings, against transformers 4.55.4's reading of the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from loquent.config import RotaryConfig
from loquent.errors import ConfigError
from loquent.parts import DynamicScaling, LinearScaling, Llama3Scaling, LongRopeScaling, Rotary, YarnScaling


class Rotating(RotaryConfig):
    """A config with Llama's names."""

    model_type = "llama"

    hidden_size: int = 64
    num_attention_heads: int = 4
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    tie_word_embeddings: bool = False


class Partly(RotaryConfig):
    """A config with GPT-NeoX's names."""

    model_type = "gpt_neox"
    attribute_map = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}  # noqa: RUF012

    hidden_size: int = 64
    num_attention_heads: int = 4
    rotary_pct: float = 0.25
    rotary_emb_base: float = 10000
    max_position_embeddings: int = 2048
    rope_scaling: dict[str, Any] | None = None


FACTORS = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 512}
SCALINGS: list[tuple[dict[str, Any], Any]] = [
    ({"rope_type": "default"}, None),
    ({"rope_type": "linear", "factor": 2.0}, LinearScaling(2.0)),
    ({"rope_type": "dynamic", "factor": 3}, DynamicScaling(3.0, 2048)),
    ({"rope_type": "yarn", "factor": 2.0}, YarnScaling(2.0, 2048)),
    (
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 512,
            "beta_fast": 9,
            "truncate": False,
        },
        YarnScaling(4.0, 512, beta_fast=9.0, truncate=False),
    ),
    (
        {"rope_type": "longrope", **FACTORS, "original_max_position_embeddings": 512},
        LongRopeScaling((1.0,) * 8, (2.0,) * 8, 512, 4.0),
    ),
    ({"rope_type": "longrope", **FACTORS, "factor": 2.0}, LongRopeScaling((1.0,) * 8, (2.0,) * 8, 2048, 2.0)),
    ({"rope_type": "llama3", **LLAMA3}, Llama3Scaling(8.0, 1.0, 4.0, 512)),
]


@pytest.mark.parametrize(("scaling", "part"), SCALINGS)
def test_both_spellings_give_one_part(scaling: dict[str, Any], part: Any) -> None:
    old = Rotating(rope_theta=5e5, rope_scaling=scaling)
    new = Rotating(rope_parameters={**scaling, "rope_theta": 5e5})
    legacy = Rotating(
        rope_theta=5e5, rope_scaling={"type" if key == "rope_type" else key: scaling[key] for key in scaling}
    )
    wanted = Rotary(16, 5e5, 2048, part)
    assert old.rotary(16) == new.rotary(16) == legacy.rotary(16) == wanted
    assert dict(new.rope_parameters) == {**scaling, "rope_theta": 5e5} == dict(old.rope_parameters)
    both = Rotating(rope_theta=5e5, rope_scaling=scaling, rope_parameters={**scaling, "rope_theta": 5e5})
    assert both.rotary(16) == wanted


@pytest.mark.parametrize(("scaling", "part"), SCALINGS)
def test_files_come_out_as_they_went_in_and_load_in_transformers(
    tmp_path: Path, scaling: dict[str, Any], part: Any
) -> None:
    for number, fields in enumerate(
        [{"rope_theta": 5e5, "rope_scaling": scaling}, {"rope_parameters": {**scaling, "rope_theta": 5e5}}]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", **fields}))
        config = Rotating.from_pretrained(folder)
        config.save_pretrained(folder)
        again = json.loads((folder / "config.json").read_text())
        assert {name: again[name] for name in fields} == fields
        assert Rotating.from_pretrained(folder).rotary(16) == config.rotary(16)
        theirs = transformers.AutoConfig.from_pretrained(folder, num_attention_heads=4, hidden_size=64)
        assert theirs.rope_theta == 5e5
        if part is not None:
            assert theirs.rope_scaling == scaling
        if isinstance(part, LongRopeScaling) and "original_max_position_embeddings" in scaling:
            assert theirs.original_max_position_embeddings == 512


def test_the_original_length_may_stand_beside_the_scaling() -> None:
    config = Rotating(rope_scaling={"rope_type": "longrope", **FACTORS}, original_max_position_embeddings=512)
    assert config.rotary(16).scaling == SCALINGS[5][1]
    with pytest.raises(ConfigError, match="contradicts"):
        Rotating(rope_scaling=SCALINGS[5][0], original_max_position_embeddings=256)


def test_partial_rotary_under_other_names(tmp_path: Path) -> None:
    config = Partly(rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5})
    assert (config.rotary_pct, config.rotary_emb_base, config.rope_theta) == (0.5, 500.0, 500.0)
    assert config.rotary(16) == Rotary(8, 500.0, 2048)
    assert Partly().rotary(16).dimensions == 4
    config.save_pretrained(tmp_path)
    theirs = transformers.GPTNeoXConfig.from_pretrained(tmp_path)
    assert (theirs.rotary_pct, theirs.rotary_emb_base) == (0.5, 500.0)
    assert json.loads((tmp_path / "config.json").read_text())["rope_parameters"]["partial_rotary_factor"] == 0.5


def test_setting_either_spelling_changes_both() -> None:
    config = Rotating()
    config.rope_parameters = {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0}
    assert (config.rope_scaling, config.rope_theta) == ({"rope_type": "linear", "factor": 2.0}, 7.0)
    config.rope_scaling = None
    assert dict(config.rope_parameters) == {"rope_type": "default", "rope_theta": 7.0}
    with pytest.raises(TypeError):
        config.rope_parameters["rope_theta"] = 3  # type: ignore[index]


def test_theta_inside_an_old_dict_follows_a_change() -> None:
    config = Rotating.from_dict({"rope_scaling": {"type": "linear", "factor": 2.0, "rope_theta": 3.0}})
    assert config.rope_theta == 3.0
    assert config.to_dict()["rope_scaling"] == {"type": "linear", "factor": 2.0, "rope_theta": 3.0}
    config.rope_theta = 4.0
    assert Rotating.from_dict(config.to_dict()).rope_theta == 4.0


def test_overrides_of_one_spelling_win_over_the_other(tmp_path: Path) -> None:
    Rotating(rope_scaling={"rope_type": "linear", "factor": 2.0}).save_pretrained(tmp_path)
    config = Rotating.from_pretrained(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 9.0})
    assert config.rotary(16) == Rotary(16, 9.0, 2048)
    assert Rotating.from_pretrained(tmp_path, rope_theta=8.0).rope_parameters["rope_theta"] == 8.0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "2"}}, "factor='2'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": True}}, "factor=True"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 10**400}}, "factor=1000"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": -1}}, "factor=-1"),
        ({"rope_scaling": {"rope_type": "spiral", "factor": 2.0}}, "'spiral'.*linear, dynamic, yarn"),
        ({"rope_scaling": {"rope_type": ["linear"]}}, "linear"),
        ({"rope_scaling": [1]}, "dict or None is expected"),
        ({"rope_parameters": "linear"}, "dict or None is expected"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 0.5}}, "beta_fast"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": 1}}, "truncate"),
        ({"rope_scaling": {"rope_type": "longrope", **FACTORS}}, "original_max_position_embeddings"),
        ({"rope_scaling": {"rope_type": "longrope", **FACTORS, "factor": 2, "long_factor": [1, "2"]}}, "long_factor"),
        ({"rope_scaling": {"rope_type": "llama3", **LLAMA3, "high_freq_factor": 1.0}}, "high_freq_factor"),
        ({"rope_scaling": {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": 8.5}}, "positions"),
        ({"rope_theta": 2.0, "rope_parameters": {"rope_theta": 3.0}}, "contradicts"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}},
            "contradicts",
        ),
    ],
)
def test_what_makes_no_rotary_positions(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Rotating(**fields)


def test_longrope_needs_an_entry_for_each_pair() -> None:
    config = Rotating(rope_scaling=SCALINGS[5][0])
    with pytest.raises(ConfigError, match="8 entries, but 32 rotary dimensions need 16"):
        config.rotary(32)
    with pytest.raises(ConfigError, match="partial_rotary_factor"):
        Rotating(partial_rotary_factor=1.5).rotary(16)
