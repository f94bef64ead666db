"""From `cache_implementation` and what goes with it to the kind of store, or a refusal that says what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loquent import ArgumentError, GenerationConfig, QuantizedCacheConfig
from loquent.cache import PLAIN, Coding, StoreKind
from loquent.decoding.arguments import Surroundings, resolve
from loquent.decoding.arguments.stores import store_of

MODEL = Surroundings(vocabulary=50, max_positions=64)
LOCAL = replace(MODEL, has_windows=True)
HALF = replace(MODEL, dtype="bfloat16", device="cuda:1")


def stored(around: Surroundings = MODEL, **fields: Any) -> StoreKind:
    return store_of(GenerationConfig(**fields), around)


@pytest.mark.parametrize("name", [None, "dynamic", "static", "paged", "dynamic_full", "hybrid", "hybrid_chunked"])
def test_stores_of_exact_pages_in_memory(name: str | None) -> None:
    assert stored(cache_implementation=name) == PLAIN
    [decoding] = resolve(GenerationConfig(cache_implementation=name), [1, 2], 0, MODEL)
    assert decoding.store == PLAIN


def test_a_sliding_window_is_for_models_with_windows() -> None:
    assert stored(LOCAL, cache_implementation="sliding_window") == PLAIN
    with pytest.raises(ArgumentError, match="cache_implementation='sliding_window' needs layers with a window"):
        stored(cache_implementation="sliding_window")


@pytest.mark.parametrize(
    ("given", "coding"),
    [
        (None, Coding()),
        ({}, Coding()),
        ({"backend": "native"}, Coding(bits=4, group=64, residual=128)),
        ({"nbits": 2, "q_group_size": 32, "residual_length": 16}, Coding(bits=2, group=32, residual=16)),
        (QuantizedCacheConfig(nbits=8), Coding(bits=8)),
        ({"backend": "quanto", "nbits": 2, "axis_key": -1}, Coding(bits=2, library="quanto", axis_key=-1)),
        ({"backend": "HQQ", "nbits": 3, "axis_value": 1}, Coding(bits=3, library="hqq", axis_value=1)),
        ({"backend": "hqq", "nbits": 1}, Coding(bits=1, library="hqq")),
    ],
)
def test_quantized_stores(given: Any, coding: Coding) -> None:
    assert stored(cache_implementation="quantized", cache_config=given) == StoreKind(coding=coding)
    config = GenerationConfig(cache_implementation="quantized", cache_config=given)
    [decoding] = resolve(config, [1, 2], 0, MODEL)
    assert decoding.store == StoreKind(coding=coding)


def test_the_type_and_the_device_are_those_of_the_model() -> None:
    def coded(around: Surroundings, **fields: Any) -> Any:
        return stored(around, cache_implementation="quantized", cache_config=fields)

    for fields in ({"compute_dtype": "float32"}, {"compute_dtype": "bfloat16", "device": "cuda"}, {"device": "cuda:1"}):
        assert coded(HALF, **fields) == StoreKind(coding=Coding())
    assert coded(HALF, backend="quanto", compute_dtype="bfloat16").coding == Coding(library="quanto")
    with pytest.raises(ArgumentError, match=r"compute_dtype='float32' .* backend='quanto' computes in bfloat16"):
        coded(HALF, backend="quanto", compute_dtype="float32")
    with pytest.raises(ArgumentError, match=r"compute_dtype='float16' .* backend='native' computes in float32"):
        coded(MODEL, compute_dtype="float16")
    with pytest.raises(ArgumentError, match=r"device='cuda:0' cannot work: .*where the model is, on 'cuda:1'"):
        coded(HALF, device="cuda:0")
    with pytest.raises(ArgumentError, match=r"device='cuda' cannot work: .*on 'cpu'. Leave it out"):
        coded(MODEL, device="cuda")


NAMES = ["offloaded", "offloaded_static", "offloaded_hybrid", "offloaded_hybrid_chunked"]


@pytest.mark.parametrize("name", NAMES)
def test_offloaded_stores(name: str, tmp_path: Path) -> None:
    assert stored(cache_implementation=name) == StoreKind(offloaded=True)
    there = StoreKind(offloaded=True, folder=str(tmp_path))
    assert stored(cache_implementation=name, offload_folder=tmp_path) == there
    assert stored(cache_implementation=name, cache_config={"offload_folder": str(tmp_path)}) == there
    both = {"cache_config": {"offload_folder": tmp_path}, "offload_folder": str(tmp_path)}
    assert stored(cache_implementation=name, **both) == there


def test_folders_are_there_and_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert stored(cache_implementation="offloaded", offload_folder="~").folder == str(tmp_path)
    with pytest.raises(ArgumentError, match=r"offload_folder='.*/away' is no folder. Make it"):
        stored(cache_implementation="offloaded", offload_folder=str(tmp_path / "away"))
    with pytest.raises(ArgumentError, match="offload_folder=3 is no folder"):
        stored(cache_implementation="offloaded", cache_config={"offload_folder": 3})
    with pytest.raises(ArgumentError, match=r"are two folders\. Pass one of them"):
        stored(cache_implementation="offloaded", offload_folder="/a", cache_config={"offload_folder": "/b"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cache_config": {"nbits": 2}}, "cache_config=.* has no effect with cache_implementation=None: .*'quantized'"),
        ({"cache_implementation": "static", "cache_config": {"nbits": 2}}, "cache_config=.*'static'"),
        (
            {"offload_folder": "/tmp"},
            "offload_folder='/tmp' has no effect with cache_implementation=None: .*'offloaded'",
        ),
        ({"cache_implementation": "paged", "offload_folder": "/tmp"}, "offload_folder='/tmp' has no effect"),
        ({"cache_implementation": "quantized", "offload_folder": "/tmp"}, "offload_folder='/tmp' has no effect"),
        ({"cache_implementation": "offloaded", "cache_config": {"nbits": 2}}, "cache_config=.*its pages are exact"),
        ({"cache_implementation": "quantized", "cache_config": {"offload_folder": "/"}}, "no field 'offload_folder'"),
        ({"cache_implementation": "quantized", "cache_config": {"nbits": 7}}, "nbits=7 cannot work"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        stored(**fields)


def test_what_was_set_later_wins(tmp_path: Path) -> None:
    quantized = {"cache_implementation": "quantized", "cache_config": {"nbits": 2}}
    offloaded = {"cache_implementation": "offloaded", "offload_folder": str(tmp_path)}
    for model in (GenerationConfig(**quantized), GenerationConfig.from_dict(quantized)):
        assert store_of(model.copy(cache_implementation="dynamic"), MODEL) == PLAIN
        assert store_of(model.copy(cache_implementation="offloaded"), MODEL) == StoreKind(offloaded=True)
        assert store_of(model.copy(cache_implementation="quantized"), MODEL).coding == Coding(bits=2)
        assert store_of(model.copy(cache_config={"nbits": 8}), MODEL).coding == Coding(bits=8)
        assert store_of(model.copy(cache_implementation=None), MODEL) == PLAIN
        assert store_of(GenerationConfig(cache_config={"nbits": 1}).over(model), MODEL).coding == Coding(bits=1)
    for model in (GenerationConfig(**offloaded), GenerationConfig.from_dict(offloaded)):
        assert store_of(model.copy(cache_implementation="quantized"), MODEL) == StoreKind(coding=Coding())
        with pytest.raises(ArgumentError, match="cache_config"):
            store_of(model.copy(cache_config={"nbits": 2}), MODEL)


def test_a_stored_setting_that_nothing_uses_is_left_alone() -> None:
    assert store_of(GenerationConfig.from_dict({"cache_config": {"nbits": 2}}), MODEL) == PLAIN
    stale = GenerationConfig.from_dict({"cache_implementation": "offloaded", "cache_config": {"nbits": 2}})
    assert store_of(stale, MODEL) == StoreKind(offloaded=True)
