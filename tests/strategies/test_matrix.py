"""Every strategy gives the same alone and beside all others, streamed or not, on every family and both backends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import pytest
from tokenizers import Tokenizer, decoders, models

import loquent
from loquent import GenerationConfig, GenerationHandle, LoquentError, open_engine
from loquent.engine import Engine
from loquent.engine.reader import Reader
from loquent.engine.request import Request
from loquent.generation import engine_of
from loquent.generation.binding import slot_of
from loquent.native import why_unavailable
from properties.models import EVERY, VOCABULARY, tiny

NEW = 11
ENDS = [3, 9]
STEM = [5, 6, 7, 8, 10, 5, 6, 7, 8, 12, 5, 6, 7, 1, 2, 14, 5, 6, 7, 8]
NEGATIVE = [[4, 11, 4, 2, 21]]

SAMPLED = {"do_sample": True, "temperature": 1.2, "top_k": 12, "seed": 5}
BEAMS = {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.7}
DIVERSE = {**BEAMS, "num_beam_groups": 2, "diversity_penalty": 0.6}
FORCED = {"force_words_ids": [[4, 13], [[6], [7, 8]]]}
GUIDED = {"guidance_scale": 1.7, "negative_prompt_ids": NEGATIVE}
MARKED = {"ngram_len": 3, "keys": [17, 34, 51, 68]}

REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalised": {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    "sample": {**SAMPLED, "num_return_sequences": 2},
    "beam": BEAMS,
    "beam sampling": {**BEAMS, **SAMPLED},
    "diverse": DIVERSE,
    "constrained": {**BEAMS, **FORCED},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "draft": {"assistant_model": "draft"},
    "draft, sampled": {"assistant_model": "draft", **SAMPLED},
    "early exit": {"assistant_early_exit": 1, "num_assistant_tokens": 4},
    "early exit, sampled": {"assistant_early_exit": 1, **SAMPLED, "num_return_sequences": 2},
    "lookup": {"prompt_lookup_num_tokens": 5},
    "DoLa": {"dola_layers": "low"},
    "DoLa, sampled beams": {"dola_layers": [0, 1], **BEAMS, **SAMPLED},
    "guidance": GUIDED,
    "guided beams": {**GUIDED, **BEAMS},
    "guided lookup": {**GUIDED, "prompt_lookup_num_tokens": 4},
    "guided contrastive": {**GUIDED, "penalty_alpha": 0.4, "top_k": 3},
    "mirostat": {"do_sample": True, "mirostat_mode": 2, "mirostat_tau": 3.0, "seed": 7},
    "mirostat, looked up": {"do_sample": True, "mirostat_mode": 2, "seed": 7, "prompt_lookup_num_tokens": 3},
    "SynthID": {**SAMPLED, "watermarking_config": MARKED},
}
if find_spec("llguidance") is not None:
    REQUESTS |= {
        "grammar": {"regex": "([a-h]{2}x)*[0-3]{3}y"},
        "grammar, drafted": {"regex": "([a-h]{2}x)*[0-3]{3}y", **SAMPLED, "assistant_early_exit": 1},
        "grammar beams": {"choice": ["abcabab", "abdabc", "bcd0123"], **BEAMS},
    }
PROMPTS = {
    name: [*STEM[: 3 * number % 19], number + 1, *STEM[: 5 * number % 13]] for number, name in enumerate(REQUESTS)
}

USUAL = "torch" if why_unavailable() else "native"  # what runs a model where nothing is said of it
SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "small pages": {"page_size": 2, "reuse_prefixes": False},
    "in chunks": {"page_size": 4, "step_tokens": 5},
    "few at once": {"page_size": 4, "max_running": 3, "step_tokens": 64},
}
STORES: dict[str | None, dict[str, Any]] = {
    "offloaded": {"cache_implementation": "offloaded"},
    "coded": {
        "cache_implementation": "quantized",
        "cache_config": {"nbits": 4, "q_group_size": 16, "residual_length": 5},
    },
}


class Row(NamedTuple):
    """One of a request's results."""

    tokens: tuple[int, ...]
    reason: str
    score: float | None


Results = dict[str, list[Row]]


@pytest.fixture(scope="module", params=EVERY)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@contextmanager
def running_on(backend: str) -> Iterator[None]:
    if backend == "native" and why_unavailable():
        pytest.skip("the native core is not there")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOQUENT_NATIVE", str(int(backend == "native")))
        yield


@cache
def letters() -> Any:
    """A tokenizer of as many short texts as the models have tokens; those that end a text are signs."""
    pieces = [*"abc#defgh$xy0123", "ab", "bc", *"ijklmnopqrstu"]
    assert [len(pieces), *(pieces[end] for end in ENDS)] == [VOCABULARY, "#", "$"]
    backend = Tokenizer(models.BPE(vocab={piece: at for at, piece in enumerate(pieces)}, merges=[]))
    backend.decoder = decoders.Fuse()
    return loquent.PreTrainedTokenizerFast(tokenizer_object=backend)


