"""How a request's keys and values are kept: bound to readers of the model's engine, for each row by itself."""

from __future__ import annotations

import copy
import gc
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

import loquent
from loquent import ArgumentError, CapacityError, GenerationConfig, MissingExtraError, open_engine
from loquent.cache import PLAIN, Coding, StoreKind
from loquent.generation import binding, engine_of
from loquent.generation.stores import MOST_KEPT, home_of
from loquent.native import why_unavailable

PROMPT = (torch.arange(40)[None] * 7) % 31 + 5
GREEDY = {"max_new_tokens": 12, "do_sample": False}
CODED = {"cache_implementation": "quantized", "cache_config": {"nbits": 2, "q_group_size": 16, "residual_length": 2}}
COARSE = {"cache_implementation": "quantized", "cache_config": {"nbits": 1, "q_group_size": 16, "residual_length": 1}}


def coded(bits: int) -> StoreKind:
    return StoreKind(coding=Coding(bits, 16, 2))


# --- readers ----------------------------------------------------------------------------------------------------------


def test_a_kind_has_one_reader_and_the_plain_one_is_the_engines_own(model: Any) -> None:
    engine = engine_of(model)
    assert home_of(engine, model, PLAIN) is None
    reader = home_of(engine, model, coded(4))
    assert reader is home_of(engine, model, coded(4))
    assert reader is not home_of(engine, model, coded(2))
    assert reader is not None
    assert reader.kind == coded(4)


def test_the_kinds_that_were_used_longest_ago_are_let_go(model: Any) -> None:
    engine = engine_of(model)
    kinds = [StoreKind(coding=Coding(4, 16, residual)) for residual in range(1, MOST_KEPT + 1)]
    readers = [weakref.ref(home_of(engine, model, kind)) for kind in kinds]
    home_of(engine, model, kinds[0])  # used again
    home_of(engine, model, coded(8))
    gc.collect()
    assert [reader() is None for reader in readers] == [False, True, False, False]


def test_a_request_keeps_the_store_that_it_reads_with(model: Any) -> None:
    alone = model.generate(PROMPT, **CODED, **GREEDY)
    handle = open_engine(model).submit(PROMPT[0].tolist(), **CODED, **GREEDY)
    engine_of(model).step()
    for residual in range(1, MOST_KEPT + 2):
        home_of(engine_of(model), model, StoreKind(coding=Coding(4, 16, residual)))
    assert [list(result.tokens) for result in handle.result()] == alone[:, PROMPT.shape[1] :].tolist()


def test_a_criterion_may_generate_while_another_thread_opens_a_store(model: Any) -> None:
    """Each of both waits for a lock that the other has, where a store is opened under the model's own."""
    engine, other = engine_of(model), threading.Thread(target=lambda: home_of(engine, model, coded(8)))

    def generates(ids: Any, scores: Any) -> bool:
        if not other.ident:
            other.start()
            other.join(0.3)  # it waits for this step
        return bool(model.generate([[5, 6]], max_new_tokens=1).shape[1] == 0)

    model.generate(PROMPT, stopping_criteria=[generates], max_new_tokens=2)
    other.join(60)
    assert not other.is_alive()


# --- results ----------------------------------------------------------------------------------------------------------

STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "seed": 3, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "lookup": {"prompt_lookup_num_tokens": 3},
    "early exit": {"assistant_early_exit": 1},
}


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_offloaded_pages_change_nothing(model: Any, strategy: dict[str, Any], tmp_path: Path) -> None:
    options = {"max_new_tokens": 12, **strategy}
    plain = model.generate(PROMPT, **options)
    for name in ("offloaded", "offloaded_static"):
        kept = model.generate(PROMPT, cache_implementation=name, offload_folder=tmp_path, **options)
        assert torch.equal(kept, plain)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_nothing_is_coded_within_the_residual(model: Any, strategy: dict[str, Any]) -> None:
    options = {"max_new_tokens": 12, **strategy}
    wide = {"nbits": 1, "q_group_size": 16, "residual_length": 64}
    exact = model.generate(PROMPT, cache_implementation="quantized", cache_config=wide, **options)
    assert torch.equal(exact, model.generate(PROMPT, **options))


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_coded_row_is_the_same_in_any_company(model: Any, strategy: dict[str, Any]) -> None:
    options = {"max_new_tokens": 12, **strategy}
    rows = [PROMPT[0].tolist(), PROMPT[0, :30].tolist(), [5, 6, 7]]
    seeds = {"seed": 3}
    alone = [model.generate([row], **{**options, **seeds}, **CODED)[:, len(row) :].tolist() for row in rows]
    handles = [open_engine(model).submit(row, **{**options, **seeds}, **CODED) for row in rows]
    assert [[list(result.tokens) for result in handle.result()] for handle in handles] == alone


def test_few_bits_are_few(model: Any) -> None:
    """What is coded is seen so: scores differ, less with more bits."""
    scores = {}
    for bits in (None, 8, 4, 2, 1):
        kept = {} if bits is None else copy.deepcopy(CODED)
        if bits is not None:
            kept["cache_config"]["nbits"] = bits
        out = model.generate(PROMPT, max_new_tokens=1, output_logits=True, return_dict_in_generate=True, **kept)
        scores[bits] = out.logits[0]
    errors = [float((scores[bits] - scores[None]).norm()) for bits in (8, 4, 2, 1)]
    assert 0 < errors[0] < errors[1] < min(errors[2:])


