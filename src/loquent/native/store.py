"""`NativeStore`: the pages of one model on the CPU, in groups of layers that see the same span."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loquent.cache import PageGroup, StoreKind, check_coding, layer_groups
from loquent.cache.files import full_disk, unnamed_file
from loquent.errors import ArgumentError
from loquent.native.extension import core

if TYPE_CHECKING:
    from loquent.native import _core


class LayerShape(NamedTuple):
    """What a store keeps of a layer, and for how long."""

    kv_heads: int
    head_dim: int
    masked: bool  # whether there are dynamic mask values
    window: int | None  # how many tokens a query sees, itself included; None: all


class NativeStore:
    """A `loquent.engine.backend.Store`: what a `NativeBackend` opens.

    Args:
        layers: the model's.
        page_size: tokens of a page; of coded pages as many as `kind.coding.group`.
        key_values: the type of exact keys and values, one of `backend.KEY_VALUE_KINDS`; beside coded ones "int8" means
            "bfloat16".
        kind: how they are kept; offloaded ones in a file without a name, whose blocks are reserved as pages are added.

    Raises:
        ArgumentError: a kind that there is not, or a folder that no file can be made in.
    """

    def __init__(self, layers: Sequence[LayerShape], page_size: int, key_values: str, kind: StoreKind) -> None:
        coding = kind.coding
        if coding is not None:
            if coding.library is not None:
                raise ArgumentError(
                    f"The native core has no codes of the library {coding.library!r}. Use backend='native', or run the "
                    "model on PyTorch."
                )
            check_coding(coding)
            page_size, key_values = coding.group, "bfloat16" if key_values == "int8" else key_values
        parts = layer_groups([layer.window for layer in layers], coding)
        self.page_size = page_size
        self.place = "file" if kind.offloaded else "memory"
        self._folder = kind.folder
        with unnamed_file(kind.folder) if kind.offloaded else nullcontext() as file:
            self.memory: _core.Store = core().Store(
                [(layer.kv_heads, layer.head_dim, layer.masked) for layer in layers],
                page_size,
                key_values,
                [(part.layers, part.window or 0, part.residual or -1) for part in parts],
                coding.bits if coding is not None and any(part.residual for part in parts) else 0,
                None if file is None else file.fileno(),
            )
        self.groups = tuple(
            PageGroup(self.memory.bytes_per_page(index), part.window, part.residual) for index, part in enumerate(parts)
        )
        self.format = f"native 1, {key_values}, {page_size} tokens, {[tuple(layer) for layer in layers]}"
        if coding is not None:
            self.format += f", {coding.bits} bits behind {coding.residual}"

    def pages(self, group: int) -> int:
        """How many pages of a group there are now."""
        return self.memory.pages(group)

    def resize(self, group: int, pages: int) -> None:
        """Grow or shrink a group; pages below the smaller of both counts keep their content, new ones are zeros.

        Raises:
            CapacityError: the disk of the store's file has no room for them.
        """
        try:
            self.memory.resize(group, pages)
        except core().DiskFullError as error:
            raise full_disk(self._folder, str(error)) from None

    def clear(self, group: int, pages: Sequence[int]) -> None:
        """Fill whole pages with zeros.

        Raises:
            IndexError: a page that is not there.
        """
        self.memory.clear(group, pages)

    def copy(self, group: int, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole pages; no page is both a source and a target.

        Raises:
            IndexError: a page that is not there.
            ValueError: there is not a target for each source.
        """
        self.memory.copy(group, sources, targets)

    def read_pages(self, group: int, pages: Sequence[int]) -> NDArray[np.uint8]:
        """The content of whole pages, (pages, bytes_per_page).

        Raises:
            IndexError: a page that is not there.
        """
        return self.memory.read_pages(group, pages)

    def write_pages(self, group: int, pages: Sequence[int], content: NDArray[np.uint8]) -> None:
        """Put content that `read_pages` gave, (pages, bytes_per_page), into whole pages.

        Raises:
            IndexError: a page that is not there.
            ValueError: content of another shape.
        """
        self.memory.write_pages(group, pages, content)