def submit(model: Any, name: str, **changes: Any) -> GenerationHandle:
    asked = {"max_new_tokens": NEW, "eos_token_id": ENDS, "pad_token_id": 0, **REQUESTS[name], **changes}
    further = {key: asked.pop(key) for key in ("assistant_model", "negative_prompt_ids") if key in asked}
    if "assistant_model" in further:
        further["assistant_model"] = tiny("gpt2" if model is not tiny("gpt2") else "llama")
    criteria = asked.pop("stopping_criteria", None)
    config = GenerationConfig(**asked)
    return open_engine(model, letters()).submit(PROMPTS[name], config, stopping_criteria=criteria, **further)


def rows_of(handle: GenerationHandle) -> list[Row]:
    return [Row(found.tokens, found.reason, found.score) for found in handle.result()]


@contextmanager
def engine_with(model: Any, **settings: Any) -> Iterator[Engine]:
    """The model's engine, made with other settings; nothing may be left in it."""
    own, slot = engine_of(model), slot_of(model)
    engine = slot.engine = Engine(own.backend, **settings)
    try:
        yield engine
        assert_nothing_held(engine)
    finally:
        slot.engine = own


def readers_of(engine: Engine) -> list[Reader]:
    return [engine._main, *engine._further]


def assert_nothing_held(engine: Engine) -> None:
    assert engine.scheduler.idle
    for reader in readers_of(engine):
        assert reader.space.held == 0
        assert not reader.space.aside
    engine.release_memory()
    assert engine.store_bytes == 0


def requests_of(handle: GenerationHandle) -> list[Request]:
    return [submitted.handle._request for submitted in handle._run.requests]


@cache
def alone(family: str, backend: str, name: str, store: str | None = None) -> list[Row]:
    """What a request gives by itself, in an engine that has run nothing else."""
    model = tiny(family)
    with engine_with(model, reuse_prefixes=False) as engine:
        assert engine.backend.describe().startswith(backend)
        return rows_of(submit(model, name, **STORES.get(store, {})))


def all_alone(family: str, backend: str) -> Results:
    return {name: alone(family, backend, name) for name in REQUESTS}


def assert_equal(found: Results, expected: Results) -> None:
    assert {name: [row[:2] for row in rows] for name, rows in found.items()} == {
        name: [row[:2] for row in expected[name]] for name in found
    }
    for name, rows in found.items():
        assert [row.score for row in rows] == pytest.approx([row.score for row in expected[name]], abs=1e-4)


def arriving(model: Any, every: int = 2) -> dict[str, GenerationHandle]:
    """All of the requests, a few at each step of the engine."""
    handles = {}
    for number, name in enumerate(REQUESTS):
        handles[name] = submit(model, name)
        if number % every == 0:
            open_engine(model).step()
    return handles


def streamed(handles: dict[str, GenerationHandle]) -> Results:
    """The requests' streams in turn, a piece of each."""
    streams = {name: handle.stream() for name, handle in handles.items()}
    pieces: dict[str, dict[int, list[int]]] = {name: {} for name in handles}
    reasons: dict[str, dict[int, str]] = {name: {} for name in handles}
    while streams:
        for name, stream in list(streams.items()):
            event = next(stream, None)
            if event is None:
                del streams[name]
                continue
            assert event.row not in reasons[name]
            pieces[name].setdefault(event.row, []).extend(event.tokens)
            if event.finished:
                reasons[name][event.row] = event.finished
    return {
        name: [Row(tuple(pieces[name][row]), reasons[name][row], result.score) for row, result in enumerate(results)]
        for name, results in ((name, rows_of(handle)) for name, handle in handles.items())
    }


def test_backends_agree(family: str) -> None:
    found = {}
    for backend in ("native", "torch"):
        with running_on(backend):
            found[backend] = all_alone(family, backend)
    assert_equal(found["native"], found["torch"])


@pytest.mark.parametrize("how", SETTINGS)
@pytest.mark.parametrize("backend", ["native", pytest.param("torch", marks=pytest.mark.slow)])
def test_beside_all_others(family: str, backend: str, how: str) -> None:
    """Arriving at different steps; then once more, where the beginnings of all prompts are remembered."""
    with running_on(backend):
        check_beside_all_others(family, backend, how)


@pytest.mark.parametrize("family", ["llama-dynamic", "gpt2", "doge"])
def test_beside_all_others_on_torch(family: str) -> None:
    with running_on("torch"):
        check_beside_all_others(family, "torch", "in chunks")


def check_beside_all_others(family: str, backend: str, how: str) -> None:
    model = tiny(family)
    expected = all_alone(family, backend)
    with engine_with(model, **SETTINGS[how]):
        assert_equal({name: rows_of(handle) for name, handle in arriving(model).items()}, expected)
        assert_equal(streamed(arriving(model, every=3)), expected)


@pytest.mark.parametrize("backend", ["native", pytest.param("torch", marks=pytest.mark.slow)])
def test_in_a_store_that_is_nearly_full(family: str, backend: str) -> None:
    """As many pages as the largest request may hold: all others wait, share what is left, and reuse what they can."""
    with running_on(backend):
        check_in_a_store_that_is_nearly_full(family, backend)


