"""When a sequence ends: end tokens, texts, lengths, time, and a caller's criteria; asked token by token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.criteria import says_stop
from loquent.decoding.grammar.compiled import Completion
from loquent.decoding.stop_strings import StopStrings

Reason = Literal["eos", "stop_string", "criteria", "time", "length", "cancelled"]


@dataclass(frozen=True)
class Stopping:
    """The ends that one request knows; `deadline` is a `time.monotonic()` time."""

    max_new_tokens: int
    eos: tuple[int, ...] = ()
    strings: StopStrings | None = None
    completion: Completion | None = None
    healed: int = 0  # how many of the generated tokens are the prompt's own, made again: nothing ends there
    deadline: float | None = None
    criteria: tuple[Callable[[Any, Any], Any], ...] = ()
    as_ids: Callable[[NDArray[np.int64]], Any] = field(default=lambda tokens: tokens[None, :])

    def reason(self, prompt: NDArray[np.int64], generated: Sequence[int]) -> Reason | None:
        """Why a sequence of `prompt` and `generated` ends behind its last token, if it does."""
        if len(generated) <= self.healed:
            return None
        if generated[-1] in self.eos or (self.completion and self.completion(generated[self.healed :])):
            return "eos"  # a completed grammar counts as one, where the model has no end token
        if self.strings and self.strings.found(_joined(prompt, generated, self.strings.reach)):
            return "stop_string"
        if self.criteria:
            tokens = _joined(prompt, generated, len(prompt) + len(generated))
            if any(says_stop(stop(self.as_ids(tokens), None)) for stop in self.criteria):
                return "criteria"
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "time"
        return "length" if len(generated) >= self.max_new_tokens else None


def _joined(prompt: NDArray[np.int64], generated: Sequence[int], count: int) -> NDArray[np.int64]:
    """The last `count` tokens of both, or fewer where there are no more."""
    last = np.asarray(generated[-count:], np.int64)
    missing = min(count - len(last), len(prompt))
    return np.concatenate([prompt[len(prompt) - missing :], last])
