"""Prompt caches: what a file holds is not read again, results stay the same, and other models' files are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loquent import AutoModelForCausalLM
from loquent.errors import ArgumentError, CheckpointError
from loquent.generation import engine_of, open_engine
from loquent.native import why_unavailable
from loquent.native.loading import load_native
from native.folders import FAMILIES, VOCABULARY, make

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

PAGE = 16
PROMPT = np.random.default_rng(2).integers(3, VOCABULARY, 41)
WHOLE = 32  # of its tokens, whose pages are kept
OPTIONS: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
WINDOWED = {"gpt_neo"}


@contextmanager
def reads(model: Any) -> Iterator[list[int]]:
    """How many tokens the model's passes read."""
    backend = engine_of(model).backend
    run, counts = backend.run, []

    def counting(store: Any, segments: Any, layers: Any = ()) -> Any:
        counts.append(sum(len(segment.tokens) for segment in segments))
        return run(store, segments, layers)

    backend.run = counting
    yield counts
    del backend.run


def generated(model: Any, prompt: np.ndarray, **options: Any) -> list[list[int]]:
    return np.asarray(model.generate(prompt[None].tolist(), **(OPTIONS | options))).tolist()


def opened(folder: Path, name: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder) if name == "torch" else load_native(folder, name)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name in FAMILIES:
        made[name] = tmp_path_factory.mktemp(name)
        make(name).save_pretrained(made[name])
    return made


@pytest.mark.parametrize("held", ["torch", "float32", "int8"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_pages_of_a_file_are_not_read_again(tmp_path: Path, folders: dict[str, Path], name: str, held: str) -> None:
    path = tmp_path / "cache"
    expected = generated(opened(folders[name], held), PROMPT)
    model = opened(folders[name], held)
    with reads(model) as counts:
        assert generated(model, PROMPT, prompt_cache=path) == expected
    assert sum(counts) == 41 + 5
    written = path.read_bytes()
    again = opened(folders[name], held)
    with reads(again) as counts:
        assert generated(again, PROMPT, prompt_cache=path) == expected
    assert sum(counts) == 41 - WHOLE + 5
    assert path.read_bytes() == written


def test_torch_runs_a_model_with_its_own_files(tmp_path: Path, folders: dict[str, Path]) -> None:
    path = tmp_path / "cache"
    model = opened(folders["llama"], "torch")
    model.register_forward_hook(lambda *_: None)
    expected = generated(model, PROMPT, prompt_cache=path)
    again = opened(folders["llama"], "torch")
    again.register_forward_hook(lambda *_: None)
    with reads(again) as counts:
        assert generated(again, PROMPT, prompt_cache=path) == expected
    assert sum(counts) == 41 - WHOLE + 5
    with pytest.raises(ArgumentError, match="another precision or kind"):
        generated(opened(folders["llama"], "float32"), PROMPT, prompt_cache=path)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_longer_prompt_goes_on_from_the_file_and_is_written(
    tmp_path: Path, folders: dict[str, Path], name: str
) -> None:
    path = tmp_path / "cache"
    longer = np.append(PROMPT, [5, 6, 7, 8, 9, 10, 11, 12, 13])
    generated(opened(folders[name], "float32"), PROMPT, prompt_cache=path)
    model = opened(folders[name], "float32")
    with reads(model) as counts:
        found = generated(model, longer, prompt_cache=path)
    assert sum(counts) == 50 - WHOLE + 5
    assert found == generated(opened(folders[name], "float32"), longer)
    model = opened(folders[name], "float32")
    with reads(model) as counts:
        assert generated(model, longer, prompt_cache=path) == found
    assert sum(counts) == 50 - 48 + 5


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("common", [0, 15, 16, 31, 33])
def test_the_common_beginning_is_used(tmp_path: Path, folders: dict[str, Path], name: str, common: int) -> None:
    path = tmp_path / "cache"
    other = np.append(PROMPT[:common], (PROMPT[common:] + 1 - 3) % (VOCABULARY - 3) + 3)
    generated(opened(folders[name], "float32"), PROMPT, prompt_cache=path)
    before = path.read_bytes()
    model = opened(folders[name], "float32")
    with reads(model) as counts:
        found = generated(model, other, prompt_cache=path)
    used = common // PAGE * PAGE if name not in WINDOWED or common >= WHOLE else 0
    assert sum(counts) == 41 - used + 5
    assert found == generated(opened(folders[name], "float32"), other)
    assert (path.read_bytes() == before) == (used == WHOLE)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "seed": 3, "num_return_sequences": 3},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"guidance_scale": 1.5},
        {"prompt_lookup_num_tokens": 3},
        {"dola_layers": "high"},
        {"output_scores": True, "output_logits": True, "return_dict_in_generate": True},
    ],
    ids=str,
)
def test_every_strategy_takes_it(tmp_path: Path, folders: dict[str, Path], options: dict[str, Any]) -> None:
    path = tmp_path / "cache"

    def run(**more: Any) -> Any:
        found = load_native(folders["llama"], "float32").generate(PROMPT[None].tolist(), **(OPTIONS | options | more))
        return np.asarray(found["sequences"] if isinstance(found, dict) else found).tolist()

    expected = run()
    assert run(prompt_cache=path) == expected
    assert path.exists()
    assert run(prompt_cache=path) == expected


