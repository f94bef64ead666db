"""Checkpoints in every form that can be read, and every kind of damage, which must be seen before memory is taken."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.errors import CheckpointError
from loquent.hub.checkpoint import open_checkpoint
from loquent.hub.report import LoadReport
from loquent.hub.safetensors_file import SafetensorsFile
from loquent.hub.tensors import TensorView

TORCH_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
}


def as_torch(view: TensorView) -> torch.Tensor:
    if not view.nbytes:
        return torch.zeros(view.shape, dtype=TORCH_TYPES[view.dtype])
    return torch.frombuffer(view.bytes(), dtype=TORCH_TYPES[view.dtype]).reshape(view.shape)


def some_tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = {name: (torch.randn(3, 4) * 9).to(dtype) for name, dtype in TORCH_TYPES.items()}
    return made | {"empty": torch.zeros(0, 3), "scalar": torch.tensor(7)}


def write_raw(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def refused(folder: Path, reason: str) -> str:
    """The error of opening `folder`, which must match `reason` and be seen without taking memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=reason) as raised:
            open_checkpoint(folder)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    return str(raised.value)


def test_safetensors_of_every_type(tmp_path: Path) -> None:
    tensors = some_tensors()
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.metadata == {"format": "pt"}
    assert set(checkpoint) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(as_torch(checkpoint[name]), tensor), name
        bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
        assert checkpoint[name].numpy().tolist() == bits.tolist(), name
    assert checkpoint.nbytes == sum(tensor.nbytes for tensor in tensors.values())


def test_bytes_are_mapped_and_writing_to_them_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2**22)}, path)
    before = path.read_bytes()
    tracemalloc.start()
    data = open_checkpoint(tmp_path)["a"].bytes()
    assert data.nbytes == 2**24
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    data[0] = 255
    assert path.read_bytes() == before


def test_shards_by_index(tmp_path: Path) -> None:
    tensors = some_tensors()
    halves = [dict(list(tensors.items())[:5]), dict(list(tensors.items())[5:])]
    for number, half in enumerate(halves):
        safetensors.torch.save_file(half, tmp_path / f"part{number}.safetensors")
    weight_map = {name: f"part{number}.safetensors" for number, half in enumerate(halves) for name in half}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    checkpoint = open_checkpoint(tmp_path)
    assert [path.name for path in checkpoint.files] == ["part0.safetensors", "part1.safetensors"]
    for name, tensor in tensors.items():
        assert torch.equal(as_torch(checkpoint[name]), tensor)


def test_no_weights(tmp_path: Path) -> None:
    assert "model.safetensors" in refused(tmp_path, "no weights")


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        ({"a": TENSOR}, b"1234567", "truncated"),
        ({"a": TENSOR}, b"123456789", "1 bytes follow"),
        ({"a": {**TENSOR, "shape": [3]}}, b"12345678", "not those of F32"),
        ({"a": {**TENSOR, "shape": [2**62, 4]}}, b"12345678", "not those of F32"),
        ({"a": {**TENSOR, "shape": [2**32, 2**32]}}, b"12345678", "not those of F32"),
        ({"a": {**TENSOR, "shape": [2**60], "data_offsets": [0, 2**62]}}, b"12345678", "truncated"),
        ({"a": {**TENSOR, "shape": [-2, -1]}}, b"12345678", "not sizes"),
        ({"a": {**TENSOR, "shape": [2.0]}}, b"12345678", "not sizes"),
        ({"a": {**TENSOR, "shape": [True, 2]}}, b"12345678", "not sizes"),
        ({"a": {**TENSOR, "data_offsets": [8, 0]}}, b"12345678", "not those of"),
        ({"a": {**TENSOR, "data_offsets": [0]}}, b"12345678", "not sizes"),
        ({"a": {**TENSOR, "data_offsets": [4, 12]}}, b"1234" * 3, "gap"),
        ({"a": TENSOR, "b": TENSOR}, b"12345678", "overlaps"),
        ({"a": {**TENSOR, "dtype": "F31"}}, b"12345678", "unknown type"),
        ({"a": {**TENSOR, "dtype": ["F32"]}}, b"12345678", "unknown type"),
        ({"a": [1]}, b"", "not described"),
        ({"a": TENSOR, "__metadata__": {"x": 1}}, b"12345678", "metadata"),
        ([1], b"", "not a JSON object"),
        (b'{"a":', b"", "header is not valid"),
        (b"\xff\xfe", b"", "header is not valid"),
        (b"[" * 100_000, b"", "header is not valid"),
        (b'{"a": {}, "a": {}}', b"", "occurs twice"),
    ],
)
def test_damaged_safetensors(tmp_path: Path, header: Any, data: bytes, reason: str) -> None:
    write_raw(tmp_path / "model.safetensors", header, data)
    assert "model.safetensors" in refused(tmp_path, reason)


