"""Spells what people typed in a chat as English has it: spaces, capitals, apostrophes, last marks; words stay."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

# Smileys and symbols of CaSiNo, marks that turn the writing direction, typographic rests.
_NO_TEXT = re.compile(r"[^\x20-\x7e\u00a1-\u024f\n]")
_BREAKS = re.compile(r"\s*\n\s*")
_BEFORE_MARK = re.compile(r"\s+([.,!?;:](?:\s|$))")
_LONE_I = re.compile(r"(?<![\w'.])i(?=(?:'(?:m|ve|d|ll)\b)?(?:[ ,.?!;:]|$))")
_SENTENCE = re.compile(r"(?:^|(?<=[a-z0-9][.!?] ))([a-z])", re.MULTILINE)
_ASKING = """who what when where why how which whose do does did is are was were have has had can could will would
should don't didn't doesn't isn't aren't wasn't haven't hasn't"""
_QUESTION = re.compile(rf"(?:(?:and|so|but|or|hey|ok|oh),? )?(?:{'|'.join(_ASKING.split())})\b[^.!?]*", re.IGNORECASE)
_CONTRACTIONS = """can't couldn't didn't doesn't don't hadn't hasn't haven't I'm I've isn't aren't shouldn't that's
they're they've wasn't weren't what's wouldn't you're you've"""
_UNSPELLED = {word.replace("'", "").lower(): word for word in _CONTRACTIONS.split()}
_MISSING_APOSTROPHE = re.compile(rf"\b({'|'.join(_UNSPELLED)})\b", re.IGNORECASE)

# Words within sentences, of which the first says nothing about its own case.
_WITHIN = re.compile(r"(?<=[a-zA-Z0-9,] )([A-Za-z][a-z]{2,})\b")
# A word is a name if it is written so in this share of at least so many places.
_NAMED, _TIMES = 0.9, 15


def names_in(turns: Iterable[str]) -> frozenset[str]:
    """The words, in lower case, that nearly everybody begins with a capital letter."""
    counts = Counter(word for turn in turns if not turn.isupper() for word in _WITHIN.findall(turn))
    both = {word.lower(): counts[word.lower()] + counts[word.capitalize()] for word in counts}
    return frozenset(
        word for word, times in both.items() if times >= _TIMES and counts[word.capitalize()] >= _NAMED * times
    )


def clean_turn(turn: str, names: frozenset[str] = frozenset()) -> str:
    """A turn, spelled; `names` begin with a capital letter wherever they stand."""
    lines = [" ".join(_NO_TEXT.sub(" ", line).split()) for line in _BREAKS.split(turn)]
    text = _BEFORE_MARK.sub(r"\1", "\n".join(line for line in lines if line))
    text = _MISSING_APOSTROPHE.sub(_with_apostrophe, _LONE_I.sub("I", text))
    text = _WITHIN.sub(lambda found: found[1].capitalize() if found[1] in names else found[1], text)
    text = _SENTENCE.sub(lambda found: found[1].upper(), text)
    if text[-1:].isalnum():
        text += "?" if _QUESTION.fullmatch(text) else "."
    return text


def _with_apostrophe(found: re.Match[str]) -> str:
    word = _UNSPELLED[found[0].lower()]
    return word[0].upper() + word[1:] if found[0][0].isupper() else word
