"""Generation configs: fields and files as in transformers 4.55.4, and errors for what was asked for and cannot be."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

import loquent
from loquent.config import GenerationConfig, PretrainedConfig
from loquent.errors import ArgumentError, CheckpointError, ConfigError

OUR_OWN = {
    *("max_cache_len", "offload_folder"),
    *("seed", "output_trace", "response_format", "regex", "grammar", "choice"),
    *("top_h", "top_n_sigma", "frequency_penalty", "presence_penalty", "logit_bias", "allowed_token_ids"),
    *("dry_multiplier", "dry_base", "dry_allowed_length", "dry_sequence_breakers", "dry_range"),
    *("xtc_probability", "xtc_threshold", "mirostat_mode", "mirostat_tau", "mirostat_eta"),
}


def test_fields_and_defaults_are_those_of_transformers() -> None:
    theirs = transformers.GenerationConfig().to_dict()
    ours = GenerationConfig().to_dict()
    assert {name: ours[name] for name in theirs if name not in {"transformers_version", "_from_model_config"}} == {
        name: value for name, value in theirs.items() if name not in {"transformers_version", "_from_model_config"}
    }
    assert set(ours) - set(theirs) == OUR_OWN


def test_printing_shows_what_differs() -> None:
    config = GenerationConfig(bos_token_id=50256, eos_token_id=50256, transformers_version="4.55.4", max_length=20)
    assert str(config) == 'GenerationConfig {\n  "bos_token_id": 50256,\n  "eos_token_id": 50256\n}\n'
    assert str(GenerationConfig()) == "GenerationConfig {}\n"


def test_several_named_files_in_one_folder(tmp_path: Path) -> None:
    translating = GenerationConfig(
        num_beams=4, early_stopping=True, decoder_start_token_id=0, eos_token_id=1, pad_token=0, seed=3
    )
    translating.save_pretrained(tmp_path, "translation_generation_config.json")
    writing = GenerationConfig(do_sample=True, temperature=0.5, transformers_version="4.55.4")
    writing.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "generation_config.json",
        "translation_generation_config.json",
    ]
    again = GenerationConfig.from_pretrained(tmp_path, "translation_generation_config.json")
    assert again == translating
    assert (again.pad_token, again.seed) == (0, 3)
    assert GenerationConfig.from_pretrained(tmp_path) == writing
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path, "translation_generation_config.json")
    assert (theirs.num_beams, theirs.early_stopping, theirs.pad_token) == (4, True, 0)
    with pytest.raises(ArgumentError, match="config_file_name="):
        writing.save_pretrained(tmp_path, "../x.json")
    with pytest.raises(CheckpointError, match=r"absent\.json"):
        GenerationConfig.from_pretrained(tmp_path, "absent.json")


def test_every_field_of_a_file_is_written_again(tmp_path: Path) -> None:
    fields = {
        "_from_model_config": True,
        "transformers_version": "4.40.0",
        "temperature": 0.6,
        "top_p": None,
        "top_k": None,
        "eos_token_id": [1, 2],
        "exponential_decay_length_penalty": [5, 1.5],
        "sequence_bias": [[[1, 2], -3.0]],
        "my_field": {"a": [None]},
        "update": 1,
        "self": 2,
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(fields))
    config = GenerationConfig.from_pretrained(tmp_path)
    assert (config.top_p, config.top_k, config.my_field) == (1.0, None, {"a": [None]})
    config.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text()) == fields
    assert copy.deepcopy(config) == config == config.copy()


@pytest.mark.parametrize(
    "mark",
    [
        loquent.WatermarkingConfig(bias=1.5, seeding_scheme="selfhash", context_width=2),
        loquent.SynthIDTextWatermarkingConfig(ngram_len=5, keys=[654, 400], skip_first_ngram_calls=True),
    ],
    ids=["green list", "synthid"],
)
def test_fields_that_transformers_has_not_are_kept(tmp_path: Path, mark: Any) -> None:
    """JSON has no integer keys and no tuples, and a watermark is an object."""
    made = GenerationConfig(
        do_sample=True,
        top_h=0.4,
        logit_bias={7: -1.5},
        dry_multiplier=0.8,
        dry_sequence_breakers=["\n", 13],
        watermarking_config=mark,
    )
    made.save_pretrained(tmp_path)
    again = GenerationConfig.from_pretrained(tmp_path)
    assert again == made
    assert again.logit_bias == {7: -1.5}
    assert again.watermarking_config == mark
    assert GenerationConfig(watermarking_config=mark.to_dict()).watermarking_config == mark
    theirs = getattr(transformers, type(mark).__name__)(**mark.to_dict())
    assert GenerationConfig(watermarking_config=theirs).watermarking_config == mark
    assert theirs.to_dict() == mark.to_dict()
    assert json.loads(mark.to_json_string()) == mark.to_dict()
    assert made.copy() == made
    assert type(mark).from_dict(mark.to_dict()) == mark
    assert GenerationConfig().dry_sequence_breakers == ["\n", ":", '"', "*"]
    GenerationConfig().dry_sequence_breakers.append("x")
    assert GenerationConfig().dry_sequence_breakers == ["\n", ":", '"', "*"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"temperature": -0.1},
        {"temperature": 1e-308, "do_sample": True},
        {"temperature": 1e300, "do_sample": True},
        {"length_penalty": 1000.0, "num_beams": 2},
        {"length_penalty": -1000, "num_beams": 2},
        {"eos_token_id": 1 << 70},
        {"eos_token_id": [3, 1 << 70]},
        {"pad_token_id": 1 << 70},
        {"top_k": -1},
        {"min_p": 2},
        {"typical_p": 0},
        {"num_beams": 0},
        {"max_new_tokens": 0},
        {"max_length": "20"},
        {"max_length": 20.0},
        {"do_sample": 1},
        {"num_beams": True},
        {"repetition_penalty": 0},
        {"early_stopping": "sometimes"},
        {"eos_token_id": "</s>"},
        {"stop_strings": [1]},
        {"cache_implementation": "quantised"},
        {"cache_config": 4},
        {"cache_config": {"device", "nbits"}},
        {"offload_folder": 3},
        {"max_cache_len": 0},
        {"dola_layers": "middle"},
        {"bad_words_ids": [1]},
        {"seed": -1},
        {"top_h": 0.0},
        {"top_n_sigma": 0},
        {"logit_bias": {"a": 1.0}},
        {"logit_bias": {3: float("inf")}},
        {"allowed_token_ids": []},
        {"dry_multiplier": -0.5},
        {"dry_base": 0.5},
        {"dry_allowed_length": 0},
        {"dry_sequence_breakers": "abc"},
        {"dry_range": -1},
        {"xtc_probability": 1.5},
        {"xtc_threshold": -0.1},
        {"mirostat_mode": 1},
        {"mirostat_tau": 0},
        {"mirostat_eta": -1.0},
        {"exponential_decay_length_penalty": (3, 0.0)},
        {"exponential_decay_length_penalty": (-1, 1.5)},
        {"watermarking_config": 3},
        {"watermarking_config": {"greenlist_ratio": 1.0}},
        {"watermarking_config": {"seeding_scheme": "righthash"}},
        {"watermarking_config": {"colour": "green"}},
        {"watermarking_config": {"ngram_len": 5}},
        {"watermarking_config": {"ngram_len": 1, "keys": [1]}},
        {"watermarking_config": {"ngram_len": 5, "keys": []}},
        {"watermarking_config": {"ngram_len": 5, "keys": [1], "sampling_table_size": 2**25}},
        {"num_beams": 10**30},
        {"num_beams": 2, "num_return_sequences": 3},
        {"num_return_sequences": 2},
        {"num_beams": 5, "num_beam_groups": 2, "diversity_penalty": 1.0},
        {"num_beams": 4, "num_beam_groups": 2},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0, "do_sample": True},
    ],
)
def test_what_cannot_work_names_the_argument(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as raised:
        GenerationConfig(**arguments)
    assert any(name in str(raised.value) for name in arguments)
    config = GenerationConfig()
    with pytest.raises(ArgumentError):
        config.update(**arguments)
    assert config == GenerationConfig()
    assert config.explicit == frozenset()


@pytest.mark.parametrize(
    "arguments",
    [
        {"do_sample": True, "num_return_sequences": 5},
        {"num_beams": 4, "num_return_sequences": 4},
        {"temperature": 1, "top_p": 1, "repetition_penalty": 1},
        {"temperature": 0},
        {"temperature": 0, "do_sample": False},
        {"do_sample": True, "temperature": 0},
        {"do_sample": False, "top_k": 4, "penalty_alpha": 0.6},
        {"temperature": 0.7},
        {"temperature": np.float32(0.5), "top_p": np.float64(0.9), "do_sample": True},
        {"sequence_bias": {(1, 2): 3}},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1},
        {"temperature": None, "top_p": None, "do_sample": False},
    ],
)
def test_what_works(arguments: dict[str, Any]) -> None:
    config = GenerationConfig(**arguments)
    assert config.explicit == {name for name, value in arguments.items() if value is not None}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"do_sample": False, "temperature": 0.7}, "temperature=0.7"),
        ({"do_sample": False, "top_p": 0.9}, "top_p=0.9"),
        ({"do_sample": False, "top_h": 0.5}, "top_h=0.5"),
        ({"do_sample": False, "mirostat_mode": 2}, "mirostat_mode=2"),
        ({"num_beams": 1, "length_penalty": 2.0}, "length_penalty=2.0"),
        ({"num_beams": 1, "early_stopping": True}, "early_stopping=True"),
    ],
)
def test_explicit_conflicts_are_errors_and_inherited_ones_are_not(
    tmp_path: Path, arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(ArgumentError, match=f"{named} has no effect"):
        GenerationConfig(**arguments)
    (tmp_path / "generation_config.json").write_text(json.dumps(arguments))
    stored = GenerationConfig.from_pretrained(tmp_path)
    stored.save_pretrained(tmp_path / "again")
    flag = list(arguments)[1]
    config = GenerationConfig(**{flag: arguments[flag]})
    with pytest.raises(ArgumentError, match="has no effect"):
        config.save_pretrained(tmp_path)


def test_a_later_argument_overrides_an_earlier_one() -> None:
    config = GenerationConfig(do_sample=True, temperature=0.7)
    config.update(do_sample=False)
    assert (config.do_sample, config.temperature) == (False, 0.7)
    greedy = GenerationConfig(do_sample=False)
    with pytest.raises(ArgumentError, match=r"temperature=0\.7 has no effect"):
        greedy.update(temperature=0.7)


def test_what_was_set_is_remembered(tmp_path: Path) -> None:
    config = GenerationConfig(max_length=20)
    assert "max_length" in config.explicit
    assert config.was_set("max_length")
    assert not GenerationConfig().was_set("max_length")
    config.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"max_length": 20}')
    stored = GenerationConfig.from_pretrained(tmp_path, top_k=3)
    assert stored.was_set("max_length")
    assert stored.explicit == {"top_k"}
    stored.max_length = 5
    assert stored.explicit == {"top_k", "max_length"}
    stored.max_length = None  # type: ignore[assignment]
    assert (stored.max_length, stored.was_set("max_length")) == (20, False)


def test_a_refused_assignment_changes_nothing() -> None:
    config = GenerationConfig(top_k=5, do_sample=True)
    for name, value in (("temperature", -1), ("top_k", "many")):
        with pytest.raises(ArgumentError, match=name):
            setattr(config, name, value)
    assert config.explicit == {"top_k", "do_sample"}
    assert (config.temperature, config.top_k) == (1.0, 5)
    with pytest.raises(ArgumentError, match="push_to_hub"):
        config.push_to_hub = "here"


def test_update_returns_what_it_does_not_know() -> None:
    config = GenerationConfig(mine=1)
    assert config.update(top_k=5, mine=2, other=3) == {"other": 3}
    assert (config.top_k, config.mine) == (5, 2)
    with pytest.raises(AttributeError):
        _ = config.other
    assert config.copy(other=3, top_k=6).to_diff_dict() == {"mine": 2, "other": 3, "top_k": 6}
    assert config.top_k == 5
    with pytest.raises(ArgumentError, match="top_k"):
        config.top_k = -1
    assert config.top_k == 5


def test_from_a_models_config_as_transformers_does(tmp_path: Path) -> None:
    stored = {"model_type": "gpt2", "bos_token_id": 5, "eos_token_id": [6, 7], "do_sample": True, "max_length": 50}
    stored |= {"top_k": 0, "vocab_size": 10, "n_embd": 8, "temperature": None}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    ours = GenerationConfig.from_model_config(PretrainedConfig.from_pretrained(tmp_path))
    theirs = transformers.GenerationConfig.from_model_config(transformers.GPT2Config.from_pretrained(tmp_path))
    dropped = {"transformers_version", "_from_model_config", *OUR_OWN}
    assert {name: value for name, value in ours.to_dict().items() if name not in dropped} == {
        name: value for name, value in theirs.to_dict().items() if name not in dropped
    }
    assert ours.was_set("max_length")
    assert ours.explicit == frozenset()
    assert GenerationConfig.of_model(tmp_path, PretrainedConfig.from_pretrained(tmp_path)) == ours
    GenerationConfig(max_new_tokens=3).save_pretrained(tmp_path)
    own = GenerationConfig.of_model(tmp_path, PretrainedConfig.from_pretrained(tmp_path))
    assert own == GenerationConfig(max_new_tokens=3)
    assert own.explicit == frozenset()


@pytest.mark.parametrize("content", ["[", "[]", '{"top_p": 7}', '{"max_length": "x"}', '{"streamer": 1}'])
def test_stored_configs_that_cannot_work(tmp_path: Path, content: str) -> None:
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(ConfigError):
        GenerationConfig.from_pretrained(tmp_path)


def test_arguments_of_generate_are_no_fields() -> None:
    with pytest.raises(ArgumentError, match=r"streamer.*generate\(\)"):
        GenerationConfig(streamer=print)
    assert GenerationConfig().update(streamer=print) == {"streamer": print}


def test_unused_arguments(tmp_path: Path) -> None:
    GenerationConfig(top_k=3, do_sample=True).save_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match="top_kk"):
        GenerationConfig.from_pretrained(tmp_path, top_kk=3)
    config, unused = GenerationConfig.from_pretrained(tmp_path, top_kk=3, top_k=4, return_unused_kwargs=True)
    assert (config.top_k, unused) == (4, {"top_kk": 3})


def test_it_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from loquent.config import GenerationConfig; GenerationConfig(top_k=3);"
        "assert not {'torch', 'numpy', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
