"""Pages on the host: what a layer needs of them is brought to the model's device one layer ahead, beside computing.

A step has two buffers on the device. While a layer computes with what is in one of them, the next one's pages go to the
other. New entries are written into the copy, and taken back to the host. See `torch.errands` for what is fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from loquent.cache import Coding
from loquent.parts import Decoder
from loquent.torch.coded_pages import CodedPages, code_pages
from loquent.torch.errands import Errand, Run, make_errand
from loquent.torch.groups import Row
from loquent.torch.page_memory import HostMemory, LentMemory, PageMemory
from loquent.torch.page_tensors import PageTensors
from loquent.torch.places import Place
from loquent.torch.side_copies import Mark, Pair, SideCopies
from loquent.torch.store import PageStore, StepPages


class LayerPages(NamedTuple):
    """The pages of a layer, those of a store or copies of some."""

    exact: PageTensors
    coded: CodedPages | None


class OffloadedStore(PageStore):
    """A `PageStore` on the host. `copies` bring its pages to the device, and back."""

    def __init__(
        self, decoder: Decoder, page_size: int, dtype: torch.dtype, copies: SideCopies, coding: Coding | None = None
    ) -> None:
        self._copies = copies
        super().__init__(decoder, page_size, dtype, HostMemory(copies), coding)

    def planes(self, layer: int) -> list[Tensor]:
        """The exact planes of a layer, on the host."""
        self._copies.finish()
        return super().planes(layer)

    def coded(self, layer: int) -> CodedPages:
        """The coded pages of a layer that has some, on the host."""
        self._copies.finish()
        return super().coded(layer)

    def open_step(self, rows: Sequence[Row], places: Sequence[Place], device: torch.device) -> StepPages:
        """What the layers of a step write and read, whose places are these: copies on the device."""
        errands = {place: make_errand(rows, place, self.page_size, device) for place in dict.fromkeys(places)}
        return BroughtPages(self, [errands[place] for place in places], self._copies, device)

    def layer(self, layer: int) -> LayerPages:
        """The pages of a layer; copies may be under way."""
        return LayerPages(self._exact[layer], self._coded.get(layer))

    def make_layer(self, layer: int, memory: PageMemory) -> LayerPages:
        """No pages yet, to take some of a layer's in."""
        part = self._parts[layer]
        coded = self._make_coded(part, memory) if layer in self._coded else None
        return LayerPages(self._make_exact(part, memory), coded)

    def _held(self, group: int) -> Sequence[PageTensors | CodedPages]:
        self._copies.finish()  # whoever asks reads or writes pages on the host
        return super()._held(group)


class _Arrival(NamedTuple):
    """What one of the buffers holds."""

    layer: int
    pages: LayerPages
    mark: Mark


class BroughtPages:
    """The `StepPages` of an `OffloadedStore`: copies on the device of the pages that each layer needs."""

    def __init__(
        self, store: OffloadedStore, errands: Sequence[Errand], copies: SideCopies, device: torch.device
    ) -> None:
        self.plans = [errand.plan for errand in errands]
        self._store, self._errands, self._copies = store, errands, copies
        size = max(_size(store.layer(layer), errand) for layer, errand in enumerate(errands))
        self._buffers = [torch.empty(size, dtype=torch.uint8, device=device) for _ in errands[:2]]
        for buffer in self._buffers:
            copies.keep(buffer)
        self._arrivals = [self._fetch(layer) for layer in range(len(self._buffers))]

    def write(self, layer: int, entries: Sequence[Tensor]) -> None:
        """Remember the new tokens' keys and values, and code the pages that need it."""
        errand, pages, stored = self._errands[layer], self._arrive(layer), self._store.layer(layer)
        planes = pages.exact.tensors
        packed = [entry.detach().to(plane.dtype).contiguous() for plane, entry in zip(planes, entries)]
        if len(errand.slots):
            for plane, entry in zip(planes, packed):
                some = entry if errand.tokens is None else entry.index_select(0, errand.tokens)
                plane.index_copy_(0, errand.slots, some)
        for entry in packed:
            self._copies.keep(entry)
        self._copies.copy(_pairs(stored.exact.tensors, packed, errand.returned))
        if errand.fresh is not None and pages.coded is not None and stored.coded is not None:
            exact, coded = errand.fresh
            code_pages(pages.exact.tensors, self._store.page_size, exact, pages.coded, coded)
            self._copies.copy(_pairs(stored.coded.by_page(), pages.coded.by_page(), errand.returned_coded))

    def planes(self, layer: int) -> list[Tensor]:
        """The exact planes of a layer, as far as they were brought."""
        return self._here(layer).exact.tensors

    def coded(self, layer: int) -> CodedPages:
        """The coded pages of a layer, as far as they were brought."""
        pages = self._here(layer).coded
        assert pages is not None
        return pages

    def _arrive(self, layer: int) -> LayerPages:
        """The pages of a layer, whose turn it is; those of the next one come to where the last one's were."""
        for wanted in (layer, layer + 1):
            # Layers that are computed again, for gradients, come in another order.
            if wanted < len(self._errands) and self._arrivals[wanted % 2].layer != wanted:
                self._arrivals[wanted % 2] = self._fetch(wanted)
        self._copies.wait(self._arrivals[layer % 2].mark)
        return self._here(layer)

    def _here(self, layer: int) -> LayerPages:
        arrival = self._arrivals[layer % 2]
        assert arrival.layer == layer, "layers read what they have written before the next one writes"
        return arrival.pages

    def _fetch(self, layer: int) -> _Arrival:
        errand, stored = self._errands[layer], self._store.layer(layer)
        pages = self._store.make_layer(layer, LentMemory(self._buffers[layer % 2]))
        pages.exact.resize(errand.exact)
        pairs = list(_pairs(_by_page(pages.exact), _by_page(stored.exact), errand.fetched))
        if pages.coded is not None and stored.coded is not None:
            pages.coded.resize(errand.coded)
            pairs += _pairs(_by_page(pages.coded), _by_page(stored.coded), errand.fetched_coded)
        return _Arrival(layer, pages, self._copies.copy(pairs))


def _size(stored: LayerPages, errand: Errand) -> int:
    """The bytes of a buffer that a layer's pages fit in."""
    size = _size_of(stored.exact, errand.exact)
    return size if stored.coded is None else size + _size_of(stored.coded, errand.coded)


def _size_of(pages: PageTensors | CodedPages, count: int) -> int:
    return pages.bytes_per_page * count + len(pages.tensors) * LentMemory.alignment


def _by_page(pages: PageTensors | CodedPages) -> list[Tensor]:
    """The tensors as (pages, numbers of a page); those without pages have no such shape."""
    return pages.by_page() if all(len(tensor) for tensor in pages.tensors) else []


def _pairs(targets: Sequence[Tensor], sources: Sequence[Tensor], runs: Sequence[Run]) -> Iterator[Pair]:
    for target, source in zip(targets, sources):
        for run in runs:
            yield target[run.target : run.target + run.length], source[run.source : run.source + run.length]
