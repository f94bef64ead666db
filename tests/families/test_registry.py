"""Families are found by name, imported when asked for, and weigh nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import loquent
from loquent import ConfigError
from loquent.families import family, family_of, model_types


def test_model_types_are_those_of_config_files() -> None:
    assert model_types() == ("doge", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "llama")
    for model_type in model_types():
        found = family(model_type)
        assert found.model_type == found.config.model_type == model_type
        assert family_of(found.config()) is found


def test_unknown_model_types_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'bloom'.*gpt_bigcode"):
        family("bloom")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"model_type": "bloom"}', "bloom"),
        ("{}", "model_type=None"),
        ('{"model_type": ["gpt2"]}', "model_type"),
        ('["gpt2"]', "list"),
        ("{", "JSON"),
    ],
)
def test_strange_config_files_are_config_errors(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        loquent.AutoConfig.from_pretrained(tmp_path)


def test_auto_config_overrides_fields_and_hands_back_the_rest(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 2}))
    config, rest = loquent.AutoConfig.from_pretrained(tmp_path, n_head=4, other=1, return_unused_kwargs=True)
    assert isinstance(config, loquent.GPT2Config)
    assert (config.n_layer, config.n_head, rest) == (2, 4, {"other": 1})
    with pytest.raises(loquent.ArgumentError, match="other"):
        loquent.AutoConfig.from_pretrained(tmp_path, other=1)


def test_composing_needs_neither_torch_nor_numpy() -> None:
    program = """
import sys
from loquent.families import family, model_types
import loquent.families.auto
for model_type in model_types():
    found = family(model_type)
    config = found.config()
    assert found.compose(config).blocks and found.names(config).pieces
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "jax", "transformers"}))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
