"""Configs: construction, types, spellings, and files that come out as they went in."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.config import PretrainedConfig, read_config_dict
from loquent.errors import ArgumentError, CheckpointError, ConfigError


class Small(PretrainedConfig):
    """A config with GPT-2's names, so that transformers can read its files."""

    model_type = "gpt2"
    attribute_map = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer"}  # noqa: RUF012

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    nested: list[list[int]] = [[1]]  # noqa: RUF012

    def validate(self) -> None:
        if self.n_embd % 2:
            raise ConfigError(f"n_embd={self.n_embd} is odd")
        if self.n_inner is None:
            self.n_inner = 4 * self.n_embd


def written(config: PretrainedConfig, folder: Path) -> dict[str, Any]:
    config.save_pretrained(folder)
    fields = json.loads((folder / "config.json").read_text())
    assert isinstance(fields, dict)
    return fields


def test_construction_by_position_by_name_and_by_alias() -> None:
    assert (Small(100, 10).vocab_size, Small(100, 10).n_positions) == (100, 10)
    assert Small(hidden_size=8).n_embd == 8
    config = Small()
    config.hidden_size = 6
    assert (config.n_embd, config.hidden_size) == (6, 6)
    with pytest.raises(TypeError, match="positional"):
        Small(*range(20))
    with pytest.raises(TypeError, match="two values for vocab_size"):
        Small(1, vocab_size=1)


