"""The removal of spaces before punctuation and English contractions; an option of decoding, at once or in pieces."""

from __future__ import annotations

# In this order, each over the result of the one before, as models trained with it expect.
REPLACEMENTS = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


def clean_up(text: str) -> str:
    """`text` without those spaces."""
    for pattern, replacement in REPLACEMENTS:
        text = text.replace(pattern, replacement)
    return text
