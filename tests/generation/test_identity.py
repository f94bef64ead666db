"""The identity of models: equal for equal weights however they are held, another for any other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import loquent
from loquent import AutoModelForCausalLM
from loquent.generation.identity import identity_of
from loquent.native import why_unavailable
from loquent.native.loading import load_native
from loquent.native.model import NativeModel
from native.folders import FAMILIES, make

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")


@pytest.mark.parametrize("name", FAMILIES)
def test_torch_models_and_native_ones_of_equal_weights_are_alike(tmp_path: Path, name: str) -> None:
    model = make(name)
    model.save_pretrained(tmp_path)
    identities = {
        identity_of(model),
        identity_of(AutoModelForCausalLM.from_pretrained(tmp_path)),
        identity_of(native(tmp_path, "float32")),
    }
    assert len(identities) == 1


@pytest.mark.parametrize("precision", ["int8", "int4", "bfloat16"])
def test_precisions_differ_and_packed_folders_do_not(tmp_path: Path, precision: str) -> None:
    make("llama").save_pretrained(tmp_path)
    model = native(tmp_path, precision)
    model.save_pretrained(tmp_path / "packed")
    packed = AutoModelForCausalLM.from_pretrained(tmp_path / "packed")
    assert identity_of(packed) == identity_of(model)
    assert identity_of(model) != identity_of(native(tmp_path, "float32"))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_weight_counts(name: str) -> None:
    model = make(name)
    seen = {identity_of(model)}
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 0.5
        seen.add(identity_of(model))
    assert len(seen) == 1 + len(list(model.parameters()))


def test_the_composition_counts(tmp_path: Path) -> None:
    model = make("llama")
    before = identity_of(model)
    model.save_pretrained(tmp_path)
    config = loquent.AutoConfig.from_pretrained(tmp_path)
    config.rms_norm_eps = 1e-3
    assert identity_of(AutoModelForCausalLM.from_pretrained(tmp_path, config=config)) != before


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    make("llama").save_pretrained(tmp_path)
    program = (
        "import sys, loquent; from loquent.generation.identity import identity_of;"
        "print(identity_of(loquent.AutoModelForCausalLM.from_pretrained(sys.argv[1], quantization='int8')))"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == identity_of(native(tmp_path, "int8"))


def native(folder: Path, precision: str) -> NativeModel:
    return load_native(folder, precision)