def test_defaults_are_not_shared() -> None:
    Small().nested[0].append(2)
    assert Small().nested == [[1]]
    given_list = [[5]]
    config = Small(nested=given_list, extra=given_list)
    given_list[0].append(6)
    assert config.nested == config.extra == [[5]]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("n_embd", "768", "int"),
        ("n_embd", 768.0, "int"),
        ("n_embd", True, "int"),
        ("n_embd", None, "int"),
        ("hidden_size", [1], "int"),
        ("resid_pdrop", "0.1", "float"),
        ("resid_pdrop", False, "float"),
        ("resid_pdrop", float("nan"), "float"),
        ("resid_pdrop", 10**400, "float"),
        ("activation_function", 3, "str"),
        ("eos_token_id", [1, "2"], r"int \| list\[int\] \| None"),
        ("nested", [[1], 2], r"list\[list\[int\]\]"),
        ("tie_word_embeddings", 1, "bool"),
        ("id2label", ["a"], "dict"),
        ("id2label", {"--5": "a"}, "dict"),
        ("id2label", {"9" * 5000: "a"}, "dict"),
        ("problem_type", "other", "regression"),
        ("architectures", "GPT2", "list"),
    ],
)
def test_wrong_types_name_the_field_the_value_and_the_type(field: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as raised:
        Small(**{field: value})
    assert ("n_embd" if field == "hidden_size" else field) in str(raised.value)
    config = Small()
    with pytest.raises(ConfigError, match=expected):
        setattr(config, field, value)
    assert config == Small()


def test_accepted_stand_ins() -> None:
    import numpy as np

    assert Small(resid_pdrop=0).resid_pdrop == 0
    assert type(Small(n_embd=np.int64(8)).n_embd) is int
    assert Small(eos_token_id=(1, 2)).eos_token_id == [1, 2]
    assert Small(id2label={"0": "a", "1": "b"}).id2label == {0: "a", 1: "b"}


@pytest.mark.parametrize("size", [0, -1, 10**12, 2**63])
@pytest.mark.parametrize("field", ["n_embd", "n_layer", "vocab_size", "hidden_size"])
def test_absurd_sizes_take_no_memory(field: str, size: int) -> None:
    tracemalloc.start()
    with pytest.raises(ConfigError, match="size"):
        Small(**{field: size})
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_dtype_in_every_spelling() -> None:
    for spelled in [{"dtype": "bfloat16"}, {"torch_dtype": "bfloat16"}, {"dtype": torch.bfloat16}]:
        config = Small(**spelled)
        assert (config.dtype, config.torch_dtype) == ("bfloat16", "bfloat16")
    config.torch_dtype = torch.float16
    assert config.dtype == "float16"
    assert {"dtype": "float16", "torch_dtype": "float16"}.items() <= config.to_dict().items()
    with pytest.raises(ConfigError, match="contradicts"):
        Small(dtype="float16", torch_dtype="float32")
    with pytest.raises(ConfigError, match="banana"):
        Small(dtype="banana")


def test_labels() -> None:
    config = Small(num_labels=3)
    assert (config.num_labels, config.id2label[2], config.label2id["LABEL_2"]) == (3, "LABEL_2", 2)
    assert Small(id2label={0: "no", 1: "yes"}).label2id == {"no": 0, "yes": 1}
    config.num_labels = 3
    config.id2label = {0: "only"}
    assert (config.num_labels, config.label2id) == (1, {"only": 0})
    with pytest.raises(ConfigError, match="contradicts id2label"):
        Small(num_labels=3, id2label={0: "a"})
    assert Small(id2label=None).num_labels == 2


def test_contradicting_spellings() -> None:
    with pytest.raises(ConfigError, match="hidden_size=8 contradicts n_embd=6"):
        Small(n_embd=6, hidden_size=8)
    assert Small(n_embd=6, hidden_size=6).n_embd == 6


def test_unknown_fields_are_kept_and_never_shadow_methods(tmp_path: Path) -> None:
    fields = {"model_type": "gpt2", "my_field": [1, {"a": None}], "to_dict": 5, "self": 1, "_extra": {"x": 1}, "cls": 2}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    config = Small.from_pretrained(tmp_path)
    assert config.my_field == [1, {"a": None}]
    assert config.to_dict()["to_dict"] == 5
    assert fields.items() <= written(config, tmp_path / "out").items()
    with pytest.raises(ConfigError, match="method"):
        config.to_dict = 3  # type: ignore[assignment]
    with pytest.raises(AttributeError, match="no field 'absent'"):
        _ = config.absent
    del config.my_field
    assert "my_field" not in config.to_dict()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(
    unknown=st.dictionaries(st.text(min_size=1, max_size=8).map(lambda name: f"x{name}"), JSON, max_size=4),
    known=st.fixed_dictionaries(
        {},
        optional={
            "n_embd": st.integers(1, 500).map(lambda half: 2 * half),
            "num_hidden_layers": st.integers(1, 20),
            "n_inner": st.none() | st.integers(1, 9),
            "resid_pdrop": st.integers(0, 1) | st.floats(0, 1),
            "eos_token_id": st.none() | st.integers(0, 9) | st.lists(st.integers(0, 9)),
            "torch_dtype": st.none() | st.sampled_from(["float16", "bfloat16"]),
            "id2label": st.none() | st.just({"0": "a", "1": "b", "2": "c"}),
            "transformers_version": st.just("4.55.4"),
            "use_cache": st.booleans(),
            "_name_or_path": st.text(max_size=4),
        },
    ),
)
def test_every_field_of_a_file_is_written_again_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, unknown: dict[str, Any], known: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("config")
    fields = json.loads(json.dumps({**unknown, **known, "model_type": "gpt2"}))
    (folder / "config.json").write_text(json.dumps(fields))
    config = Small.from_pretrained(folder)
    again = written(config, folder / "again")
    assert {name: again[name] for name in fields} == fields
    assert Small.from_pretrained(folder / "again") == config
    assert copy.deepcopy(config) == config == pickle.loads(pickle.dumps(config))


def test_a_changed_field_is_written_as_it_is_now(tmp_path: Path) -> None:
    config = Small.from_dict({"hidden_size": 8, "torch_dtype": "float16", "n_inner": None})
    assert config.to_dict()["n_inner"] is None
    config.n_embd, config.dtype, config.n_inner = 10, "float32", 7
    assert {"hidden_size": 10, "n_embd": 10, "torch_dtype": "float32", "dtype": "float32", "n_inner": 7}.items() <= (
        written(config, tmp_path).items()
    )


def test_overrides_win_over_the_file_in_any_spelling(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 8, "num_labels": 3, "my_field": 1}))
    config = Small.from_pretrained(tmp_path, hidden_size=6, num_labels=2, my_field=2, torch_dtype="float16")
    assert (config.n_embd, config.num_labels, config.my_field, config.dtype) == (6, 2, 2, "float16")
    assert config.n_inner == 24
    assert config.name_or_path == str(tmp_path)
    with pytest.raises(ArgumentError, match="hiden_size"):
        Small.from_pretrained(tmp_path, hiden_size=6)
    config, unused = Small.from_pretrained(tmp_path, return_unused_kwargs=True, hiden_size=6, n_embd=4)
    assert (unused, config.n_embd) == ({"hiden_size": 6}, 4)


