"""Packed folders: equal to what is packed when loading, mapped and not copied, portable, and safe to open."""

from __future__ import annotations

import json
import mmap
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from folders import FAMILIES, edit_config, make

import loquent
from loquent import AutoModel, AutoModelForCausalLM, LlamaForCausalLM
from loquent.config.packing import PRECISIONS
from loquent.errors import ArgumentError, CheckpointError
from loquent.hub.safetensors_file import SafetensorsFile
from loquent.native import core, why_unavailable
from loquent.native.checkpoint import is_matrix
from loquent.native.loading import load_native, quantize
from loquent.native.mapping import matrix_entries

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

IDS = [[5, 9, 2, 33, 7]]
GREEDY = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    make("llama").save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def contents(model: Any) -> dict[str, bytes]:
    """All bytes of a native model's weights."""
    found = {}
    for name, shape in model._shapes.items():
        if is_matrix(name, shape):
            matrix = model._weights.matrix(name)
            found[name] = b"".join(
                part.tobytes() for part in (matrix.data, matrix.scales, matrix.sums) if part is not None
            )
        else:
            found[name] = model._weights.vector(name).tobytes()
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_packed_folder_is_what_loading_packs(name: str, precision: str, tmp_path: Path) -> None:
    make(name).save_pretrained(tmp_path / "plain")
    now = load_native(tmp_path / "plain", precision)
    packed = load_native(quantize(tmp_path / "plain", tmp_path / "packed", precision))
    assert packed.precision == precision
    assert contents(packed) == contents(now)
    assert np.array_equal(packed.generate(IDS, **GREEDY), now.generate(IDS, **GREEDY))


@pytest.mark.parametrize("kind", PRECISIONS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (31, 3), (32, 32), (33, 65), (100, 130)])
def test_sizes_are_those_of_the_core(kind: str, rows: int, columns: int) -> None:
    matrix = core().Matrix(kind, rows, columns)
    entries = matrix_entries("m", (rows, columns), kind)
    parts = {"m": matrix.data, "m.scales": matrix.scales, "m.sums": matrix.sums}
    assert {name: part.shape for name, part in parts.items() if part is not None} == {
        name: shape for name, (_, shape) in entries.items()
    }


def test_every_tensor_that_is_mapped_is_aligned_in_the_file(plain: Path, tmp_path: Path) -> None:
    for precision in PRECISIONS:
        entries = SafetensorsFile(quantize(plain, tmp_path / precision, precision) / "model.safetensors").entries
        mapped = [name for name in entries if entries[name].dtype == "U8" or name.endswith((".scales", ".sums"))]
        assert len(mapped) == (3 if precision == "int8" else 1) * 10
        assert all(entries[name].start % 64 == 0 for name in mapped)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux to say what is mapped where")
def test_matrices_lie_in_the_mapped_file(plain: Path, tmp_path: Path) -> None:
    folder = quantize(plain, tmp_path / "packed")
    model = load_native(folder)
    lines = [
        line
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(f"{folder}/model.safetensors")
    ]
    spans = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in lines]
    for name, shape in model._shapes.items():
        if is_matrix(name, shape):
            matrix = model._weights.matrix(name)
            for part in (matrix.data, matrix.scales, matrix.sums):
                address = part.__array_interface__["data"][0]
                assert any(start <= address and address + part.nbytes <= end for start, end in spans), name


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="pages of 2 MiB are asked for on Linux alone")
def test_pages_of_a_mapped_file_may_be_large(plain: Path, tmp_path: Path) -> None:
    quantize(plain, tmp_path / "packed", "int8")
    held = load_native(tmp_path / "packed")
    mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    [flags] = [
        re.search(r"^VmFlags:(.*)$", mapping, re.MULTILINE)
        for mapping in mappings
        if str(tmp_path / "packed") in mapping
    ]
    assert flags is not None
    assert "hg" in flags[1].split()
    assert held.generate(IDS, **GREEDY).shape == (1, 11)