def test_rows_are_kept_each_in_its_own_way(model: Any) -> None:
    asked = [{}, CODED, {"cache_implementation": "offloaded"}, COARSE, {"num_beams": 2, **CODED}]
    configs = [GenerationConfig(**fields) for fields in asked]
    rows = PROMPT.repeat(len(configs), 1)
    together = model.generate(rows, configs, **GREEDY)
    alone = [model.generate(PROMPT, config, **GREEDY)[0].tolist() for config in configs]
    assert together.tolist() == alone
    assert alone[0] == alone[2] != alone[3]


def test_the_models_own_config_may_say_it(model: Any, tmp_path: Path) -> None:
    expected = model.generate(PROMPT, **COARSE, **GREEDY)
    GenerationConfig(**COARSE).save_pretrained(tmp_path)
    model.generation_config = GenerationConfig.from_pretrained(tmp_path)
    assert torch.equal(model.generate(PROMPT, **GREEDY), expected)
    dynamic = model.generate(PROMPT, cache_implementation="dynamic", **GREEDY)
    assert not torch.equal(dynamic, expected)


def test_nothing_old_is_used_after_the_weights_changed(model: Any) -> None:
    model = copy.deepcopy(model)
    model.generate(PROMPT, **CODED, **GREEDY)
    model.generate(PROMPT, **GREEDY)
    for parameter in model.parameters():
        parameter.data.mul_(1.3)
    fresh = copy.deepcopy(model)
    for kept in ({}, CODED):
        assert torch.equal(model.generate(PROMPT, **kept, **GREEDY), fresh.generate(PROMPT, **kept, **GREEDY))


# --- libraries --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")
@pytest.mark.parametrize("library", ["quanto", "HQQ"])
def test_a_library_needs_tensors_to_code(shared_data: Path, library: str) -> None:
    native = loquent.load(shared_data / "models/stories260k", precision="int8")
    with pytest.raises(ArgumentError, match=r"codes tensors of PyTorch, and a NativeModel has none. Pass backend="):
        native.generate("Once", cache_implementation="quantized", cache_config={"backend": library})


@pytest.mark.parametrize(("library", "module"), [("quanto", "optimum"), ("HQQ", "hqq")])
def test_a_library_that_is_missing_is_named(
    model: Any, library: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf'pip install "loquent\[{library.lower()}\]"'):
        model.generate(PROMPT, cache_implementation="quantized", cache_config={"backend": library})


# --- the budget -------------------------------------------------------------------------------------------------------


def test_a_budget_is_said_when_loading_or_when_the_engine_is_opened(model: Any, shared_data: Path) -> None:
    loaded = loquent.load(shared_data / "models/stories260k", kv_memory="1.5MB")
    assert engine_of(loaded.model).kv_memory == 1_500_000
    open_engine(loaded, kv_memory="2MiB")
    assert engine_of(loaded.model).kv_memory == 2 << 20
    open_engine(loaded)
    assert engine_of(loaded.model).kv_memory == 2 << 20
    with pytest.raises(ArgumentError, match="kv_memory='much' is not a size"):
        open_engine(model, kv_memory="much")
    with pytest.raises(ArgumentError, match="kv_memory=0 is not a size"):
        loquent.load(shared_data / "models/stories260k", kv_memory=0)


def test_a_budget_outlasts_an_engine(model: Any) -> None:
    model = copy.deepcopy(model)
    open_engine(model, kv_memory=12_345_678)
    first = engine_of(model)
    model.bfloat16()
    assert engine_of(model) is not first
    assert engine_of(model).kv_memory == 12_345_678


def test_without_one_most_of_what_is_free_is_the_budget(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(model)
    backend = type(engine_of(copy.deepcopy(model)).backend)
    monkeypatch.setattr(backend, "free_memory", lambda self: 1_000_000)
    assert engine_of(model).kv_memory == int(1_000_000 * binding.KV_SHARE)
    monkeypatch.setattr(backend, "free_memory", lambda self: None)
    assert engine_of(copy.deepcopy(model)).kv_memory is None


def test_what_exceeds_the_budget_is_refused_up_front_and_runs_from_a_file(model: Any) -> None:
    model = copy.deepcopy(model)
    plain = model.generate(PROMPT, **GREEDY)
    open_engine(model, kv_memory=8_000)
    with pytest.raises(CapacityError, match=r"kv_memory is 8 KiB.*offloaded"):
        model.generate(PROMPT, **GREEDY)
    assert torch.equal(model.generate(PROMPT, cache_implementation="offloaded", **GREEDY), plain)


def test_memory_is_told_by_place_and_form(model: Any) -> None:
    engine = open_engine(model)
    handles = [
        engine.submit(PROMPT[0].tolist(), **kept, **GREEDY)
        for kept in ({}, CODED, {"cache_implementation": "offloaded"})
    ]
    for _ in range(3):
        engine.step()
    held = [part for part in engine.memory() if part.held]
    assert {(part.place, part.form) for part in held} == {
        ("memory", "exact"),
        ("memory", "coded"),
        ("file", "exact"),
    }
    assert all(part.held <= part.taken for part in held)
    for handle in handles:
        handle.result()
    assert all(part.held == 0 for part in engine.memory())