def test_update_sets_fields_in_any_spelling() -> None:
    config = Small()
    config.update({"hidden_size": 6, "my_field": 2})
    assert (config.n_embd, config.my_field) == (6, 2)
    config._name_or_path = "somewhere"
    assert config.name_or_path == config._name_or_path == "somewhere"
    with pytest.raises(ConfigError, match="n_layer"):
        config.update({"n_layer": "many"})


def test_the_familys_own_check_runs_on_making_loading_and_saving(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="odd"):
        Small(n_embd=7)
    config = Small(n_embd=8)
    config.n_embd = 9
    with pytest.raises(ConfigError, match="odd"):
        config.save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_another_model_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="'gpt2', not 'llama'"):
        Small.from_pretrained(tmp_path)
    assert PretrainedConfig.from_pretrained(tmp_path).to_dict()["model_type"] == "llama"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"3", b"null", b"\xff\xfe{}", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_files_that_are_no_config(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        Small.from_pretrained(tmp_path)
    with pytest.raises(ConfigError):
        Small.from_json_file(tmp_path / "config.json")


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**33)
    tracemalloc.start()
    with pytest.raises(ConfigError, match="bytes"):
        read_config_dict(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_absent_files_and_a_file_as_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Small.from_pretrained(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="is a file"):
        Small().save_pretrained(tmp_path / "file")
    Small(n_embd=2).to_json_file(tmp_path / "named.json")
    assert Small.from_pretrained(tmp_path / "named.json").n_embd == 2


def test_what_cannot_be_json_is_named(tmp_path: Path) -> None:
    config = Small(thing=object())
    with pytest.raises(ConfigError, match="object object"):
        config.save_pretrained(tmp_path)


def test_fields_without_default_are_a_bug_of_the_class() -> None:
    with pytest.raises(TypeError, match="needs a default"):
        type("Bad", (PretrainedConfig,), {"__annotations__": {"size": "int"}})


def test_transformers_reads_our_files_and_we_read_theirs(tmp_path: Path) -> None:
    ours = Small(100, 16, 8, 2, dtype="bfloat16", num_labels=3, my_field="kept", eos_token_id=[1, 2])
    ours.save_pretrained(tmp_path / "ours")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert isinstance(theirs, transformers.GPT2Config)
    assert (theirs.n_embd, theirs.torch_dtype, theirs.num_labels, theirs.my_field) == (8, torch.bfloat16, 3, "kept")
    assert theirs.eos_token_id == [1, 2]
    theirs.save_pretrained(tmp_path / "theirs")
    fields = json.loads((tmp_path / "theirs" / "config.json").read_text())
    again = written(Small.from_pretrained(tmp_path / "theirs"), tmp_path / "again")
    assert {name: again[name] for name in fields} == fields


def test_printing_shows_the_name_and_sorted_fields() -> None:
    text = repr(Small(n_embd=2))
    assert text.startswith("Small {\n")
    assert text.endswith("}\n")
    assert json.loads(text.removeprefix("Small "))["n_embd"] == 2