def test_a_prompt_of_less_than_a_page_is_not_written(tmp_path: Path, folders: dict[str, Path]) -> None:
    model, path = load_native(folders["llama"], "int8"), tmp_path / "cache"
    assert generated(model, PROMPT[:PAGE], prompt_cache=path) == generated(model, PROMPT[:PAGE])
    assert not path.exists()


def test_streams_and_engines_take_it(tmp_path: Path, folders: dict[str, Path]) -> None:
    path = tmp_path / "cache"
    model = load_native(folders["llama"], "int8")
    tokens = [token for event in model.stream(PROMPT[None], prompt_cache=path, **OPTIONS) for token in event.tokens]
    assert path.exists()
    model = load_native(folders["llama"], "int8")
    with reads(model) as counts:
        [result] = open_engine(model).submit(PROMPT, prompt_cache=path, **OPTIONS).result()
    assert list(result.tokens) == tokens
    assert sum(counts) == 41 - WHOLE + 5
    path.unlink()
    open_engine(load_native(folders["llama"], "int8")).submit(PROMPT, prompt_cache=path, **OPTIONS).result()
    assert path.exists()


def test_another_process_takes_it(tmp_path: Path, folders: dict[str, Path]) -> None:
    path = tmp_path / "cache"
    expected = generated(load_native(folders["doge"], "int8"), PROMPT, prompt_cache=path)
    program = (
        "import sys; from loquent.native.loading import load_native; from test_prompt_cache import *\n"
        "model = load_native(sys.argv[1], 'int8')\n"
        "with reads(model) as counts: print(generated(model, PROMPT, prompt_cache=sys.argv[2]), sum(counts))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    command = [sys.executable, "-c", program, str(folders["doge"]), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == f"{expected} {41 - WHOLE + 5}\n", done.stderr


# --- stores of other kinds -------------------------------------------------------------------------------------------

QUANTIZED = {
    "cache_implementation": "quantized",
    "cache_config": {"nbits": 2, "q_group_size": PAGE, "residual_length": 5},
}
OFFLOADED = {"cache_implementation": "offloaded"}


def hooked(folder: Path) -> Any:
    """A model that PyTorch runs."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("kind", [QUANTIZED, OFFLOADED], ids=["quantized", "offloaded"])
@pytest.mark.parametrize("runs", ["torch", "native"])
@pytest.mark.parametrize("name", FAMILIES)
def test_coded_and_offloaded_pages_are_kept_too(
    tmp_path: Path, folders: dict[str, Path], name: str, runs: str, kind: dict[str, Any]
) -> None:
    path, longer = tmp_path / "cache", np.append(PROMPT, [5, 6, 7, 8, 9, 10, 11, 12, 13])

    def fresh() -> Any:
        return hooked(folders[name]) if runs == "torch" else load_native(folders[name], "int8")

    expected = [generated(fresh(), prompt, **kind) for prompt in (PROMPT, longer)]
    assert generated(fresh(), PROMPT, prompt_cache=path, **kind) == expected[0]
    for prompt, whole, found in [(PROMPT, WHOLE, expected[0]), (longer, WHOLE, expected[1]), (longer, 48, expected[1])]:
        model = fresh()
        with reads(model) as counts:
            assert generated(model, prompt, prompt_cache=path, **kind) == found
        assert sum(counts) == len(prompt) - whole + 5


def test_exact_pages_go_from_memory_to_a_file_and_coded_ones_do_not(tmp_path: Path, folders: dict[str, Path]) -> None:
    path = tmp_path / "cache"
    expected = generated(load_native(folders["llama"], "int8"), PROMPT, prompt_cache=path)
    model = load_native(folders["llama"], "int8")
    with reads(model) as counts:
        assert generated(model, PROMPT, prompt_cache=path, **OFFLOADED) == expected
    assert sum(counts) == 41 - WHOLE + 5
    with pytest.raises(ArgumentError, match="another precision or kind"):
        generated(load_native(folders["llama"], "int8"), PROMPT, prompt_cache=path, **QUANTIZED)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_another_model_refuses_it(tmp_path: Path, folders: dict[str, Path]) -> None:
    path = tmp_path / "cache"
    generated(load_native(folders["llama"], "int8"), PROMPT, prompt_cache=path)
    written = path.read_bytes()
    others = [
        (load_native(folders["gpt2"], "int8"), "another model"),
        (load_native(folders["llama"], "int4"), "another model"),
        (make("llama", seed=1), "another model"),
        (load_native(folders["llama"], "int8", key_values="int8"), "another precision or kind"),
    ]
    for model, reason in others:
        with pytest.raises(ArgumentError, match=reason):
            generated(model, PROMPT, prompt_cache=path)
        assert path.read_bytes() == written


def test_weights_that_change_refuse_what_they_wrote(tmp_path: Path) -> None:
    path, model = tmp_path / "cache", make("llama")
    generated(model, PROMPT, prompt_cache=path)
    for parameter in model.parameters():
        parameter.data *= 1.01
    with pytest.raises(ArgumentError, match="whose weights have changed"):
        generated(model, PROMPT, prompt_cache=path)


def test_a_damaged_file_is_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    path, model = tmp_path / "cache", load_native(folders["llama"], "int8")
    generated(model, PROMPT, prompt_cache=path)
    written = path.read_bytes()
    for damaged in (written[:-1], written[:-1] + bytes([written[-1] ^ 1]), b"", b"something else"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="Delete it"):
            generated(model, PROMPT, prompt_cache=path)
        assert path.read_bytes() == damaged
    assert engine_of(model).scheduler.idle


def test_arguments_that_cannot_work_are_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    model = load_native(folders["llama"], "int8")
    with pytest.raises(ArgumentError, match="keeps one prompt, and there are 2"):
        model.generate([PROMPT.tolist()] * 2, prompt_cache=tmp_path / "cache", **OPTIONS)
    for path, reason in [(7, "is a int"), ("", "is a str"), (tmp_path, "is a folder"), (tmp_path / "a/b", "not there")]:
        with pytest.raises(ArgumentError, match=f"prompt_cache=.* {reason}"):
            generated(model, PROMPT, prompt_cache=path)
    with pytest.raises(ArgumentError, match="Did you mean 'prompt_cache'"):
        generated(model, PROMPT, prompt_cach="x")


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_pages_return_and_a_small_store_is_enough(tmp_path: Path, folders: dict[str, Path], name: str) -> None:
    path = tmp_path / "cache"
    expected = generated(load_native(folders[name], "int8"), PROMPT, prompt_cache=path)
    model = load_native(folders[name], "int8")
    engine = engine_of(model)
    engine.kv_memory = sum(group.bytes_per_page for group in engine.main.space.groups) * 3
    for _ in range(3):
        assert generated(model, PROMPT, prompt_cache=path) == expected
        assert engine.space.held == 0
        assert engine.space.aside == 0


def test_where_all_room_is_taken_the_prompt_is_read(tmp_path: Path, folders: dict[str, Path]) -> None:
    path = tmp_path / "cache"
    expected = generated(load_native(folders["llama"], "int8"), PROMPT, prompt_cache=path)
    model = load_native(folders["llama"], "int8")
    engine = engine_of(model)
    engine.kv_memory = engine.main.space.groups[0].bytes_per_page * 4
    other = open_engine(model).submit(PROMPT[::-1].copy(), **(OPTIONS | {"max_new_tokens": 20}))
    engine.step()
    assert generated(model, PROMPT, prompt_cache=path) == expected
    assert len(other.result()[0].tokens) == 20
    assert engine.space.held == 0
