"""The rounds of speculation: how much of the drafts stood; it draws nothing."""

from __future__ import annotations

from dataclasses import dataclass

from loquent.decoding.trace import Chosen, Drafted, Trace


@dataclass(frozen=True)
class Rounds:
    """All rounds of a trace that had drafts, and how many passes of the model had none."""

    events: tuple[Drafted, ...]
    plain: int

    @property
    def drafted(self) -> int:
        """How many tokens were drafted."""
        return sum(len(event.drafts) for event in self.events)

    @property
    def accepted(self) -> int:
        """How many of them stand."""
        return sum(event.accepted for event in self.events)

    @property
    def written(self) -> int:
        """How many tokens all passes gave."""
        return self.accepted + self.plain + sum(event.token is not None for event in self.events)

    @property
    def passes(self) -> int:
        """How often the large model was asked."""
        return len(self.events) + self.plain

    @property
    def summary(self) -> str:
        """The above in a line."""
        sources = " and ".join(dict.fromkeys(event.source for event in self.events))
        share = self.accepted / self.drafted if self.drafted else 0.0
        return (
            f"{self.accepted} of {self.drafted} tokens drafted by {sources} stand ({share:.0%}); "
            f"{self.written} tokens in {self.passes} passes, {self.written / max(self.passes, 1):.2f} each."
        )


def rounds_of(trace: Trace) -> Rounds:
    """Those of a trace."""
    events = tuple(event for event in trace.events if isinstance(event, Drafted))
    return Rounds(events, len(trace.of(Chosen)))
