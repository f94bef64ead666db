"""Prompt lookup: a draft is what followed the text's last tokens where they came before (Saxena, 2023).

    with n from `longest` down to 1:  if x[i:i+n] = x[-n:] for some i, propose x[i+n:i+n+count] for the first such i

Source: https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.drafts.base import Draft, Drafting
from loquent.decoding.wants import Proposal

DEFAULT_NGRAM = 2


class LookupDraft(Draft):
    """Finds drafts in the text itself, and reads nothing.

    Args:
        longest: how many tokens must be the same at most.
        ends: the tokens that end an output.
    """

    def __init__(self, longest: int, ends: tuple[int, ...]) -> None:
        self._longest, self._ends = longest, frozenset(ends)

    def propose(self, text: NDArray[Any], count: int) -> Drafting:
        """What followed the longest n-gram found."""
        yield from ()  # it never asks
        proposals = []
        for token in _followers(text, self._longest, count).tolist():
            proposals.append(Proposal(token))
            if token in self._ends:
                break
        return proposals


def _followers(text: NDArray[Any], longest: int, count: int) -> NDArray[Any]:
    """The tokens behind the leftmost earlier place of the longest n-gram at the end of `text` that has one."""
    # Where the last token came before, and then which of these places have the tokens before it in common too.
    places = np.flatnonzero(text[:-1] == text[-1])
    best = places[:1]
    for back in range(1, min(longest, len(text) - 1)):
        places = places[places >= back]
        places = places[text[places - back] == text[-1 - back]]
        if not len(places):
            break
        best = places[:1]
    return text[best[0] + 1 : best[0] + 1 + count] if len(best) else text[:0]
