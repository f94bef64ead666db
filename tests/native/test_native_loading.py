"""Loading for the native core: every weight lands where it belongs, in every type, and what cannot be is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import FAMILIES, edit_config, make, rows_of, weights_of
from safetensors.torch import load_file, save_file

from loquent import AutoModelForCausalLM
from loquent.errors import ArgumentError, CheckpointError, NativeError
from loquent.native import why_unavailable
from loquent.native.checkpoint import is_matrix
from loquent.native.floats import as_float32
from loquent.native.loading import load_native

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")


def held(model: Any) -> dict[str, np.ndarray]:
    """All weights of a native model by canonical name, dequantized."""
    return {
        name: rows_of(model._weights.matrix(name)) if is_matrix(name, shape) else model._weights.vector(name)
        for name, shape in model._shapes.items()
    }


def rewritten(folder: Path, dtype: torch.dtype, **config: Any) -> Path:
    """The folder with tensors of another type."""
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    edit_config(folder, dtype=None, torch_dtype=None, **config)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_every_weight_is_where_it_belongs(name: str, tmp_path: Path) -> None:
    theirs = make(name)
    theirs.save_pretrained(tmp_path)
    expected, found = weights_of(theirs), held(load_native(tmp_path))
    assert found.keys() == expected.keys()
    for weight in expected:
        assert np.array_equal(found[weight], expected[weight]), weight


@pytest.mark.parametrize("name", FAMILIES)
def test_it_writes_what_torch_writes(name: str, tmp_path: Path) -> None:
    theirs = make(name)
    theirs.save_pretrained(tmp_path)
    prompts = [[5, 9, 2, 33, 7], [1, 40]]
    expected = theirs.generate(prompts, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    found = load_native(tmp_path).generate(
        prompts, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("stored", "precision"),
    [
        (torch.float32, "float32"),
        (torch.bfloat16, "bfloat16"),
        (torch.float16, "float16"),
        (torch.float64, "float32"),
        (torch.float8_e5m2, "float32"),
        (torch.float8_e4m3fn, "float32"),
    ],
)
@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])  # the one transposes, the other takes heads apart
def test_types_of_files(name: str, stored: torch.dtype, precision: str, tmp_path: Path) -> None:
    theirs = make(name)
    theirs.save_pretrained(tmp_path)
    expected = weights_of(theirs.to(stored))
    model = load_native(rewritten(tmp_path, stored))
    assert model.precision == precision
    found = held(model)
    for weight in expected:
        assert np.array_equal(found[weight], expected[weight]), weight


@pytest.mark.parametrize("dtype", ["F8_E5M2", "F8_E4M3", "BF16"])
def test_patterns_of_bits_are_torchs_numbers(dtype: str) -> None:
    kinds = {"F8_E5M2": torch.float8_e5m2, "F8_E4M3": torch.float8_e4m3fn, "BF16": torch.bfloat16}
    size = 16 if dtype == "BF16" else 8
    bits = np.arange(2**size, dtype=np.uint16 if size == 16 else np.uint8)
    expected = torch.from_numpy(bits).view(kinds[dtype]).float().numpy()
    np.testing.assert_array_equal(as_float32(bits, dtype), expected)


def test_auto_is_the_configs_type_where_it_names_one(tmp_path: Path) -> None:
    make("llama").save_pretrained(tmp_path)
    edit_config(tmp_path, dtype="bfloat16", torch_dtype="bfloat16")
    assert load_native(tmp_path).precision == "bfloat16"
    assert AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype is torch.bfloat16
    assert load_native(tmp_path, "float32").precision == "float32"


@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 2**-8), ("float16", 2**-11), ("int8", 0.5 / 127)])
def test_rounding_is_to_the_nearest(precision: str, error: float, tmp_path: Path) -> None:
    """Relative to each number for floats, to the largest of its row for int8."""
    theirs = make("gpt2")
    theirs.save_pretrained(tmp_path)
    expected, found = weights_of(theirs), held(load_native(tmp_path, precision))
    for name, weight in expected.items():
        if is_matrix(name, weight.shape):
            unit = np.abs(weight).max(axis=1, keepdims=True) if precision == "int8" else np.abs(weight) + 2**-14
            assert (np.abs(found[name] - weight) <= error * 1.001 * unit).all(), name
        else:
            assert np.array_equal(found[name], weight), name


def test_int4_is_close_where_rows_are_even(tmp_path: Path) -> None:
    theirs = make("llama")
    theirs.save_pretrained(tmp_path)
    expected, found = weights_of(theirs), held(load_native(tmp_path, "int4"))
    for name, weight in expected.items():
        if is_matrix(name, weight.shape):
            # 15 steps between the ends of a group; normal numbers of 32 span about 4.2 deviations.
            error = np.sqrt(np.mean((found[name] - weight) ** 2)) / weight.std()
            assert error < 4.2 / 15 / np.sqrt(12) * 1.3, (name, error)


def test_what_does_not_fit_is_said_as_torch_says_it(tmp_path: Path) -> None:
    make("llama").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.self_attn.k_proj.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 2)
    tensors["model.layers.0.surprise"] = torch.zeros(1)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)  # of old versions: dropped
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    messages = []
    for load in (load_native, AutoModelForCausalLM.from_pretrained):
        with pytest.raises(CheckpointError) as caught:
            load(tmp_path)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "surprise" in messages[0]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_cannot_be_quantized(number: float, tmp_path: Path) -> None:
    make("gpt2").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["transformer.h.1.mlp.c_fc.weight"][7, 3] = number
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    for precision in ("int8", "int4"):
        with pytest.raises(CheckpointError, match=r"h.1.mlp.c_fc.weight holds (nan|-?inf), which precision='int"):
            load_native(tmp_path, precision)
    assert load_native(tmp_path, "bfloat16").precision == "bfloat16"


def test_numbers_beyond_a_precision_are_refused(tmp_path: Path) -> None:
    make("gpt2").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["transformer.wte.weight"][3, 3] = -7e4
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    for precision in ("float16", "int4"):
        with pytest.raises(CheckpointError, match=r"wte.weight holds -70000, which precision="):
            load_native(tmp_path, precision)
    assert held(load_native(tmp_path, "int8"))["tokens.weight"][3, 3] == pytest.approx(-7e4)


def test_arguments_that_cannot_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("llama").save_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match=r"precision='int3' is unknown. Use one of 'auto', 'float32'"):
        load_native(tmp_path, "int3")
    edit_config(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4})
    for load in (load_native, AutoModelForCausalLM.from_pretrained):
        with pytest.raises(CheckpointError, match="quant_method='gptq': its weights are quantized in a way"):
            load(tmp_path)
    edit_config(tmp_path, quantization_config=None)
    monkeypatch.setenv("LOQUENT_NATIVE", "0")
    with pytest.raises(NativeError, match="Unset LOQUENT_NATIVE"):
        load_native(tmp_path)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    make("llama").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int32)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model.norm.weight is of type I32"):
        load_native(tmp_path)


PEAK = """
import re, sys, threading, time
from loquent.native.loading import load_native, quantize

def taken():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

load_native(sys.argv[1] + "/small")  # imports, and threads
before, peak, on = taken(), 0, True
def watch():
    global peak
    while on:
        peak = max(peak, taken())
        time.sleep(0.0005)
watcher = threading.Thread(target=watch)
watcher.start()
model = load_native(sys.argv[1] + "/large", sys.argv[2])
on = False
watcher.join()
print(peak - before, model.get_memory_footprint())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to say what memory is taken")
@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_the_most_memory_taken_is_that_of_the_packed_weights(precision: str, tmp_path: Path) -> None:
    from loquent import GPT2Config, GPT2LMHeadModel

    make("gpt2").save_pretrained(tmp_path / "small")
    config = GPT2Config(vocab_size=9000, n_embd=512, n_layer=6, n_head=8)
    GPT2LMHeadModel(config).to(torch.float64).save_pretrained(tmp_path / "large")
    edit_config(tmp_path / "large", dtype="float32", torch_dtype="float32")
    command = [sys.executable, "-c", PEAK, str(tmp_path), precision]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    peak, packed = map(int, done.stdout.split())
    assert packed > (20 << 20)
    assert packed * 0.9 < peak < packed * 1.05 + (16 << 20)  # and blocks of 4 MiB of numbers, checked and converted
