"""Pages on the host of a device, brought to it layer by layer: what is read is what plain stores give, to the bit.

The copies are forced on models on a CPU, made as early as a device could make them, and as late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import pieces_of, rows_of
from tiny_models import ALL, tiny

from loquent import open_engine
from loquent.cache import PLAIN, Coding, StoreKind
from loquent.engine import Engine
from loquent.errors import CapacityError
from loquent.generation import engine_of
from loquent.generation.binding import slot_of
from loquent.torch import runner, store
from loquent.torch.offloaded import OffloadedStore
from loquent.torch.page_memory import DeviceMemory, HostMemory
from loquent.torch.runner import TorchBackend
from loquent.torch.side_copies import InLine, Pair, SideCopies
from loquent.torch.store import PageStore

ON_HOST = StoreKind(offloaded=True)


class Late(InLine):
    """Copies that are made no earlier than somebody waits for them."""

    def __init__(self) -> None:
        self._asked: list[list[Pair]] = []
        self._made = 0

    def copy(self, pairs: Iterable[Pair]) -> int:
        self._asked.append(list(pairs))
        return len(self._asked)

    def wait(self, mark: Any) -> None:
        while self._made < mark:
            for target, source in self._asked[self._made]:
                target.copy_(source)
            self._made += 1

    def finish(self) -> None:
        self.wait(len(self._asked))


@pytest.fixture(params=[InLine, Late], ids=["early", "late"])
def forced(request: pytest.FixtureRequest) -> Iterator[None]:
    """Offloaded stores of models on a CPU are on the host, too."""
    with pytest.MonkeyPatch.context() as patch:
        force(patch, request.param)
        yield


def force(patch: pytest.MonkeyPatch, copies: type[SideCopies]) -> None:
    def open_store(decoder: Any, page_size: int, kind: StoreKind, dtype: torch.dtype, device: torch.device) -> Any:
        if kind.offloaded:
            return OffloadedStore(decoder, page_size, dtype, copies(), kind.coding)
        return store.open_store(decoder, page_size, kind, dtype, device)

    patch.setattr(runner, "open_store", open_store)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_the_bits_are_those_of_the_plain_store(name: str, dtype: torch.dtype, data: st.DataObject) -> None:
    backend, pieces, seed = TorchBackend(tiny(name).to(dtype)), data.draw(pieces_of(60)), data.draw(st.integers(0, 99))
    assert torch.equal(rows_of(backend, PLAIN, pieces, seed), rows_of(backend, ON_HOST, pieces, seed))


DEEP: dict[str, dict[str, Any]] = {
    "llama": {"num_hidden_layers": 5},
    "gpt_neo": {"num_layers": 6, "attention_types": [[["global", "local", "local"], 2]]},
}


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("name", DEEP)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_buffers_are_used_again_by_later_layers(name: str, data: st.DataObject) -> None:
    backend = TorchBackend(tiny(name, **DEEP[name]))
    pieces, seed = data.draw(pieces_of(60)), data.draw(st.integers(0, 99))
    coding = data.draw(st.none() | st.builds(Coding, st.just(4), st.just(16), st.integers(1, 9)))
    plain, brought = (rows_of(backend, StoreKind(coding, offloaded), pieces, seed) for offloaded in (False, True))
    assert torch.equal(plain, brought)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("name", ["llama", "gpt_neo", "doge-keep"])
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_coded_pages_are_brought_too(name: str, data: st.DataObject) -> None:
    backend, pieces, seed = TorchBackend(tiny(name)), data.draw(pieces_of(60)), data.draw(st.integers(0, 99))
    coding = Coding(data.draw(st.sampled_from([2, 8])), 16, data.draw(st.integers(1, 20)))
    plain, brought = (rows_of(backend, StoreKind(coding, offloaded), pieces, seed) for offloaded in (False, True))
    assert torch.equal(plain, brought)


# --- in an engine ----------------------------------------------------------------------------------------------------

STEM = [5, 6, 7, 8, 10, 5, 6, 7, 8, 12, 5, 6, 7, 1, 2, 14]
REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "samples": {"do_sample": True, "seed": 5, "num_return_sequences": 3},
    "beams": {"num_beams": 4, "num_return_sequences": 2},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "lookup": {"prompt_lookup_num_tokens": 5},
    "early exit": {"assistant_early_exit": 1, "num_assistant_tokens": 4},
    "greedy again": {},
}


class Outcome(NamedTuple):
    """What came of all requests."""

    rows: dict[str, list[tuple[tuple[int, ...], float | None]]]
    places: set[str]
    evictions: int


def generated(model: Any, **settings: Any) -> Outcome:
    """What all requests give side by side in an engine of their own, twice: then beginnings are known."""
    own, slot = engine_of(model), slot_of(model)
    engine = slot.engine = Engine(own.backend, page_size=2, step_tokens=23, **settings)
    rows: dict[str, list[Any]] = {name: [] for name in REQUESTS}
    evictions = 0
    try:
        for _ in range(2):
            handles = {}
            for number, (name, asked) in enumerate(REQUESTS.items()):
                prompt = [*STEM, number % 3, *STEM[:number]]
                handles[name] = open_engine(model).submit(
                    prompt, max_new_tokens=14, cache_implementation="offloaded", **asked
                )
                engine.step()
            for name, handle in handles.items():
                rows[name] += [(result.tokens, result.score) for result in handle.result()]
                evictions += sum(submitted.handle._request.evictions for submitted in handle._run.requests)
        assert not any(part.held for part in engine.memory())
        return Outcome(rows, {part.place for part in engine.memory() if part.taken}, evictions)
    finally:
        slot.engine = own


@pytest.mark.parametrize("name", ["llama", "gpt_neo", "doge-keep"])
def test_strategies_give_what_they_give_with_pages_in_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUENT_NATIVE", "0")
    expected = generated(tiny(name))
    assert expected.places == {"file"}
    force(monkeypatch, Late)
    found = generated(tiny(name))
    assert found.places == {"host"}
    assert found.rows == expected.rows


def test_requests_whose_pages_were_taken_away_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUENT_NATIVE", "0")
    expected = generated(tiny("llama"))
    force(monkeypatch, Late)
    monkeypatch.setattr(HostMemory, "place", "memory")  # what is there counts
    found = generated(tiny("llama"), kv_memory=38_000)
    assert found.evictions
    assert {name: [row[0] for row in rows] for name, rows in found.rows.items()} == {
        name: [row[0] for row in rows] for name, rows in expected.rows.items()
    }


# --- memory ----------------------------------------------------------------------------------------------------------


def test_a_host_without_room_is_said_and_changes_nothing() -> None:
    kept = OffloadedStore(tiny("llama").decoder, 4, torch.float32, InLine())
    kept.resize(0, 3)
    with pytest.raises(CapacityError, match=r"The host has no room for .* GiB more of offloaded .* shorter context"):
        kept.resize(0, 1 << 45)
    assert kept.pages(0) == 3
    assert kept.read_pages(0, range(3)).shape == (3, kept.groups[0].bytes_per_page)


def test_pages_go_from_one_kind_to_the_other() -> None:
    decoder = tiny("gpt_neo").decoder
    copies = Late()
    stores = [PageStore(decoder, 4, torch.float32, DeviceMemory(torch.device("cpu")))]
    stores.append(OffloadedStore(decoder, 4, torch.float32, copies))
    assert stores[0].format == stores[1].format
    for group, shape in enumerate(stores[0].groups):
        content = np.random.default_rng(1).integers(0, 256, (9, shape.bytes_per_page), np.uint8)
        for kept in stores:
            kept.resize(group, 9)
            kept.write_pages(group, range(9), content)
            kept.copy(group, [1], [7])
            kept.clear(group, [2])
        assert np.array_equal(*(kept.read_pages(group, range(9)) for kept in stores))


# --- a device --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ALL)
def test_a_device_gives_the_bits_of_its_plain_store(name: str, dtype: torch.dtype) -> None:
    backend = TorchBackend(tiny(name).to("cuda", dtype))
    kept = backend.open_store(4, ON_HOST)
    assert kept.place == "host"
    kept.resize(0, 1)
    assert kept.planes(0)[0].is_pinned()
    for seed in range(8):
        pieces = [[seed + 3, 1, 1, 30, 1], [20, 1, 7], [1] * 12, [25, 1, 1, 1]]
        assert torch.equal(rows_of(backend, PLAIN, pieces, seed), rows_of(backend, ON_HOST, pieces, seed))
    coding = Coding(2, 16, 5)
    plain, brought = (rows_of(backend, StoreKind(coding, offloaded), pieces, 1) for offloaded in (False, True))
    assert torch.equal(plain, brought)
