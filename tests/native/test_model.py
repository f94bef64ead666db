"""`NativeModel`: what generates as torch's classes do, and what it says it cannot do."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import make

from loquent import AutoModelForCausalLM
from loquent.errors import ArgumentError, NativeError
from loquent.native import why_unavailable
from loquent.native.loading import load_native
from loquent.native.model import NativeModel

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

IDS = [[5, 9, 2, 33, 7], [8, 1, 1, 4, 60]]
SIZES = ("float32", "bfloat16", "int8")
OPTIONS = {"max_new_tokens": 6, "eos_token_id": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain")
    make("doge").save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> NativeModel:
    return load_native(folder, "int8")


def test_arrays_are_continued_as_arrays_and_tensors_as_tensors(model: NativeModel) -> None:
    listed = model.generate(IDS, do_sample=False, **OPTIONS)
    assert isinstance(listed, np.ndarray)
    assert isinstance(model.generate(np.array(IDS), do_sample=False, **OPTIONS), np.ndarray)
    tensor = model.generate(torch.tensor(IDS), do_sample=False, **OPTIONS)
    assert isinstance(tensor, torch.Tensor)
    assert listed.tolist() == tensor.tolist()
    output = model.generate(IDS, num_beams=2, return_dict_in_generate=True, **OPTIONS)
    assert isinstance(output.sequences_scores, np.ndarray)
    assert output.sequences_scores.shape == (2,)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_keys_and_values_are_stored_as_asked(folder: Path, kind: str) -> None:
    model = load_native(folder, "float32", key_values=kind)
    exact = load_native(folder, "float32").generate(IDS, do_sample=False, **OPTIONS)
    found = model.generate(IDS, do_sample=False, **OPTIONS)
    assert (found == exact).mean() >= {"float32": 1.0, "bfloat16": 0.7, "int8": 0.6}[kind]
    stores = {name: load_native(folder, key_values=name).open_backend().open_store(16) for name in SIZES}
    sizes = {name: store.groups[0].bytes_per_page for name, store in stores.items()}
    assert sizes["int8"] < sizes["bfloat16"] < sizes["float32"]
    with pytest.raises(ArgumentError, match="key_values='int4' is unknown"):
        load_native(folder, key_values="int4")


def test_rows_streamed_are_rows_generated(model: NativeModel) -> None:
    rows: dict[int, list[int]] = {0: [], 1: []}
    for event in model.stream(IDS, do_sample=True, seed=4, **OPTIONS):
        rows[event.row] += event.tokens
    expected = model.generate(IDS, do_sample=True, seed=4, **OPTIONS)[:, 5:]
    assert [rows[0], rows[1]] == expected.tolist()


def test_callers_rules_and_streamers_are_given_arrays(model: NativeModel) -> None:
    seen: list[Any] = []

    def ban(input_ids: Any, scores: Any) -> Any:
        seen.append(input_ids)
        scores[:, 3] = np.inf
        return scores

    class Streamer:
        def __init__(self) -> None:
            self.values: list[Any] = []

        def put(self, value: Any) -> None:
            self.values.append(value)

        def end(self) -> None:
            self.values.append(None)

    streamer = Streamer()
    found = model.generate(IDS[:1], logits_processor=[ban], streamer=streamer, do_sample=False, **OPTIONS)
    assert found[0, 5:].tolist() == [3] * 6
    assert {type(value) for value in seen} == {np.ndarray}
    assert streamer.values[0].tolist() == IDS[:1]
    assert [value.tolist() for value in streamer.values[1:-1]] == [[3]] * 6


def test_it_says_what_it_is(model: NativeModel, folder: Path) -> None:
    assert (model.precision, model.dtype, model.device, model.name_or_path) == ("int8", "int8", "cpu", str(folder))
    assert model.num_parameters() == make("doge").num_parameters()
    assert 0.25 < model.get_memory_footprint() / (4 * model.num_parameters()) < 0.6  # small rows are padded
    assert "int8" in model.describe_backend()
    assert model.eval() is model
    assert model.to("cpu") is model.to(device=torch.device("cpu")) is model.train(False) is model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model(torch.tensor(IDS)), "has no forward pass, logits or loss"),
        (lambda model: model.forward(input_ids=torch.tensor(IDS), labels=torch.tensor(IDS)), "has no forward pass"),
        (lambda model: model.train(), "cannot be trained: this model is held in int8"),
        (lambda model: model.to("cuda"), "cannot become 'cuda'"),
        (lambda model: model.cuda(0), "cannot become 'cuda'"),
        (lambda model: model.half(), "cannot become 'float16'"),
        (lambda model: model.float(), "cannot become 'float32'"),
        (lambda model: model.bfloat16(), "cannot become 'bfloat16'"),
        (lambda model: model.parameters(), "has no parameters"),
        (lambda model: dict(model.named_parameters(recurse=False)), "has no parameters"),
        (lambda model: model.state_dict(), "has no parameters"),
        (lambda model: model.to(torch.float32), "cannot become torch.float32"),
    ],
)
def test_what_it_cannot_do_it_says_with_a_remedy(model: NativeModel, call: Any, message: str) -> None:
    with pytest.raises(NativeError, match=message + ".*AutoModelForCausalLM.from_pretrained\\(name\\) without"):
        call(model)


@pytest.mark.parametrize(
    ("asked", "precision"),
    [
        ({"quantization": "int8"}, "int8"),
        ({"quantization": "int4", "dtype": "bfloat16"}, "int4"),
        ({"dtype": "int8"}, "int8"),
        ({"torch_dtype": "int4", "device_map": "auto"}, "int4"),
        ({"load_in_8bit": True, "device_map": "cpu"}, "int8"),
        ({"load_in_4bit": True, "load_in_8bit": False}, "int4"),
    ],
)
def test_programs_for_torch_get_one_where_they_ask_for_it(folder: Path, asked: dict[str, Any], precision: str) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(folder, **asked)
    assert isinstance(loaded, NativeModel)
    assert loaded.precision == precision
    ids = torch.tensor(IDS)
    expected = load_native(folder, precision).generate(IDS, do_sample=False, **OPTIONS)
    found = loaded.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **OPTIONS)
    assert found.tolist() == expected.tolist()


def test_arguments_that_contradict(folder: Path) -> None:
    for asked, message in [
        ({"quantization": "int8", "dtype": "int4"}, "quantization and dtype ask for int8 and int4"),
        ({"load_in_8bit": True, "load_in_4bit": True}, "load_in_8bit and load_in_4bit"),
        ({"quantization": "gptq"}, "quantization='gptq' is not available"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            AutoModelForCausalLM.from_pretrained(folder, **asked)
    with pytest.raises(TypeError, match="quantization"):
        AutoModelForCausalLM.from_config(load_native(folder).config, quantization="int8")


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}], ids=str)
def test_a_deleted_model_gives_its_memory_back_at_once(folder: Path, options: dict[str, Any]) -> None:
    model = load_native(folder, "int8")
    model.generate(IDS, **options, **OPTIONS)
    events = model.stream(IDS, **OPTIONS)
    next(events)
    events.close()
    weights = weakref.ref(model._weights)
    gc.disable()
    try:
        del model, events
        assert weights() is None
    finally:
        gc.enable()


def test_a_copy_shares_the_weights_and_a_pickle_is_refused(model: NativeModel) -> None:
    twin = copy.deepcopy(model)
    assert twin._weights is model._weights
    assert twin.config is not model.config
    assert twin.generate(IDS, **OPTIONS).tolist() == model.generate(IDS, **OPTIONS).tolist()
    with pytest.raises(NativeError, match=r"cannot be pickled.*save_pretrained"):
        pickle.dumps(model)
