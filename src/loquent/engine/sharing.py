"""Sharing: which prompts start with pages that are remembered, and which wait for one that fills such pages now."""

from __future__ import annotations

from collections.abc import Sequence

from loquent.cache import PageKey, PageSpace
from loquent.engine.request import PendingRead, Request


class PrefixSharing:
    """Starts sequences with what is remembered of their prompts, or of their texts where their pages were needed.

    A prompt that has most of what it still needs in common with one being read now is held back until that one is
    done, so that several samples of one prompt read it once.
    """

    def __init__(self, space: PageSpace) -> None:
        self._space = space
        self._reading: dict[PendingRead, None] = {}
        self._reader_of: dict[PageKey, PendingRead] = {}

    def begin(self, prompts: Sequence[PendingRead]) -> None:
        """Let those of the unfinished prompts begin that have not, and need not wait for others to be read."""
        if self._reading:
            self._drop_finished()
        for pending in prompts:
            sequence = pending.read.sequence
            if sequence.stored or (pending.fed and not sequence.missing):
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

    def leave(self, request: Request) -> None:
        """Nothing waits for what this request reads any more: it loses its pages."""
        for reader in [reader for reader in self._reading if reader.request is request]:
            self._drop(reader)

    def _begin(self, pending: PendingRead) -> None:
        if pending.keys is None:
            pending.keys = pending.read.sequence.keys(pending.read.tokens[pending.fed : pending.first_row])
        keys, known = pending.keys, self._space.known(pending.keys)
        # What is read again was shared before, and must be again: there may be no room for a second copy.
        most = known + 1 if pending.read.sequence.missing else (known + len(keys) + 1) // 2
        pending.waits_for = self._reader_of.get(keys[most - 1]) if known < len(keys) else None
        if pending.waits_for is None:
            self._adopt(pending)
            self._reading[pending] = None
            for key in keys:
                self._reader_of.setdefault(key, pending)

    def _adopt(self, pending: PendingRead) -> None:
        if pending.keys and self._space.may_know(pending.keys[0]):
            tokens = pending.read.tokens[pending.fed :]
            pending.advance(pending.read.sequence.adopt_prefix(tokens, pending.keys))

    def _drop_finished(self) -> None:
        for reader in [reader for reader in self._reading if reader.done or reader.request.done]:
            self._drop(reader)

    def _drop(self, reader: PendingRead) -> None:
        del self._reading[reader]
        for key in reader.keys or ():
            if self._reader_of.get(key) is reader:
                del self._reader_of[key]
