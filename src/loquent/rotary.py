"""The frequencies behind rotary positions, in plain Python; it neither builds tables of cosines nor turns vectors.

A position p turns pair i of a head's rotary dimensions by the angle `p * frequency[i]` (arXiv:2104.09864). Scalings
change the frequencies so that a model can read past the length that it was trained on; two of them (`DynamicScaling`,
`LongRopeScaling`) depend on how long the text is, which is decided once per request (`span`).
"""

from __future__ import annotations

from collections.abc import Hashable
from math import ceil, floor, log, pi, sqrt

from loquent.parts import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Rotary,
    YarnScaling,
)


def frequencies(rotary: Rotary, span: int) -> tuple[list[float], float]:
    """The angles per position, one for each pair of rotary dimensions, and the factor of all cosines and sines.

    `span` is how many tokens the request may become in all. The list has `ceil(rotary.dimensions / 2)` entries, and a
    head's rotated dimensions are twice as many (an odd number of dimensions is rounded up, as checkpoints expect).
    """
    plain = _powers(rotary, rotary.theta)
    scaling = rotary.scaling
    if scaling is None:
        return plain, 1.0
    if isinstance(scaling, LinearScaling):
        return [frequency / scaling.factor for frequency in plain], 1.0
    if isinstance(scaling, DynamicScaling):
        return _powers(rotary, _dynamic_base(rotary, scaling, span)), 1.0
    if isinstance(scaling, YarnScaling):
        return _yarn(rotary, scaling, plain), _yarn_factor(scaling)
    if isinstance(scaling, LongRopeScaling):
        divisors = scaling.long_factor if span > scaling.original_positions else scaling.short_factor
        return [frequency / divisor for frequency, divisor in zip(plain, divisors)], _longrope_factor(rotary, scaling)
    return [_llama3(frequency, scaling) for frequency in plain], 1.0


def table_key(rotary: Rotary, span: int) -> Hashable:
    """What distinguishes the frequencies of requests of different spans: equal keys have equal frequencies."""
    if isinstance(rotary.scaling, DynamicScaling):
        return max(span, rotary.scaling.original_positions)
    if isinstance(rotary.scaling, LongRopeScaling):
        return span > rotary.scaling.original_positions
    return None


def reach(rotary: Rotary) -> int:
    """How many positions the model was made for, a scaling's extension included.

    Linear and dynamic scaling extend `max_position_embeddings` by their factor (configs leave it at the length before);
    the others say with it how far they go, unless the original length times the factor is more.
    """
    scaling = rotary.scaling
    if isinstance(scaling, LinearScaling | DynamicScaling):
        return max(rotary.positions, int(rotary.positions * scaling.factor))
    if isinstance(scaling, YarnScaling | LongRopeScaling) and scaling.factor is not None:
        return max(rotary.positions, int(scaling.original_positions * scaling.factor))
    return rotary.positions


def _powers(rotary: Rotary, base: float) -> list[float]:
    return [base ** (-even / rotary.dimensions) for even in range(0, rotary.dimensions, 2)]


def _dynamic_base(rotary: Rotary, scaling: DynamicScaling, span: int) -> float:
    """The base that stretches the slowest pair by the span's excess and leaves the fastest one as it was."""
    length = max(span, scaling.original_positions)
    stretch = scaling.factor * length / scaling.original_positions - (scaling.factor - 1)
    return float(rotary.theta * stretch ** (rotary.dimensions / (rotary.dimensions - 2)))


def _yarn(rotary: Rotary, scaling: YarnScaling, plain: list[float]) -> list[float]:
    """Pairs that turn often within the original length keep their frequency, rare ones are interpolated."""

    def pair_turning(times: float) -> float:
        """The (fractional) index of the pair that turns so many times within the original length."""
        return rotary.dimensions * log(scaling.original_positions / (times * 2 * pi)) / (2 * log(rotary.theta))

    low, high = pair_turning(scaling.beta_fast), pair_turning(scaling.beta_slow)
    if scaling.truncate:
        low, high = floor(low), ceil(high)
    low, high = max(low, 0), min(high, rotary.dimensions - 1)
    width = high - low or 0.001  # a ramp without width is a step
    mixed = []
    for index, frequency in enumerate(plain):
        interpolated = min(max((index - low) / width, 0.0), 1.0)
        mixed.append(frequency * (1 - interpolated) + frequency / scaling.factor * interpolated)
    return mixed


def _yarn_factor(scaling: YarnScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return _temperature(scaling.factor, scaling.mscale) / _temperature(scaling.factor, scaling.mscale_all_dim)
    return _temperature(scaling.factor, 1.0)


def _temperature(factor: float, mscale: float) -> float:
    """YaRN's equation 22, with the strength that DeepSeek's variant adds."""
    return 1.0 if factor <= 1 else 0.1 * mscale * log(factor) + 1.0


def _longrope_factor(rotary: Rotary, scaling: LongRopeScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    factor = rotary.positions / scaling.original_positions if scaling.factor is None else scaling.factor
    return 1.0 if factor <= 1 else sqrt(1 + log(factor) / log(scaling.original_positions))


def _llama3(frequency: float, scaling: Llama3Scaling) -> float:
    """Interpolate by how many times the pair turns within the original length."""
    turns = scaling.original_positions * frequency / (2 * pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = min(max((turns - low) / (high - low), 0.0), 1.0)
    return (1 - kept) * frequency / scaling.factor + kept * frequency
