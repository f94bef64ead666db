"""What padding and truncation a call asks for: the documented spellings become one plain record; nothing is encoded.

https://huggingface.co/docs/transformers/pad_truncation lists the spellings.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from loquent.errors import ArgumentError

# What a model's length is said to be when it has none (transformers writes int(1e30)).
UNLIMITED = int(1e30)
_LARGE = int(1e20)
SIDES = ("right", "left")


class PaddingStrategy(str, Enum):
    """How far rows are padded."""

    LONGEST = "longest"
    MAX_LENGTH = "max_length"
    DO_NOT_PAD = "do_not_pad"


class TruncationStrategy(str, Enum):
    """Which text of a pair loses its tokens."""

    LONGEST_FIRST = "longest_first"
    ONLY_FIRST = "only_first"
    ONLY_SECOND = "only_second"
    DO_NOT_TRUNCATE = "do_not_truncate"


Padding = bool | str | PaddingStrategy
Truncation = bool | str | TruncationStrategy | None


@dataclass(frozen=True)
class Fit:
    """How rows are brought to their lengths, in tokens with the special ones counted."""

    padding: PaddingStrategy
    truncation: TruncationStrategy
    max_length: int | None
    multiple: int | None


def fit(
    padding: Padding,
    truncation: Truncation,
    max_length: int | None,
    pad_to_multiple_of: int | None,
    model_max_length: int,
) -> Fit:
    """Resolve the arguments of a call.

    `max_length` alone truncates to it. Where a length is needed and none is given, it is the model's; a model without
    one is neither padded nor truncated to it.

    Raises:
        ArgumentError: a spelling is unknown, a length is negative, or the lengths contradict each other.
    """
    if max_length is not None and max_length < 0:
        raise ArgumentError(f"max_length={max_length} must not be negative.")
    if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
        raise ArgumentError(f"pad_to_multiple_of={pad_to_multiple_of} must be at least 1.")
    if max_length is not None and padding is False and truncation is None:
        truncation = True
    pads = _padding_strategy(padding)
    cuts = _truncation_strategy(truncation)
    if max_length is None:
        pads, cuts, max_length = _to_model_length(pads, cuts, model_max_length)
    cutting_and_padding = cuts is not TruncationStrategy.DO_NOT_TRUNCATE and pads is not PaddingStrategy.DO_NOT_PAD
    if cutting_and_padding and max_length is not None and pad_to_multiple_of and max_length % pad_to_multiple_of:
        raise ArgumentError(
            f"max_length={max_length} is not a multiple of pad_to_multiple_of={pad_to_multiple_of}, so that rows "
            "cannot be both cut to the one and padded to the other."
        )
    return Fit(pads, cuts, max_length, pad_to_multiple_of)


def _padding_strategy(padding: Padding) -> PaddingStrategy:
    if isinstance(padding, bool):
        return PaddingStrategy.LONGEST if padding else PaddingStrategy.DO_NOT_PAD
    try:
        return PaddingStrategy(padding)
    except ValueError:
        allowed = [strategy.value for strategy in PaddingStrategy]
        raise ArgumentError(f"padding={padding!r} must be True, False or one of {allowed}.") from None


def _truncation_strategy(truncation: Truncation) -> TruncationStrategy:
    if truncation is None or isinstance(truncation, bool):
        return TruncationStrategy.LONGEST_FIRST if truncation else TruncationStrategy.DO_NOT_TRUNCATE
    try:
        return TruncationStrategy(truncation)
    except ValueError:
        allowed = [strategy.value for strategy in TruncationStrategy]
        raise ArgumentError(f"truncation={truncation!r} must be True, False or one of {allowed}.") from None


def _to_model_length(
    pads: PaddingStrategy, cuts: TruncationStrategy, model_max_length: int
) -> tuple[PaddingStrategy, TruncationStrategy, int | None]:
    wanted = pads is PaddingStrategy.MAX_LENGTH or cuts is not TruncationStrategy.DO_NOT_TRUNCATE
    if not wanted:
        return pads, cuts, None
    if model_max_length <= _LARGE:
        return pads, cuts, model_max_length
    import logging  # which few processes need, and every start would wait for

    logging.getLogger(__name__).warning(
        "Asked to pad or truncate to the model's length, but the tokenizer states none (model_max_length). "
        "Pass max_length=; nothing is cut now, and padding goes to the longest row at most."
    )
    if pads is PaddingStrategy.MAX_LENGTH:
        pads = PaddingStrategy.DO_NOT_PAD
    return pads, TruncationStrategy.DO_NOT_TRUNCATE, None