def test_the_config_says_how_weights_are_packed_and_others_refuse_it(plain: Path, tmp_path: Path) -> None:
    folder = quantize(plain, tmp_path / "packed", "int4")
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("quantization_config") == {"quant_method": "loquent", "precision": "int4", "version": 1}
    assert config == json.loads((plain / "config.json").read_text())
    with pytest.raises((ValueError, OSError)):
        transformers.AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(
        CheckpointError, match=r"is packed in int4 for the native core. AutoModelForCausalLM and loquent"
    ):
        LlamaForCausalLM.from_pretrained(folder)
    with pytest.raises(ArgumentError, match="AutoModel gives models of PyTorch"):
        AutoModel.from_pretrained(folder)


def test_shards(plain: Path, tmp_path: Path) -> None:
    folder = quantize(plain, tmp_path / "packed", max_shard_size="8KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    assert contents(load_native(folder)) == contents(load_native(plain, "int8"))
    quantize(plain, tmp_path / "packed")
    assert [path.name for path in folder.glob("*.safetensors*")] == ["model.safetensors"]


def test_what_belongs_to_the_model_is_copied(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "models/stories260k"
    folder = quantize(source, tmp_path / "packed")
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    assert (
        loquent.load(folder).generate("Once upon a time", max_new_tokens=5, do_sample=False) == ", there was a little"
    )


def test_what_cannot_be_quantized_is_refused(plain: Path, tmp_path: Path) -> None:
    before = sorted(path.read_bytes() for path in plain.iterdir())
    with pytest.raises(ArgumentError, match="is the model's own folder"):
        quantize(plain, plain)
    folder = quantize(plain, tmp_path / "packed")
    with pytest.raises(ArgumentError, match=r"is packed in int8. Leave precision out, or pass the model"):
        quantize(folder, tmp_path / "again")
    with pytest.raises(ArgumentError, match=r"precision='int4', but .* is packed in int8"):
        load_native(folder, "int4")
    with pytest.raises(ArgumentError, match="max_shard_size='lots' is not a size"):
        quantize(plain, tmp_path / "other", max_shard_size="lots")
    with pytest.raises(ArgumentError, match="precision='int2' is unknown"):
        quantize(plain, tmp_path / "other", "int2")
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match=r"file/below' cannot be made: .*Not a directory.* Name a folder"):
        quantize(plain, tmp_path / "file/below")
    with pytest.raises(ArgumentError, match="is a file"):
        quantize(plain, tmp_path / "file")
    assert sorted(path.read_bytes() for path in plain.iterdir()) == before
    assert not (tmp_path / "other" / "config.json").exists()


def _header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of a folder's file; the data stay."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])


def _says(**metadata: str) -> Callable[[Path], None]:
    return lambda folder: _header(folder, lambda header: header["__metadata__"].update(metadata))


def _packed_as(**entry: Any) -> Callable[[Path], None]:
    full = {"quant_method": "loquent", "precision": "int8", "version": 1}
    return lambda folder: edit_config(folder, quantization_config=full | entry)


def _renamed(folder: Path) -> None:
    name = "blocks.0.mlp.down.weight"
    _header(folder, lambda header: header.update({"other": header.pop(f"{name}.sums")}))


def _reshaped(folder: Path) -> None:
    _header(folder, lambda header: header["tokens.weight"].update(shape=[header["tokens.weight"]["shape"][0] // 4, 4]))


def _retyped(folder: Path) -> None:
    _header(folder, lambda header: header["tokens.weight.sums"].update(dtype="F32"))


def _shapeless(folder: Path) -> None:
    _header(folder, lambda header: header["__metadata__"].pop("shapes"))


def _scaled_by(value: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        entry = SafetensorsFile(path).entries["blocks.1.mlp.down.weight.scales"]
        with path.open("r+b") as file:
            file.seek(entry.start + 8)
            file.write(np.float32(value).tobytes())

    return change


def _truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


HOSTILE = {
    "a newer version": (_packed_as(version=2), "packed in format 2, and this Loquent reads 1. Upgrade"),
    "no version": (_packed_as(version=None), "packed in format None"),
    "an unknown precision": (_packed_as(precision="int1"), "says precision='int1', which is none of"),
    "another precision": (_packed_as(precision="int4"), "and the config means"),
    "another method": (_packed_as(quant_method="awq"), "quant_method='awq'"),
    "a list": (lambda folder: edit_config(folder, quantization_config=["loquent"]), "quant_method=None"),
    "a newer file": (_says(version="2"), "'version': '2'"),
    "another layout": (_says(layout="panels of 16"), "panels of 16"),
    "a larger vocabulary": (lambda folder: edit_config(folder, vocab_size=10_000), "tokens.weight"),
    "a vocabulary that is padded to as many": (
        lambda folder: edit_config(folder, vocab_size=72),
        r"tokens.weight: \[71, 36\], but the model has \[72, 36\]",
    ),
    "a smaller vocabulary": (lambda folder: edit_config(folder, vocab_size=65), r"\[71, 36\], but .* \[65, 36\]"),
    "no shapes": (_shapeless, "do not say the shapes of their matrices.*loquent quantize"),
    "shapes of a newer kind": (_says(shapes="{"), "do not say the shapes of their matrices"),
    "shapes that are none": (_says(shapes="[" * 10_000), "do not say the shapes of their matrices"),
    "scales that are no numbers": (_scaled_by(np.nan), "blocks.1.mlp.down.weight.scales in .* holds numbers that are"),
    "scales without end": (_scaled_by(-np.inf), "blocks.1.mlp.down.weight.scales"),
    "wider": (lambda folder: edit_config(folder, intermediate_size=4096), "blocks.0.mlp.gate_up.weight"),
    "more layers": (lambda folder: edit_config(folder, num_hidden_layers=3), "missing"),
    "fewer layers": (lambda folder: edit_config(folder, num_hidden_layers=1), "unexpected"),
    "a tied head": (lambda folder: edit_config(folder, tie_word_embeddings=True), "head.weight"),
    "a missing tensor": (_renamed, "blocks.0.mlp.down.weight.sums"),
    "another shape": (_reshaped, "of another shape"),
    "another type": (_retyped, "tokens.weight.sums in .* is F32, not I32"),
    "truncated": (_truncated, "truncated"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_folders_that_lie_are_refused_before_they_are_read(what: str, plain: Path, tmp_path: Path) -> None:
    folder = quantize(plain, tmp_path / "packed")
    change, message = HOSTILE[what]
    change(folder)
    with pytest.raises(CheckpointError, match=message):
        load_native(folder)


def test_a_file_that_another_program_wrote_is_not_read_askew(plain: Path, tmp_path: Path) -> None:
    folder = quantize(plain, tmp_path / "packed")
    _header(folder, lambda header: header["__metadata__"].update(version="1"))  # the same, without the padding
    length = struct.unpack("<Q", (folder / "model.safetensors").read_bytes()[:8])[0]
    assert (8 + length) % 64, "the header happens to end where it should"
    with pytest.raises(CheckpointError, match="is not aligned to 64 bytes"):
        load_native(folder)


def test_weights_that_are_noise_give_noise_or_errors(plain: Path, tmp_path: Path) -> None:
    """Whatever bytes the tensors hold, sizes are the config's, so that nothing but the text suffers."""
    folders = [quantize(plain, tmp_path / precision, precision) for precision in PRECISIONS]
    for folder in folders:
        path = folder / "model.safetensors"
        whole = bytearray(path.read_bytes())
        start = 8 + struct.unpack("<Q", whole[:8])[0]
        whole[start:] = np.random.default_rng(3).bytes(len(whole) - start)
        path.write_bytes(whole)
    code = f"""
from loquent.errors import LoquentError
from loquent.native.loading import load_native
for folder in {list(map(str, folders))}:
    try:
        print(load_native(folder).generate({IDS}, max_new_tokens=4, eos_token_id=None).shape)
    except LoquentError as error:
        print("(1, 9)", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("(1, 9)") == len(folders)


def test_a_loaded_model_saves_a_packed_folder(plain: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(plain, quantization="int8")
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert contents(again) == contents(model)
    with pytest.raises(ArgumentError, match="is where the model was loaded from"):
        again.save_pretrained(tmp_path / "saved")
    shutil.rmtree(tmp_path / "saved")  # mapped files may go
    assert np.array_equal(again.generate(IDS, **GREEDY), model.generate(IDS, **GREEDY))
