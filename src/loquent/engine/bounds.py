"""Bounds: how much of a KV store a request holds at most, and about how much it needs next; nothing is taken here."""

from __future__ import annotations

from loquent.cache import PageGroup, PageSpace
from loquent.cache.table import KEPT_BEHIND
from loquent.decoding.task import Decoding

_FEW = 32
"""Tokens that are read at once when a sequence has its prompt: drafts."""


def longest_span(prompt: int, decoding: Decoding) -> int:
    """The longest that a sequence becomes that begins with so many tokens."""
    whole = prompt + decoding.stopping.max_new_tokens
    return min(whole, decoding.context) if decoding.context else whole


class MostPages:
    """Upper bounds of what sequences hold in a space, where a step reads at most `step_tokens` tokens."""

    def __init__(self, space: PageSpace, step_tokens: int) -> None:
        self._space, self._step_tokens = space, step_tokens

    def bytes(self, prompt: int, decoding: Decoding) -> int:
        """What a request holds at once, with the shadows of its sequences."""
        most = self._of_branches(prompt, decoding)
        return most + (self._of_branches(decoding.shadow, decoding) if decoding.shadow else 0)

    def of_sequence(self, tokens: int) -> int:
        """What a sequence of so many tokens holds, at most, while it is read."""
        return sum(self._pages(group, tokens, tokens) * group.bytes_per_page for group in self._space.groups)

    def _of_branches(self, prompt: int, decoding: Decoding) -> int:
        span = longest_span(prompt, decoding)
        total = 0
        for group in self._space.groups:
            if group.window is None and group.residual is None:
                pages = self._sharing_pages(prompt, span, decoding)
            else:
                others = (decoding.branches - 1) * self._pages(group, span, _FEW)
                pages = self._pages(group, span, max(prompt, _FEW)) + others
            total += pages * group.bytes_per_page
        return total

    def _sharing_pages(self, prompt: int, span: int, decoding: Decoding) -> int:
        """Of as many sequences as there are branches, which share whole pages of the prompt."""
        whole = self._whole(span)
        if decoding.own_tokens:  # so many may begin in the middle of a page
            return whole + (decoding.branches - 1) * (1 + self._whole(decoding.own_tokens - 1))
        shared = min(prompt, span) // self._space.page_size if decoding.branches > 1 else 0
        copied = 1 if decoding.branches > 1 else 0  # a page and its copy, for the moment of copying
        return shared + decoding.branches * (whole - shared) + copied

    def _pages(self, group: PageGroup, tokens: int, read: int) -> int:
        """Of a sequence of so many tokens, of which `read` are read at once as far as a step goes."""
        if group.window is None:
            return self._whole(tokens)
        seen = group.window + KEPT_BEHIND + min(read, self._step_tokens)
        return min(self._whole(tokens), self._whole(seen) + 1)

    def _whole(self, tokens: int) -> int:
        return -(-tokens // self._space.page_size)
