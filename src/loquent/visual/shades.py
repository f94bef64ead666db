"""Shades: the five classes of probability that heat maps are coloured with, also for eyes that see red as green."""

from __future__ import annotations

from typing import NamedTuple


class Shade(NamedTuple):
    """A class of probabilities, from `least` on, and its colour; black text on it is legible."""

    least: float
    colour: str
    name: str


# Orange to blue; the steps are also apart in brightness. Dark letters have a contrast of 7 to 1 or more on each.
SHADES = (
    Shade(0.0, "#f4804f", "under 5%"),
    Shade(0.05, "#fdb96b", "5 to 20%"),
    Shade(0.2, "#fee8a8", "20 to 50%"),
    Shade(0.5, "#c4e3ee", "50 to 80%"),
    Shade(0.8, "#8fbfe0", "80% and more"),
)


def shade_number(probability: float) -> int:
    """The class of a probability."""
    return sum(probability >= shade.least for shade in SHADES[1:])


def percent(probability: float) -> str:
    """A probability to look at."""
    if 0 < probability < 0.001:
        return "<0.1%"
    return f"{probability:.1%}"
