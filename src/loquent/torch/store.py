"""The page store in torch: for each layer its planes in pages; which page is whose is decided by its user.

Slots that nobody has written hold zeros, and later whatever their last owner left: a masked read may cover them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loquent.cache import Coding, LayerGroup, PageGroup, StoreKind, layer_groups
from loquent.errors import CapacityError
from loquent.parts import Attention, Decoder
from loquent.torch.coded_pages import CodedPages, KiviPages, check_codes, code_pages
from loquent.torch.groups import Plan, Row
from loquent.torch.library_pages import LibraryPages, library_version
from loquent.torch.page_memory import DeviceMemory, FileMemory, PageMemory
from loquent.torch.page_tensors import PageTensors
from loquent.torch.places import Place, fresh_pages, slots_of
from loquent.torch.side_copies import side_copies


class StepPages(Protocol):
    """What the layers of one step write and read."""

    @property
    def plans(self) -> Sequence[Plan]:
        """Of each layer, which sequences are attended together, and where in `planes` and `coded` their keys are."""

    def write(self, layer: int, entries: Sequence[Tensor]) -> None:
        """Remember the new tokens' keys and values, (tokens, ...) for each plane, and code the pages that need it.

        Layers write in their order, and read before the next one writes.
        """

    def planes(self, layer: int) -> list[Tensor]:
        """The exact planes of a layer, (slots, ...)."""

    def coded(self, layer: int) -> CodedPages:
        """The coded pages of a layer that has some."""


class PageStore:
    """Keys, values and, for Doge, dynamic mask values of every layer, in pages of `page_size` tokens.

    Layers that see the same span of tokens in the same form are a group: they share page numbers.

    Args:
        decoder: the model's composition.
        page_size: tokens of a page, unless it is coded.
        dtype: the type of numbers.
        memory: where the pages are.
        coding: how older pages are coded; None: not at all.

    Raises:
        ArgumentError: pages cannot be coded so.
        MissingExtraError: a library that is not installed.
    """

    def __init__(
        self,
        decoder: Decoder,
        page_size: int,
        dtype: torch.dtype,
        memory: PageMemory,
        coding: Coding | None = None,
    ) -> None:
        if coding is not None:
            check_codes(coding)
        self.page_size = page_size if coding is None else coding.group
        self.dtype, self.place, self._device, self._coding = dtype, memory.place, memory.device, coding
        self._parts = [block.attention for block in decoder.blocks]
        self._exact = [self._make_exact(part, memory) for part in self._parts]
        self._layers = layer_groups([part.window for part in self._parts], coding)
        self.exact_group, self.coded_group = _places(self._layers)
        """For each layer the group of its exact pages, and that of its coded ones, if it has some."""
        self._coded = {layer: self._make_coded(self._parts[layer], memory) for layer in self.coded_group}
        self.groups = [self._describe(index) for index in range(len(self._layers))]
        self._pages = [0] * len(self.groups)

    @property
    def format(self) -> str:
        """What the bytes of `read_pages` mean: the type of numbers, how they are coded, and the shapes of planes."""
        shapes = [" ".join(str(shape) for shape in _entry_shapes(part)) for part in self._parts]
        groups = [f"{group.layers} {group.window} {group.residual}" for group in self._layers]
        library = library_version(self._coding) if self._coding is not None and self._coding.library else ""
        return f"torch 1; {self.dtype}; {self.page_size} tokens; {self._coding} {library}; {groups}; {shapes}"

    def planes(self, layer: int) -> list[Tensor]:
        """The exact planes of a layer: keys and values (slots, kv_heads, head_dim), dynamic mask (slots, kv_heads).

        The entry of slot s of page p is row `p * page_size + s`.
        """
        return self._exact[layer].tensors

    def coded(self, layer: int) -> CodedPages:
        """The coded pages of a layer that has some."""
        return self._coded[layer]

    def pages(self, group: int) -> int:
        """How many pages of a group there are now."""
        return self._pages[group]

    def resize(self, group: int, pages: int) -> None:
        """Grow or shrink a group to `pages`; pages below the smaller of both counts keep their content.

        Raises:
            CapacityError: there is no room; nothing has changed.
        """
        before = self._pages[group]
        if pages == before:
            return
        try:
            for held in self._held(group):
                held.resize(pages)
        except CapacityError:
            for held in self._held(group):
                held.resize(before)
            raise
        self._pages[group] = pages

    def rearrange(self, group: int, pages: int, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Have `pages` pages, of which each of `targets` holds what its page of `sources` did; the rest are zeros.

        Raises:
            CapacityError: there is no room; nothing has changed.
        """
        self.resize(group, max(pages, self._pages[group]))
        if not self._pages[group]:
            return
        source, target, every = self._numbers(sources), self._numbers(targets), self._numbers(range(self._pages[group]))
        for held in self._held(group):
            content = held.read(source) if len(sources) else None
            held.clear(every)
            if content is not None:
                held.write(target, content)
        self.resize(group, pages)

    def copy(self, group: int, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole pages, all layers and planes of the group; no page is both a source and a target."""
        if len(sources):
            source, target = self._numbers(sources), self._numbers(targets)
            for held in self._held(group):
                held.copy(source, target)

    def clear(self, group: int, pages: Sequence[int]) -> None:
        """Fill whole pages with zeros, all layers and planes of the group."""
        if len(pages):
            chosen = self._numbers(pages)
            for held in self._held(group):
                held.clear(chosen)

    def read_pages(self, group: int, pages: Sequence[int]) -> NDArray[np.uint8]:
        """The content of whole pages, (pages, bytes_per_page): layer by layer, plane by plane."""
        if not len(pages):
            return np.zeros((0, self.groups[group].bytes_per_page), np.uint8)
        chosen = self._numbers(pages)
        return np.concatenate([held.read(chosen).cpu().numpy() for held in self._held(group)], 1)

    def write_pages(self, group: int, pages: Sequence[int], content: NDArray[np.uint8]) -> None:
        """Put content that `read_pages` gave, (pages, bytes_per_page), into whole pages."""
        if not len(pages):
            return
        chosen, start = self._numbers(pages), 0
        for held in self._held(group):
            stop = start + held.bytes_per_page
            held.write(chosen, torch.from_numpy(content[:, start:stop].copy()).to(self._device))
            start = stop

    def write(self, layer: int, slots: Tensor | slice, entries: Sequence[Tensor]) -> None:
        """Write the entries of packed tokens, a tensor (tokens, ...) per plane, into their slots; without gradient."""
        for plane, entry in zip(self.planes(layer), entries):
            if isinstance(slots, slice):
                plane[slots].copy_(entry.detach())
            else:
                # Under autocast entries are of its type.
                plane.index_copy_(0, slots, entry.detach().to(plane.dtype))

    def code(self, layer: int, exact: Tensor, coded: Tensor) -> None:
        """Code whole exact pages of a layer into coded ones."""
        code_pages(self.planes(layer), self.page_size, exact, self._coded[layer], coded)

    def open_step(self, rows: Sequence[Row], places: Sequence[Place], device: torch.device) -> StepPages:
        """What the layers of a step write and read, whose places are these."""
        return DirectPages(self, rows, places, device)

    def _held(self, group: int) -> Sequence[PageTensors | CodedPages]:
        """What holds the pages of the group's layers."""
        layers = self._layers[group]
        where = self._exact if layers.residual is None else self._coded
        return [where[layer] for layer in layers.layers]

    def _make_exact(self, part: Attention, memory: PageMemory) -> PageTensors:
        return PageTensors(_entry_shapes(part), self.dtype, self.page_size, memory)

    def _make_coded(self, part: Attention, memory: PageMemory) -> CodedPages:
        assert self._coding is not None
        make = KiviPages if self._coding.library is None else LibraryPages
        return make(part, self._coding, self.dtype, memory)

    def _describe(self, group: int) -> PageGroup:
        size = sum(held.bytes_per_page for held in self._held(group))
        return PageGroup(size, self._layers[group].window, self._layers[group].residual)

    def _numbers(self, pages: Sequence[int]) -> Tensor:
        return torch.as_tensor(np.asarray(pages, np.int64), device=self._device)


class DirectPages:
    """The `StepPages` of a store that is where the model is: it is written and read itself."""

    def __init__(self, store: PageStore, rows: Sequence[Row], places: Sequence[Place], device: torch.device) -> None:
        self.planes, self.coded = store.planes, store.coded
        self.plans = [place.plan for place in places]
        self._store = store
        self._targets: dict[Place, _Targets] = {}
        for place in places:
            if place not in self._targets:
                self._targets[place] = _targets(rows, place, store.page_size, device)
        self._places = places

    def write(self, layer: int, entries: Sequence[Tensor]) -> None:
        """Remember the new tokens' keys and values, and code the pages that need it."""
        slots, fresh = self._targets[self._places[layer]]
        self._store.write(layer, slots, entries)
        if fresh is not None:
            self._store.code(layer, *fresh)


class _Targets(NamedTuple):
    """Where a layer's new entries go, and the exact pages that are coded with the pages that they become."""

    slots: Tensor | slice
    fresh: tuple[Tensor, Tensor] | None


def _targets(rows: Sequence[Row], place: Place, page_size: int, device: torch.device) -> _Targets:
    slots = slots_of(rows, place.exact, page_size)
    fresh = None if place.coded is None else fresh_pages(rows, place.exact, place.coded)
    if fresh is not None:
        exact, coded = (torch.from_numpy(pages).to(device) for pages in fresh)
    return _Targets(_as_index(slots, device), None if fresh is None else (exact, coded))


def _as_index(slots: NDArray[np.int64], device: torch.device) -> Tensor | slice:
    """A slice where they are consecutive, which saves an index."""
    if len(slots) == 1 or (int(slots[-1] - slots[0]) == len(slots) - 1 and bool((np.diff(slots) == 1).all())):
        return slice(int(slots[0]), int(slots[-1]) + 1)
    return torch.from_numpy(slots).to(device, non_blocking=True)


def open_store(
    decoder: Decoder, page_size: int, kind: StoreKind, dtype: torch.dtype, device: torch.device
) -> PageStore:
    """A new store of a kind, with no pages yet, for a model of this type on this device.

    Raises:
        ArgumentError: a kind of store that there is none of.
        MissingExtraError: a library that is not installed.
    """
    if kind.offloaded and device.type != "cpu":
        from loquent.torch.offloaded import OffloadedStore  # it is a PageStore, too

        return OffloadedStore(decoder, page_size, dtype, side_copies(device), kind.coding)
    memory = FileMemory(kind.folder) if kind.offloaded else DeviceMemory(device)
    return PageStore(decoder, page_size, dtype, memory, kind.coding)


def _places(groups: Sequence[LayerGroup]) -> tuple[dict[int, int], dict[int, int]]:
    exact: dict[int, int] = {}
    coded: dict[int, int] = {}
    for index, group in enumerate(groups):
        (exact if group.residual is None else coded).update(dict.fromkeys(group.layers, index))
    return exact, coded


def _entry_shapes(part: Attention) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = [(part.kv_heads, part.head_dim)] * 2
    return [*shapes, (part.kv_heads,)] if part.dynamic_mask else shapes