@pytest.mark.parametrize("length", [2**60, 2**64 - 1, 100])
def test_a_header_that_lies_about_its_length(tmp_path: Path, length: int) -> None:
    write_raw(tmp_path / "model.safetensors", {"a": TENSOR}, b"12345678", length)
    refused(tmp_path, "truncated")


def test_a_file_of_holes_with_a_huge_header(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_raw(path, b"", length=2**31)
    os.truncate(path, 2**32)
    refused(tmp_path, "that are allowed")


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 400), flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=3))
def test_no_damage_goes_unseen_or_escapes_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flips: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("damage") / "model.safetensors"
    whole = safetensors.torch.save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(3)})
    damaged = bytearray(whole[: len(whole) - cut] if cut < len(whole) else b"")
    for position, change in flips:
        if damaged:
            damaged[position % len(damaged)] ^= change
    path.write_bytes(damaged)
    try:
        opened = SafetensorsFile(path)
    except CheckpointError as error:
        assert str(path) in str(error)  # noqa: PT017 - damage may also be harmless
        return
    assert cut == 0
    for view in opened.values():
        assert view.bytes().nbytes == view.nbytes


@pytest.mark.parametrize(
    "name", ["../../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", 7, None, "a\\b", "C:x"]
)
def test_an_index_names_plain_files_only(tmp_path: Path, name: Any) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    refused(tmp_path, "not the name of a file in the same folder")


def test_an_index_cannot_point_out_through_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (folder / "x.safetensors").symlink_to(tmp_path / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x.safetensors"}}')
    refused(folder, "link that leads out")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 50_000])
def test_a_damaged_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    refused(tmp_path, r"index\.json")


def test_missing_shards_and_promised_tensors_are_listed_together(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "3.safetensors"}}))
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "1.safetensors")
    assert "2.safetensors, 3.safetensors" in refused(tmp_path, "lacks 2 of the 3 files")
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "1.safetensors", "c": "1.safetensors"}}))
    assert "b, c" in refused(tmp_path, "2 tensors that are not")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "2.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    refused(tmp_path, "both in 1.safetensors and in 2.safetensors")


# --- .bin ---


def test_bin_with_views_shared_storages_and_parameters(tmp_path: Path) -> None:
    tensors: OrderedDict[str, torch.Tensor] = OrderedDict(some_tensors())
    base = torch.randn(4, 6)
    tensors |= {"base": base, "transposed": base.T, "sliced": base[1:3, 2:], "row": base[2]}
    tensors["parameter"] = torch.nn.Parameter(torch.randn(2, 2))
    tensors._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]  # as nn.Module.state_dict() leaves it
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path)
    assert set(checkpoint) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(as_torch(checkpoint[name]), tensor), name


