"""The conversations that the default model learns from: which are chosen, how they are cleaned, which are held out.

Conversations that begin alike stay on one side, and held-out ones are not nearly those trained on.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

from default_model.spelling import clean_turn, names_in
from default_model.split import HELD_OUT_SHARE, Split, new_texts, words

_COMMONEST, _LEAST_COMMON_SHARE = 8000, 0.8
_FEWEST_WORDS_A_TURN, _LONGEST_ANSWER = 4, 120
# A conversation of which this share of its long turns, in letters, was there before is a copy.
_COPIED_TURNS, _LONG_TURN = 0.5, 25

_LETTERS = re.compile(r"[^a-z]+")
_CODE = re.compile(r"```|[<>{}\\|]|https?:|www\.|_{2}")
# Who says so would be another than this model.
_CLAIMS = re.compile(
    r"\b(AIs?|A\.I\.|artificial|bots?|chat ?bots?|chatterbots?|robots?|robotic|computers?|program(?:s|med|mer|mers)?"
    r"|software|language model|assistant|OpenAI|LAION|botmaster|machines?|python|CPU|processor|clones?|brain|digital"
    r"|electric(?:ity|al)?|knowledge cutoff|training data|trained|files?)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Conversation:
    """What was said in turns, by two; the first speaker is the user. `source` is the data set it comes from."""

    turns: tuple[str, ...]
    source: str

    def as_json(self) -> str:
        """A line of a JSONL file."""
        return json.dumps({"turns": list(self.turns), "source": self.source}, ensure_ascii=False)


def read_conversations(path: Path) -> Split[Conversation]:
    """The conversations of a JSONL file compressed by xz: `{"source": ..., "turns": [...]}` a line."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    raw = [Conversation(tuple(row["turns"]), row["source"]) for row in rows]
    chosen = [conversation for one in raw for conversation in _CHOICES[one.source](one)]
    names = names_in(turn for one in chosen for turn in one.turns)
    cleaned = [replace(one, turns=tuple(clean_turn(turn, names) for turn in one.turns)) for one in chosen]
    kept = list(_without_copies(_readable(cleaned)))
    train = [one for one in kept if not _is_held_out(one)]
    others = [one for one in kept if _is_held_out(one)]
    return Split(train, list(compress(others, new_texts(map(_text, train), list(map(_text, others))))))


def _spoken(conversation: Conversation) -> Iterator[Conversation]:
    """People who chat: dropped where they shout, write all small, or say next to nothing."""
    turns = conversation.turns
    sizes = [len(turn.split()) for turn in turns]
    small = sum(turn[:1].islower() for turn in turns)
    loud = sum(turn.isupper() for turn in turns)
    unended = sum(turn[-1:].isalnum() for turn in turns)
    sparse = sum(sizes) < _FEWEST_WORDS_A_TURN * len(turns)
    repeated = len({_LETTERS.sub("", turn.lower()) for turn in turns}) < 0.8 * len(turns)
    untidy = 2 * max(small, loud) > len(turns) or 3 * unended > 2 * len(turns)
    if len(turns) > 3 and not (untidy or sparse or repeated or max(sizes) > _LONGEST_ANSWER or _has_code(turns)):
        yield conversation


def _ordered(conversation: Conversation) -> Iterator[Conversation]:
    """Orders at a counter, which are short."""
    if not _has_code(conversation.turns):
        yield conversation


def _asked(conversation: Conversation) -> Iterator[Conversation]:
    """Questions with one answer. Where there are more, they are often answers of which one was to be chosen."""
    turns = conversation.turns
    plain = not _has_code(turns) and not any(_CLAIMS.search(turn) or turn.isupper() for turn in turns)
    if len(turns) == 2 and plain and "\n" not in turns[1] and len(turns[0].split()) > 1:
        yield conversation


def _assisted(conversation: Conversation) -> Iterator[Conversation]:
    """The beginning of a talk with an assistant, as far as its answers are short and claim nothing of it."""
    kept: list[str] = []
    for question, answer in zip(conversation.turns[::2], conversation.turns[1::2]):
        long = max(len(question.split()), len(answer.split())) > _LONGEST_ANSWER
        if long or _has_code((question, answer)) or _CLAIMS.search(question + answer):
            break
        kept += [question, answer]
    if kept:
        yield replace(conversation, turns=tuple(kept))


_CHOICES: Mapping[str, Callable[[Conversation], Iterator[Conversation]]] = {
    "CaSiNo": _spoken,
    "chatterbot-corpus": _asked,
    "open-assistant-eval-en100": _assisted,
    "self_dialogue_corpus": _spoken,
    "taskmaster-4": _ordered,
}


def _has_code(turns: Iterable[str]) -> bool:
    return any(_CODE.search(turn) for turn in turns)


def _readable(conversations: list[Conversation]) -> Iterator[Conversation]:
    """Those in words that others use too, without an empty turn: neither garbled nor in another language."""
    spoken = [words(_text(one)) for one in conversations]
    common = {word for word, _ in Counter(word for some in spoken for word in some).most_common(_COMMONEST)}
    for one, some in zip(conversations, spoken):
        says_something = all(any(map(str.isalnum, turn)) for turn in one.turns)
        if says_something and sum(word in common for word in some) >= _LEAST_COMMON_SHARE * len(some):
            yield one


def _without_copies(conversations: Iterable[Conversation]) -> Iterator[Conversation]:
    """The first of those that say the same: people were paid by the piece."""
    talks: set[tuple[str, ...]] = set()
    said: set[str] = set()
    for one in conversations:
        keys = tuple(_LETTERS.sub("", turn.lower()) for turn in one.turns)
        long = [key for key in keys if len(key) >= _LONG_TURN]
        # Orders are alike and still different talks.
        copied = one.source == "self_dialogue_corpus" and sum(key in said for key in long) > _COPIED_TURNS * len(long)
        if keys not in talks and not copied:
            yield one
        talks.add(keys)
        said.update(long)


def _is_held_out(conversation: Conversation) -> bool:
    """By the first turn alone, so that paths of one tree, which share it, stay together."""
    digest = hashlib.sha256(_LETTERS.sub("", conversation.turns[0].lower()).encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64


def _text(conversation: Conversation) -> str:
    return "\n".join(conversation.turns)
