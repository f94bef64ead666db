"""Sharing: which prompts start with pages that are remembered, and which wait for one that fills such pages now."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loquent.cache import PageKey, PrefixIndex, page_keys
from loquent.engine.request import PendingRead


class PrefixSharing:
    """Starts sequences with what is remembered of their prompts.

    A prompt that has most of what it still needs in common with one being read now is held back until that one is
    done, so that several samples of one prompt read it once.
    """

    def __init__(self, prefixes: PrefixIndex, page_size: int) -> None:
        self._prefixes, self._page_size = prefixes, page_size
        self._reading: dict[PendingRead, None] = {}
        self._reader_of: dict[PageKey, PendingRead] = {}

    def begin(self, prompts: Sequence[PendingRead]) -> None:
        """Let those of the unfinished prompts begin that have not, and need not wait for others to be read."""
        if self._reading:
            self._drop_finished()
        for pending in prompts:
            if pending.fed or len(pending.read.sequence):
                continue
            if pending in self._reading:
                self._adopt(pending)  # no step has had room for it yet, and more may be remembered by now
            elif pending.waits_for not in self._reading:
                self._begin(pending)

    def release(self, prompts: Sequence[PendingRead]) -> None:
        """Hold nothing back: what the prompts wait for cannot be shared any more."""
        self._reading.clear()
        self._reader_of.clear()
        for pending in prompts:
            pending.waits_for = None

    def _begin(self, pending: PendingRead) -> None:
        if pending.keys is None:
            tokens = np.asarray(pending.read.tokens[: pending.first_row], np.int64)
            pending.keys = page_keys(tokens, self._page_size, pending.read.sequence.salt)
        keys, known = pending.keys, len(self._prefixes.longest(pending.keys))
        most = (known + len(keys) + 1) // 2
        pending.waits_for = self._reader_of.get(keys[most - 1]) if known < len(keys) else None
        if pending.waits_for is None:
            self._adopt(pending)
            self._reading[pending] = None
            for key in keys:
                self._reader_of.setdefault(key, pending)

    def _adopt(self, pending: PendingRead) -> None:
        if pending.keys and pending.keys[0] in self._prefixes:
            pending.advance(pending.read.sequence.adopt_prefix(pending.read.tokens, pending.keys))

    def _drop_finished(self) -> None:
        for reader in [reader for reader in self._reading if reader.done or reader.request.done]:
            del self._reading[reader]
            for key in reader.keys or ():
                if self._reader_of.get(key) is reader:
                    del self._reader_of[key]
