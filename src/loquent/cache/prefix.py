"""The prefix index: which page already holds the keys and values of a given beginning; it holds no page itself."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import NewType

import numpy as np
from numpy.typing import NDArray

PageKey = NewType("PageKey", bytes)


def page_keys(
    tokens: NDArray[np.int64], page_size: int, salt: Hashable, known: list[PageKey] | None = None
) -> list[PageKey]:
    """A key for each whole page of `tokens`, each a digest of everything up to the page's end.

    Digests are cryptographic, so that a client cannot craft a prompt that meets another's pages. `salt` is what the
    content depends on besides tokens; `known` are the first keys, computed before: the others are appended to them.
    """
    keys = [] if known is None else known
    for page in range(len(keys), len(tokens) // page_size):
        before = keys[-1] if keys else repr(salt).encode()
        content = tokens[page * page_size : (page + 1) * page_size].tobytes()
        keys.append(PageKey(hashlib.blake2b(content, key=hashlib.blake2b(before, digest_size=32).digest()).digest()))
    return keys


class PrefixIndex:
    """Page keys and the pages that hold their content."""

    def __init__(self) -> None:
        self._page_of: dict[PageKey, int] = {}
        self._key_of: dict[int, PageKey] = {}

    def __len__(self) -> int:
        return len(self._page_of)

    def __contains__(self, key: PageKey) -> bool:
        return key in self._page_of

    def knows(self, page: int) -> bool:
        """Whether the page's content can be found by its key."""
        return page in self._key_of

    def add(self, key: PageKey, page: int) -> None:
        """Remember what a page holds; the first page with a content stays the one that is found."""
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key] = page
            self._key_of[page] = key

    def longest(self, keys: list[PageKey]) -> list[int]:
        """The pages of the longest known beginning."""
        pages: list[int] = []
        for key in keys:
            if key not in self._page_of:
                break
            pages.append(self._page_of[key])
        return pages

    def pages(self, keys: list[PageKey]) -> list[int]:
        """The pages of known keys."""
        return [self._page_of[key] for key in keys]

    def forget(self, page: int) -> None:
        """The page's content is about to change."""
        key = self._key_of.pop(page, None)
        if key is not None:
            del self._page_of[key]
