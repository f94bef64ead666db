"""JSON lines to conversations, in any of three spellings; how a conversation becomes tokens is not decided here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loquent.errors import ArgumentError, DataError
from loquent.training.data.files import JSON_LINES, Line, data_files, objects_of

Speaker = Literal["second", "both"]
_SPEAKERS = ("second", "both")
# What other data sets call the roles that chat templates know.
_ROLES = {"human": "user", "gpt": "assistant"}
_FORMS = (
    '{"turns": ["...", "..."]}, {"messages": [{"role": "user", "content": "..."}, ...]} or '
    '{"conversations": [{"from": "human", "value": "..."}, ...]}'
)


@dataclass(frozen=True)
class Dialogue:
    """A conversation.

    messages: as chat templates take them, `{"role": ..., "content": ...}`, with whatever else a message has.
    place: the file and the line, for messages about it.
    """

    messages: tuple[Mapping[str, Any], ...]
    place: str


def read_dialogues(paths: Iterable[str | Path], *, speaker: Speaker = "second") -> Iterator[Dialogue]:
    """The conversations of files of JSON lines (`.jsonl`, `.json`, also compressed), in the order of the paths.

    Each line is an object in one of three spellings: `turns`, texts of two speakers in turn, of whom the first is the
    user; `messages` with `role` and `content`; `conversations` with `from` (human, gpt, system) and `value`.

    Args:
        paths: files and folders; looked at when the function is called, read as the conversations are taken.
        speaker: who the assistant is where a line has `turns`: the second speaker, or "both" one after the other: such
            a conversation comes twice, the second time without its first turn.

    Raises:
        ArgumentError: the speaker is neither.
        DataError: a file is missing, empty or damaged, or a line has another form; names the line.
    """
    if speaker not in _SPEAKERS:
        raise ArgumentError(f'speaker={speaker!r} must be "second" or "both".')
    return _dialogues(data_files(paths, JSON_LINES), speaker)


def _dialogues(files: list[Path], speaker: Speaker) -> Iterator[Dialogue]:
    for path in files:
        empty = True
        for found, line in objects_of(path):
            empty = False
            yield from _of_line(found, line, speaker)
        if empty:
            raise DataError(f"{path} has no conversation in it. Leave it out.")


def _of_line(found: dict[str, Any], line: Line, speaker: Speaker) -> Iterator[Dialogue]:
    spellings = [name for name in ("turns", "messages", "conversations") if name in found]
    if len(spellings) != 1:
        raise DataError(f"{line.place} has the fields {sorted(found)}, and must be one of {_FORMS}.")
    entries = found[spellings[0]]
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{line.place}: {spellings[0]!r} must be a list of {_FORMS.split(' or ')[0]} or its like.")
    if spellings == ["turns"]:
        yield Dialogue(_alternating(entries, line), line.place)
        if speaker == "both" and len(entries) > 2:
            yield Dialogue(_alternating(entries[1:], line), line.place)
        return
    if speaker == "both":
        raise DataError(
            f"{line.place} says itself who the assistant is, so speaker='both' has no meaning for it. Use 'second', or "
            "write the line as turns."
        )
    yield Dialogue(tuple(_message(entry, line) for entry in entries), line.place)


def _alternating(turns: list[Any], line: Line) -> tuple[Mapping[str, Any], ...]:
    for turn in turns:
        if not isinstance(turn, str):
            raise DataError(f"{line.place}: the turn {turn!r} must be a text.")
    return tuple({"role": ("user", "assistant")[at % 2], "content": turn} for at, turn in enumerate(turns))


def _message(entry: Any, line: Line) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise DataError(f'{line.place}: the message {entry!r} must be an object such as {{"role": "user", ...}}.')
    # Both spellings are read in either list, since data sets mix them.
    keys = ("from", "value") if "from" in entry else ("role", "content")
    role, content = (entry.get(key) for key in keys)
    if not isinstance(role, str) or not (isinstance(content, str) or (content is None and entry.get("tool_calls"))):
        raise DataError(f"{line.place}: {keys[0]!r} and {keys[1]!r} of the message {entry!r} must be texts.")
    others = {key: value for key, value in entry.items() if key not in keys}
    return {"role": _ROLES.get(role, role), "content": content, **others}
