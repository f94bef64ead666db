"""`QuantizedCacheConfig` and the fields of a generation config that say how keys and values are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import loquent
from loquent import ArgumentError, GenerationConfig, QuantizedCacheConfig

FIELDS = ("backend", "nbits", "axis_key", "axis_value", "q_group_size", "residual_length", "compute_dtype", "device")


def test_fields_and_defaults_are_those_of_transformers_but_for_the_backend() -> None:
    theirs = transformers.QuantizedCacheConfig()
    assert tuple(vars(QuantizedCacheConfig())) == FIELDS
    differ = {"backend": "native", "compute_dtype": None, "device": None}
    assert vars(QuantizedCacheConfig()) == {**vars(theirs), **differ}
    # What the model computes with is found, not told.
    assert QuantizedCacheConfig().to_dict() == {name: vars(theirs)[name] for name in FIELDS[1:6]} | {
        "backend": "native"
    }


def test_none_stands_for_a_default() -> None:
    assert QuantizedCacheConfig(nbits=None, q_group_size=None) == QuantizedCacheConfig()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backend": "fp8"}, 'backend=\'fp8\' cannot work. Pass "native", "quanto" or "HQQ"'),
        ({"backend": 3}, "backend=3 cannot work"),
        ({"nbits": 3}, "nbits=3 cannot work. Pass one of 1, 2, 4 or 8, which backend='native' has"),
        ({"nbits": 8, "backend": "quanto"}, "nbits=8 cannot work. Pass one of 2 or 4, which backend='quanto'"),
        ({"nbits": 5, "backend": "HQQ"}, "nbits=5 cannot work. Pass one of 1, 2, 3, 4 or 8, which backend='HQQ'"),
        ({"nbits": "4"}, "nbits='4' cannot work"),
        ({"axis_key": 1}, "axis_key=1 cannot work.*groups keys by channel and values by token"),
        ({"axis_value": -1}, "axis_value=-1 cannot work.*groups keys by channel and values by token"),
        ({"axis_key": 1, "backend": "quanto"}, "axis_key=1 cannot work. Pass one of 0 or -1"),
        ({"axis_value": -1, "backend": "hqq"}, "axis_value=-1 cannot work. Pass one of 0 or 1"),
        ({"q_group_size": 0}, "q_group_size=0 cannot work. Pass a multiple of 16, at most 1024"),
        ({"q_group_size": 24}, "q_group_size=24"),
        ({"q_group_size": 1040}, "q_group_size=1040"),
        ({"q_group_size": 64.0}, "q_group_size=64.0"),
        ({"residual_length": 0}, "residual_length=0 cannot work.*a token always sees itself"),
        ({"residual_length": True}, "residual_length=True"),
        ({"residual_length": 1 << 40}, "residual_length="),
    ],
)
def test_what_cannot_work_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    for made in (lambda: QuantizedCacheConfig(**fields), lambda: QuantizedCacheConfig.from_dict(fields)):
        with pytest.raises(ArgumentError, match=f"^cache_config: .*{message}"):
            made()


@pytest.mark.parametrize(
    "fields",
    [
        {"nbits": 1},
        {"nbits": 8, "q_group_size": 1024, "residual_length": 1},
        {"backend": "quanto", "nbits": 2, "axis_key": -1},
        {"backend": "HQQ", "nbits": 3, "axis_key": 1, "axis_value": 1, "q_group_size": 16},
        {"backend": "hqq", "compute_dtype": torch.bfloat16, "device": torch.device("cuda:1")},
    ],
)
def test_a_dictionary_of_it_makes_it_again(fields: dict[str, Any]) -> None:
    config = QuantizedCacheConfig(**fields)
    assert QuantizedCacheConfig.from_dict(config.to_dict()) == config
    assert QuantizedCacheConfig.from_dict(json.loads(config.to_json_string())) == config
    assert QuantizedCacheConfig.from_dict({}, **fields) == config


def test_types_and_devices_are_kept_as_text() -> None:
    config = QuantizedCacheConfig(compute_dtype=torch.bfloat16, device=torch.device("cuda:1"))  # type: ignore[arg-type]
    assert (config.compute_dtype, config.device) == ("bfloat16", "cuda:1")


def test_an_unknown_field_is_an_error_with_a_hint() -> None:
    with pytest.raises(ArgumentError, match=r"has no field 'n_bits'. Did you mean 'nbits'"):
        QuantizedCacheConfig.from_dict({"n_bits": 4})
    with pytest.raises(ArgumentError, match=r"has no field 'zebra'. It has axis_key, axis_value, backend"):
        QuantizedCacheConfig.from_dict({"zebra": 4})


def test_updating_sets_what_it_has_and_gives_the_rest_back() -> None:
    config = QuantizedCacheConfig()
    assert config.update(nbits=2, zebra=1) == {"zebra": 1}
    assert config == QuantizedCacheConfig(nbits=2)
    with pytest.raises(ArgumentError, match="nbits=3"):
        config.update(residual_length=5, nbits=3)
    assert config == QuantizedCacheConfig(nbits=2)


# --- in a generation config -------------------------------------------------------------------------------------------


def test_a_config_and_its_dictionary_are_one_in_a_generation_config() -> None:
    config = QuantizedCacheConfig(nbits=2, backend="HQQ", compute_dtype="float32")
    made = GenerationConfig(cache_implementation="quantized", cache_config=config)
    assert made.cache_config == config.to_dict()
    assert made == GenerationConfig(cache_implementation="quantized", cache_config=config.to_dict())
    given = {"nbits": 2, "compute_dtype": torch.float32, "device": torch.device("cpu")}
    kept = GenerationConfig(cache_implementation="quantized", cache_config=given)
    assert kept.cache_config == {"nbits": 2, "compute_dtype": "float32", "device": "cpu"}
    assert given["compute_dtype"] is torch.float32


@pytest.mark.parametrize(
    "fields",
    [
        {"cache_implementation": "quantized", "cache_config": {"nbits": 2, "backend": "HQQ", "residual_length": 32}},
        {"cache_implementation": "quantized", "cache_config": QuantizedCacheConfig(nbits=8)},
        {"cache_implementation": "offloaded", "offload_folder": Path("/var/tmp")},
        {"cache_implementation": "offloaded_static", "cache_config": {"offload_folder": Path("/var/tmp")}},
        {"cache_implementation": "static", "max_cache_len": 512},
        {"cache_implementation": "paged"},
    ],
    ids=lambda fields: fields["cache_implementation"],
)
def test_files_keep_the_fields(fields: dict[str, Any], tmp_path: Path) -> None:
    config = GenerationConfig(**fields)
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "generation_config.json").read_text())
    assert stored["cache_implementation"] == fields["cache_implementation"]
    loaded = GenerationConfig.from_pretrained(tmp_path)
    assert loaded == config
    assert (loaded.cache_config, loaded.offload_folder) == (config.cache_config, config.offload_folder)


NAMES_OF_TRANSFORMERS = """
dynamic static offloaded offloaded_static sliding_window hybrid hybrid_chunked offloaded_hybrid quantized
"""


@pytest.mark.parametrize("name", NAMES_OF_TRANSFORMERS.split())
def test_what_transformers_writes_is_read_and_the_other_way_round(name: str, tmp_path: Path) -> None:
    cache_config = {"nbits": 2, "backend": "quanto", "axis_key": 0} if name == "quantized" else None
    theirs = transformers.GenerationConfig(cache_implementation=name, cache_config=cache_config)
    theirs.save_pretrained(tmp_path)
    ours = GenerationConfig.from_pretrained(tmp_path)
    assert (ours.cache_implementation, ours.cache_config) == (name, cache_config)
    ours.save_pretrained(tmp_path / "ours")
    again = transformers.GenerationConfig.from_pretrained(tmp_path / "ours")
    assert (again.cache_implementation, again.cache_config) == (name, cache_config)


def test_the_class_is_public() -> None:
    assert loquent.QuantizedCacheConfig is QuantizedCacheConfig
