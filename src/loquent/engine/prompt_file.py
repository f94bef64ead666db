"""Prompt cache files: the pages of a text's beginning as one safetensors file; knows neither sequences nor engines.

A file holds "tokens" (I64) and, for each group of pages, "pages.G" (U8, a row for each page: what `Store.read_pages`
gives) from the first page that what follows sees to the last. Its metadata say what made the pages, and a digest of
everything. Nothing of it is executed, and nothing is taken from it before all of it has been checked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loquent.cache import PageGroup
from loquent.errors import ArgumentError, CheckpointError
from loquent.hub.safetensors_file import SafetensorsFile
from loquent.hub.writing import TensorToWrite, write_safetensors

_FORMAT, _VERSION = "loquent prompt cache", "1"
_TOKENS = "tokens"
_MAX_HEADER = 1 << 20  # of a few hundred bytes
_OTHERS = {
    "model": "was written by another model, or by one whose weights have changed since",
    "store": "holds keys and values of another precision or kind",
    "page_size": "has pages of another size",
    "groups": "has pages of another layout",
}
"""What a file does whose metadata are not those expected."""


@dataclass(frozen=True)
class Origin:
    """What made pages: only a store of an equal origin can take them."""

    model: str  # a digest of the model
    store: str  # `Store.format`
    page_size: int
    groups: tuple[PageGroup, ...]

    def metadata(self) -> dict[str, str]:
        """What files say of it."""
        groups = json.dumps([astuple(group) for group in self.groups])
        return {"model": self.model, "store": self.store, "page_size": str(self.page_size), "groups": groups}


@dataclass(frozen=True, eq=False)
class SavedPrompt:
    """The beginning of a text, as far as whole pages go, and its pages."""

    tokens: NDArray[np.int64]  # (n,), a multiple of the page size above 0
    pages: tuple[NDArray[np.uint8], ...]  # for each group (pages, bytes_per_page), from `PageGroup.first` on
    key: str  # what the pages depend on besides the tokens: a digest of `Backend.prefix_key`

    def beginning(self, prompt: NDArray[np.int64], origin: Origin) -> SavedPrompt | None:
        """The longest beginning that it has in common with a prompt, and all pages of; None where there is none.

        Pages behind a window, and exact ones that are seen coded by now, are not there: such a beginning is all of it,
        or as much as does not need them.
        """
        size, most = origin.page_size, min(len(prompt), len(self.tokens))
        other = np.flatnonzero(self.tokens[:most] != prompt[:most])
        most = int(other[0]) if len(other) else most
        for length in range(most // size * size, 0, -size):
            parts = [self._part(number, length, origin) for number in range(len(origin.groups))]
            if all(part is not None for part in parts):
                return SavedPrompt(self.tokens[:length], tuple(part for part in parts if part is not None), self.key)
        return None

    def _part(self, number: int, length: int, origin: Origin) -> NDArray[np.uint8] | None:
        """A group's pages for a beginning of this length, where all of them are there."""
        group, size = origin.groups[number], origin.page_size
        here, _ = page_range(group, len(self.tokens), size)
        first, stop = page_range(group, length, size)
        return self.pages[number][first - here : stop - here] if first == stop or first >= here else None


def write_prompt(path: Path, origin: Origin, saved: SavedPrompt) -> None:
    """Write a file, whole or not at all.

    Raises:
        ArgumentError: it cannot be written there.
    """
    metadata = {"format": _FORMAT, "version": _VERSION, **origin.metadata(), "key": saved.key}
    arrays: dict[str, tuple[str, NDArray[np.generic]]] = {_TOKENS: ("I64", saved.tokens)}
    arrays |= {_pages(group): ("U8", content) for group, content in enumerate(saved.pages)}
    tensors = [
        TensorToWrite(name, kind, array.shape, partial(np.ascontiguousarray, array))
        for name, (kind, array) in arrays.items()
    ]
    metadata["digest"] = _digest(metadata, [array for _, array in arrays.values()])
    try:
        write_safetensors(path, tensors, metadata)
    except OSError as error:
        raise ArgumentError(
            f"prompt_cache={os.fspath(path)!r} cannot be written ({error.strerror}). Name a file in a folder that is "
            "there, can be written to, and has room."
        ) from error


