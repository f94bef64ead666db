"""A draft by a model of another vocabulary: the text is encoded for it, and what it writes is encoded for the request.

(Timor et al., 2025, arXiv:2502.05202, "string-level exact match".) A draft is what the other model finds most likely,
so that what stands of it is decided as if it had no choice, and sampling stays exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.drafts.base import Draft, Drafting
from loquent.decoding.drafts.model import Ahead
from loquent.decoding.task import Read, Task
from loquent.decoding.wants import Proposal, Propose

_HALF = "\ufffd"  # what a decoder puts for a character of which bytes are missing


@dataclass(frozen=True, eq=False)
class Tongue:
    """How a model reads and writes text.

    Args:
        tokenizer: the model's.
        ends: its tokens that end an output.
        behind: how many tokens before a place are encoded again with what comes behind it.
    """

    tokenizer: Any
    ends: tuple[int, ...]
    behind: int

    def text(self, tokens: list[int]) -> str:
        """What the tokens say, without special ones."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def tokens(self, text: str, special: bool = False) -> list[int]:
        """A text's tokens, at its beginning with the `special` ones that a prompt starts with."""
        return [int(token) for token in self.tokenizer.encode(text, add_special_tokens=special)]

    def said_by(self, tokens: list[int], count: int) -> str | None:
        """What the last `count` tokens add to the text; None: they end within a character."""
        if not count:
            return ""
        first = max(0, len(tokens) - count - self.behind)
        before, after = self.text(tokens[first : len(tokens) - count]), self.text(tokens[first:])
        if after.endswith(_HALF):
            return None
        return after[len(before) :] if after.startswith(before) else self.text(tokens[-count:])

    def behind_with(self, tokens: list[int], text: str) -> tuple[int, list[int]]:
        """What continues `tokens` when `text` follows them: how many of them are kept, and the tokens from there."""
        before = self.text(tokens[-self.behind :]) if self.behind else ""
        alone, together = self.tokens(before), self.tokens(before + text)
        same = next(
            (at for at, pair in enumerate(zip(alone, together)) if pair[0] != pair[1]), min(map(len, (alone, together)))
        )
        if same == len(alone):
            return len(tokens), together[same:]
        if alone == tokens[-len(alone) :]:
            return len(tokens) - len(alone) + same, together[same:]  # a word goes on, with other tokens
        return len(tokens), self.tokens(text)


class UniversalDraft(Draft):
    """Reads ahead with a model of another vocabulary, on texts.

    Args:
        task: the request.
        reader: the other model, as the engine opened it.
        threshold: a token of which the draft is less certain than this is the last of a draft.
        own: how the request's model reads and writes.
        other: how the other one does.
        max_positions: how many the other one has; None: any number.
    """

    def __init__(
        self, task: Task, reader: Any, threshold: float, own: Tongue, other: Tongue, max_positions: int | None
    ) -> None:
        self._own, self._other, self._max_positions = own, other, max_positions
        self._text = task.prompt.tolist()  # what `_tokens` say in the other vocabulary
        self._tokens = other.tokens(own.text(self._text), special=True)
        self._ahead = Ahead(task.open(reader, max(1, len(self._tokens))))
        self._threshold = threshold
        self._want = Propose(ruled=False, drawn=False, rated=threshold > 0)

    def propose(self, text: NDArray[Any], count: int) -> Drafting:
        """As many tokens as the request's vocabulary takes for what the other model writes in as many of its own."""
        if not self._hear(text.tolist()):
            return []
        written: list[int] = []
        feed = self._ahead.catch_up(np.array(self._tokens, np.int64))
        while len(written) < count and self._has_room(len(written)):
            [proposal] = yield [Read(self._ahead.sequence, feed, self._want)]
            if proposal is None:
                break
            written.append(proposal.token)
            if proposal.token in self._other.ends or proposal.confidence < self._threshold:
                break
            feed = np.array([proposal.token])
        return self._translated(written, text.tolist(), count)

    def _has_room(self, written: int) -> bool:
        return self._max_positions is None or len(self._tokens) + written <= self._max_positions

    def _hear(self, text: list[int]) -> bool:
        """Bring the other model's tokens up to the text; whether they are, which half a character prevents."""
        said = self._own.said_by(text, len(text) - len(self._text))
        if said is None:
            return False
        kept, follow = self._other.behind_with(self._tokens, said)
        self._tokens, self._text = self._tokens[:kept] + follow, text
        return bool(self._tokens)

    def _translated(self, written: list[int], text: list[int], count: int) -> list[Proposal]:
        """What the other model has written, as tokens that continue the request's text."""
        ended = bool(written) and written[-1] in self._other.ends and not self._other.text(written[-1:])
        said = self._other.said_by(self._tokens + written, len(written))
        while said is None and written:  # without the half character
            written = written[:-1]
            said = self._other.said_by(self._tokens + written, len(written))
        if not said and not ended:
            return []
        kept, tokens = self._own.behind_with(text, said or "")
        if kept < len(text):
            tokens = self._own.tokens(said or "")
        if ended:
            tokens = tokens + list(self._own.ends[:1])
        return [Proposal(token) for token in tokens[:count]]
