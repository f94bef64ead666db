"""Memory: what rules with state remember of one sequence, by its length; it follows forks and rewinds."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

_KEPT = 64


class Memory:
    """For each owner a state at some of the sequence's lengths, the last ones.

    States are shared by forks: an owner never changes one, it puts another at another length.
    """

    __slots__ = ("_states",)

    def __init__(self) -> None:
        self._states: dict[Hashable, dict[int, Any]] = {}  # lengths in increasing order

    def latest(self, owner: Hashable, length: int) -> tuple[int, Any] | None:
        """The state of the greatest length that is not above `length`, and that length; None: there is none."""
        states = self._states.get(owner, {})
        known = next((at for at in reversed(states) if at <= length), None)
        return None if known is None else (known, states[known])

    def put(self, owner: Hashable, length: int, state: Any, keep: int = _KEPT) -> None:
        """The state once the sequence holds `length` tokens; only the `keep` youngest stay."""
        states = self._states.setdefault(owner, {})
        for later in [at for at in states if at >= length]:
            del states[later]
        states[length] = state
        while len(states) > keep:
            del states[next(iter(states))]

    def fork(self) -> Memory:
        """Another with the same states."""
        twin = Memory()
        if self._states:
            twin._states = {owner: dict(states) for owner, states in self._states.items()}
        return twin

    def rewind(self, length: int) -> None:
        """Forget what was beyond `length` tokens."""
        for states in self._states.values():
            for later in [at for at in states if at > length]:
                del states[later]