def read_prompt(path: Path, origin: Origin, vocabulary: int) -> SavedPrompt:
    """Read and check a file; its pages stay mapped from the disk.

    Raises:
        CheckpointError: it is damaged, or no prompt cache.
        ArgumentError: another model wrote it, or the same one for another kind of store.
    """
    file = _open(path)
    metadata = dict(file.metadata)
    digest, key = metadata.pop("digest", ""), metadata.get("key", "")
    for name, expected in origin.metadata().items():
        if metadata.get(name) != expected:
            raise ArgumentError(
                f"prompt_cache={os.fspath(path)!r} {_OTHERS[name]}. Name another file, or delete this one."
            )
    tokens = _read_tokens(path, file, origin.page_size, vocabulary)
    _check_shapes(path, file, origin, len(tokens))
    pages = tuple(file[_pages(group)].numpy() for group in range(len(origin.groups)))
    if digest != _digest(metadata, [tokens, *pages]):
        raise _damaged(path, "its content is not what was written")
    return SavedPrompt(tokens, pages, key)


def key_digest(key: object) -> str:
    """A digest of a `Backend.prefix_key`, the same in every process."""
    return hashlib.blake2b(_in_order(key).encode(), digest_size=16).hexdigest()


def _in_order(key: object) -> str:
    # The order of a set of texts is another in each process.
    return "{" + ", ".join(sorted(map(_in_order, key))) + "}" if isinstance(key, frozenset) else repr(key)


def _open(path: Path) -> SafetensorsFile:
    try:
        file = SafetensorsFile(path, max_header=_MAX_HEADER)
    except CheckpointError as error:
        raise CheckpointError(f"{error} Delete it, and a prompt cache is written there again.") from error
    except OSError as error:
        raise ArgumentError(
            f"prompt_cache={os.fspath(path)!r} cannot be read ({error.strerror}). Name a file that can, or one that is "
            "not there yet."
        ) from error
    if file.metadata.get("format") != _FORMAT:
        raise _damaged(path, "it is a safetensors file of something else")
    if file.metadata.get("version") != _VERSION:
        raise _damaged(path, f"it is of version {file.metadata.get('version')!r:.20}, and this Loquent reads 1")
    return file


def _read_tokens(path: Path, file: SafetensorsFile, page_size: int, vocabulary: int) -> NDArray[np.int64]:
    entry = file.entries.get(_TOKENS)
    if entry is None or entry.dtype != "I64" or len(entry.shape) != 1:
        raise _damaged(path, "it has no tokens")
    count = entry.shape[0]
    if count < page_size or count % page_size:
        raise _damaged(path, f"its {count} tokens are not whole pages of {page_size}")
    tokens: NDArray[np.int64] = file[_TOKENS].numpy()
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        raise _damaged(path, "its tokens are not the model's")
    return tokens


def _check_shapes(path: Path, file: SafetensorsFile, origin: Origin, length: int) -> None:
    expected = {
        _pages(number): ("U8", (_count(group, length, origin.page_size), group.bytes_per_page))
        for number, group in enumerate(origin.groups)
    }
    found = {name: (entry.dtype, entry.shape) for name, entry in file.entries.items() if name != _TOKENS}
    if found != expected:
        raise _damaged(path, f"its tensors are not the pages of {length} tokens")


def page_range(group: PageGroup, length: int, page_size: int) -> tuple[int, int]:
    """Which pages of a group what follows `length` tokens sees: the first, and the one behind the last."""
    stop = group.stop(length, page_size)
    return min(group.first(length, page_size), stop), stop


def _count(group: PageGroup, length: int, page_size: int) -> int:
    first, stop = page_range(group, length, page_size)
    return stop - first


def _pages(group: int) -> str:
    return f"pages.{group}"


def _digest(metadata: dict[str, str], arrays: Sequence[NDArray[np.generic]]) -> str:
    digest = hashlib.blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=32)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a sound prompt cache: {reason}. Delete it, and it is written again.")