def check_in_a_store_that_is_nearly_full(family: str, backend: str) -> None:
    model = tiny(family)
    expected = all_alone(family, backend)
    with engine_with(model, page_size=2) as engine:
        asked = [submit(model, name) for name in REQUESTS]
        most = max(request.most_bytes for request in engine.scheduler.waiting)
        for handle in asked:
            handle.cancel()
    with engine_with(model, page_size=2, kv_memory=most) as engine:
        handles = arriving(model)
        requests = [request for handle in handles.values() for request in requests_of(handle)]
        results = {name: rows_of(handle) for name, handle in handles.items()}
        assert sum(request.evictions for request in requests) > 0
        assert engine.space.budget.taken <= most
    assert_equal(results, expected)


@pytest.mark.parametrize("store", STORES)
def test_in_other_stores(family: str, store: str) -> None:
    """All strategies beside one another, each other one in the plain store, in chunks, with little room."""
    model, kinds = tiny(family), [STORES[store], {}]
    with running_on(USUAL):
        expected = {name: alone(family, USUAL, name, store) for name in [*REQUESTS][::2]}
        expected |= {name: alone(family, USUAL, name) for name in [*REQUESTS][1::2]}
        if store == "offloaded":
            assert_equal(expected, all_alone(family, USUAL))
        with engine_with(model, page_size=4, step_tokens=7) as engine:
            for _ in range(2):
                handles = {}
                for number, name in enumerate(REQUESTS):
                    handles[name] = submit(model, name, **kinds[number % 2])
                    open_engine(model).step()
                engine.kv_memory = max(request.most_bytes for h in handles.values() for request in requests_of(h))
                assert_equal({name: rows_of(handle) for name, handle in handles.items()}, expected)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("page_size", [1, 4])
def test_pages_held_are_those_of_live_sequences(name: str, page_size: int) -> None:
    """And never more than was set aside for the request when it was let in."""
    model = tiny("llama")
    with engine_with(model, page_size=page_size, reuse_prefixes=False) as engine:
        handle = submit(model, name)
        requests = list(engine.scheduler.waiting)
        going = True
        while going:
            going = engine.step()
            live = [sequence for request in requests for sequence in request.sequences]
            live += [sequence.shadow for sequence in live if sequence.shadow is not None]
            for reader in readers_of(engine):
                own = [sequence for sequence in live if sequence.home is reader]
                assert reader.space.held == len({page for sequence in own for page in sequence.tables[0].tolist()})
            held = sum(reader.space.held_bytes for reader in readers_of(engine))
            assert held <= sum(request.most_bytes for request in requests)
        assert handle.done


class BrokenError(Exception):
    """What a caller's criterion raises."""


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("step", [0, 1, 4])
def test_who_leaves_or_fails_takes_nothing_along(name: str, step: int) -> None:
    """A request of each strategy is cancelled at some step, another one fails; what they share with others stays."""
    model, expected = tiny("llama"), {other: alone("llama", USUAL, other) for other in ("greedy", "beam", "draft")}

    def breaks(tokens: Any, scores: Any) -> bool:
        if tokens.shape[1] > len(PROMPTS[name]) + min(step, 1):
            raise BrokenError
        return False

    with engine_with(model, page_size=2) as engine:
        leaving, failing = submit(model, name), submit(model, name, stopping_criteria=[breaks], eos_token_id=None)
        others = {other: submit(model, other) for other in expected}
        for _ in range(step):
            engine.step()
        leaving.cancel()
        results = {other: rows_of(handle) for other, handle in others.items()}
        with pytest.raises((BrokenError, LoquentError)):
            failing.result()
        assert {row.reason for row in leaving.so_far()} <= {"cancelled", "eos", "length", "grammar"}
    assert_equal(results, expected)


def test_a_config_for_each_row(family: str) -> None:
    """The rows of one `generate()`: all strategies whose arguments are fields of a config, from one padded batch."""
    model = tiny(family)
    names = [name for name, asked in REQUESTS.items() if not {"assistant_model", "negative_prompt_ids"} & set(asked)]
    shared = {"max_new_tokens": NEW, "eos_token_id": ENDS, "pad_token_id": 0}
    configs = [GenerationConfig(**{**shared, **REQUESTS[name]}) for name in names]
    width = max(len(PROMPTS[name]) for name in names)
    prompts = [[0] * (width - len(PROMPTS[name])) + PROMPTS[name] for name in names]
    mask = [[0] * (width - len(PROMPTS[name])) + [1] * len(PROMPTS[name]) for name in names]
    found = model.generate(prompts, configs, attention_mask=mask, tokenizer=letters())[:, width:].tolist()
    expected = [row.tokens for name in names for row in alone(family, USUAL, name)]
    assert [tuple(row[: len(tokens)]) for row, tokens in zip(found, expected)] == expected
    assert not any(any(row[len(tokens) :]) for row, tokens in zip(found, expected))
    assert engine_of(model).space.held == 0
