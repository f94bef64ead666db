"""Checkpoints written tensor by tensor: byte for byte what the safetensors library writes, whole, and nothing stale."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.errors import ArgumentError
from loquent.hub.checkpoint import open_checkpoint
from loquent.hub.tensors import DTYPE_SIZES
from loquent.hub.writing import TensorToWrite, write_checkpoint

NUMPY_NAMES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8, "BOOL": np.bool_}


def to_write(name: str, array: np.ndarray[Any, Any]) -> TensorToWrite:
    dtype = next(known for known, kind in NUMPY_NAMES.items() if array.dtype == kind)
    return TensorToWrite(name, dtype, array.shape, lambda: np.ascontiguousarray(array).data)


def test_one_file_equals_the_librarys(tmp_path: Path) -> None:
    arrays = {
        "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.ones(3, np.float32),
        "ü": np.zeros(1, "f4"),
    }
    write_checkpoint(tmp_path, [to_write(name, array) for name, array in arrays.items()])
    safetensors.numpy.save_file(arrays, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "theirs").read_bytes()


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        st.tuples(st.sampled_from(sorted(DTYPE_SIZES)), st.lists(st.integers(0, 4), max_size=3)),
        max_size=8,
    ),
    largest=st.integers(1, 300),
)
def test_whatever_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[str, list[int]]], largest: int
) -> None:
    folder = tmp_path_factory.mktemp("written")
    shapes.pop("__metadata__", None)
    content = {
        name: bytes(index % 251 for index in range(int(np.prod(shape, dtype=int)) * DTYPE_SIZES[dtype]))
        for name, (dtype, shape) in shapes.items()
    }
    tensors = [
        TensorToWrite(name, dtype, tuple(shape), lambda name=name: content[name])  # type: ignore[misc]
        for name, (dtype, shape) in shapes.items()
    ]
    written = write_checkpoint(folder, tensors, max_shard_size=largest)
    assert sorted(folder.iterdir()) == sorted(written)
    checkpoint = open_checkpoint(folder)
    assert {name: (view.dtype, list(view.shape)) for name, view in checkpoint.items()} == shapes
    assert {name: bytes(view.bytes()) for name, view in checkpoint.items()} == content


def test_shards_are_those_of_transformers(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=3, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="30KB")
    theirs = open_checkpoint(tmp_path / "theirs")
    index = json.loads((tmp_path / "theirs" / "model.safetensors.index.json").read_text())
    order = [name for name in model.state_dict() if name in theirs]
    (tmp_path / "ours").mkdir()
    tensors = [TensorToWrite(name, theirs[name].dtype, theirs[name].shape, theirs[name].bytes) for name in order]
    write_checkpoint(tmp_path / "ours", tensors, max_shard_size="30KB")
    assert json.loads((tmp_path / "ours" / "model.safetensors.index.json").read_text()) == index
    for path in (tmp_path / "theirs").glob("*.safetensors"):
        assert (tmp_path / "ours" / path.name).read_bytes() == path.read_bytes()
    config.save_pretrained(tmp_path / "ours")
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_an_older_saves_files_go_and_others_stay(tmp_path: Path) -> None:
    def four() -> list[TensorToWrite]:
        return [to_write(name, np.zeros(4, np.float32)) for name in "abcd"]

    (tmp_path / "adapter.safetensors").write_bytes(b"mine")
    write_checkpoint(tmp_path, four(), max_shard_size=16)
    assert len(list(tmp_path.glob("model-0000?-of-00004.safetensors"))) == 4
    write_checkpoint(tmp_path, four(), max_shard_size=32)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter.safetensors",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    write_checkpoint(tmp_path, four())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter.safetensors", "model.safetensors"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, [to_write("a", np.ones(2, np.float32))])
    before = (tmp_path / "model.safetensors").read_bytes()

    def fail() -> bytes:
        raise RuntimeError("out of everything")

    with pytest.raises(RuntimeError, match="out of everything"):
        write_checkpoint(tmp_path, [TensorToWrite("a", "F32", (2,), fail)])
    with pytest.raises(ValueError, match="gave 4 bytes, not the 8"):
        write_checkpoint(tmp_path, [TensorToWrite("a", "F32", (2,), lambda: b"1234")])
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_model_can_be_saved_over_the_files_that_it_is_mapped_from(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, [to_write("a", np.arange(1000, dtype=np.float32))])
    checkpoint = open_checkpoint(tmp_path)
    view = checkpoint["a"]
    data = view.bytes()
    write_checkpoint(tmp_path, [TensorToWrite("a", "F32", (1000,), lambda: data)])
    assert view.numpy().tolist() == open_checkpoint(tmp_path)["a"].numpy().tolist() == list(range(1000))


def test_one_tensor_at_a_time(tmp_path: Path) -> None:
    size = 2**20
    tensors = [TensorToWrite(f"t{number}", "U8", (size,), lambda: bytes(size)) for number in range(8)]
    tracemalloc.start()
    write_checkpoint(tmp_path, tensors)
    assert tracemalloc.get_traced_memory()[1] < 2.5 * size
    tracemalloc.stop()


def test_a_shard_size_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="max_shard_size='5 parsecs' is not a size"):
        write_checkpoint(tmp_path, [to_write("a", np.ones(2, np.float32))], max_shard_size="5 parsecs")


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="'a'"):
        write_checkpoint(tmp_path, [to_write("a", np.ones(2, np.float32))] * 2)