def test_sharded_bin(tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.save({name: torch.full((2,), 3.0)}, tmp_path / f"{name}.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "a.bin", "b": "b.bin"}}')
    assert [view.numpy().tolist() for view in open_checkpoint(tmp_path).values()] == [[3.0, 3.0]] * 2


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert open_checkpoint(tmp_path)["a"].numpy().tolist() == [1.0]


class Hostile:
    """Unpickles to whatever calling `function(*args)` does."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def write_zip(path: Path, data: bytes, **entries: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", data)
        for name, content in entries.items():
            archive.writestr(f"model/data/{name.lstrip('_')}", content)


@pytest.mark.parametrize("function", [os.system, eval, exec, open, getattr, __import__, os.remove, torch.load])
def test_hostile_pickles_run_nothing(tmp_path: Path, function: Any) -> None:
    mark = tmp_path / "mark"
    code = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    write_zip(tmp_path / "pytorch_model.bin", pickle.dumps({"a": Hostile(function, code)}))
    refused(tmp_path, "it wants .*may be an attack")
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        pickle.dumps([1]),
        pickle.dumps({"a": 1}),
        pickle.dumps({"a": {"b": "c"}}),
        pickle.dumps({1: 2}),
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo index that the C machine would allocate for
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",  # bytes of an absurd length
    ],
)
def test_pickles_that_are_no_checkpoint(tmp_path: Path, data: bytes) -> None:
    write_zip(tmp_path / "pytorch_model.bin", data)
    if data.startswith(b"\x80\x02}r"):
        assert len(open_checkpoint(tmp_path)) == 0
    else:
        refused(tmp_path, "cannot be loaded")


def test_a_pickle_cannot_take_forever(tmp_path: Path) -> None:
    pairs = b")q\0" + b"h\0\x86q\0" * 200  # (), and then 200 times a pair of what there was, twice
    for data in (b"}" + pairs + b"Ns.", b"}(" + pairs + b"Nu.", b"(" + pairs + b"Nd.", b"\x8f(" + pairs + b"\x90."):
        write_zip(tmp_path / "pytorch_model.bin", b"\x80\x04" + data)
        refused(tmp_path, "other than names|makes a set")
    ordered = b"ccollections\nOrderedDict\n"
    write_zip(tmp_path / "pytorch_model.bin", b"\x80\x04" + ordered + b"]](" + pairs + b"Nea\x85R.")
    refused(tmp_path, "cannot be read")


def saved_bin(tmp_path: Path) -> tuple[Path, bytes, bytes]:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.arange(6.0)}, path)
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        return path, archive.read(f"{root}/data.pkl"), archive.read(f"{root}/data/0")


def test_a_bin_whose_pickle_claims_more_than_its_data(tmp_path: Path) -> None:
    path, description, data = saved_bin(tmp_path)
    write_zip(path, description, _0=data)
    assert open_checkpoint(tmp_path)["a"].numpy().tolist() == list(range(6))
    write_zip(path, description, _0=data[:-1])
    refused(tmp_path, "shorter than its pickle says")
    write_zip(path, description)
    refused(tmp_path, "absent")
    # The size 6 is both the storage's and the tensor's; a tensor of 255 repeats or overruns six elements.
    write_zip(path, description.replace(b"K\x06\x85", b"K\xff\x85"), _0=data)
    refused(tmp_path, "past the end")


def test_a_tiny_bin_cannot_ask_for_any_amount_of_memory(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(2**40)}, tmp_path / "pytorch_model.bin")
    refused(tmp_path, "repeats it")


def test_legacy_and_truncated_bin(tmp_path: Path) -> None:
    path, _, _ = saved_bin(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, "damaged")
    torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    assert "weights_only=True" in refused(tmp_path, "before torch 1.6")


# --- reports ---


def test_one_report_lists_everything() -> None:
    LoadReport().raise_if_any("folder")
    report = LoadReport(["m2", "m1"], [f"u{number:03}" for number in range(50)], [("s", (1, 2), (2, 1))])
    with pytest.raises(CheckpointError) as raised:
        report.raise_if_any("folder")
    text = str(raised.value)
    for part in ("folder", "2 missing", "m1", "m2", "50 unexpected", "u000", "30 more", "[1, 2]", "[2, 1]"):
        assert part in text
    assert "u049" not in text
