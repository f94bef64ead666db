"""Pages on the host of a device, brought to it layer by layer: what is read is what plain stores give, to the bit.

The copies are forced on models on a CPU, made as early as a device could make them, and as late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import pieces_of, rows_of
from tiny_models import ALL, tiny

from loquent.cache import PLAIN, Coding, StoreKind
from loquent.errors import CapacityError
from loquent.torch import runner, store
from loquent.torch.offloaded import OffloadedStore
from loquent.torch.runner import TorchBackend
from loquent.torch.side_copies import InLine, Pair, SideCopies, SideStream

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


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("name", ["llama", "gpt_neo", "doge-keep"])
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_coded_pages_are_brought_too(name: str, data: st.DataObject) -> None:
    backend, pieces, seed = TorchBackend(tiny(name)), data.draw(pieces_of(60)), data.draw(st.integers(0, 99))
    coding = Coding(data.draw(st.sampled_from([2, 8])), 16, data.draw(st.integers(1, 20)))
    plain, brought = (rows_of(backend, StoreKind(coding, offloaded), pieces, seed) for offloaded in (False, True))
    assert torch.equal(plain, brought)
