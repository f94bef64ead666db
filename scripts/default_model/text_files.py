"""The clean text files that the default model is trained and measured on; `loquent` commands do the rest."""

from __future__ import annotations

import json
from pathlib import Path

from default_model.conversations import Conversation, read_conversations
from default_model.split import Split
from default_model.stories import read_stories

SEPARATOR = "<|endoftext|>"
Figures = dict[str, dict[str, int]]


def write_corpus(data: Path, folder: Path) -> Figures:
    """Write `stories` (documents separated by a line) and `dialogues` (a conversation a line), trained on and held out.

    Args:
        data: the folder with stories.txt.xz and dialogues.jsonl.xz.
        folder: where to, made if need be.

    Returns:
        How many documents or conversations each file has, and bytes of their text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stories = read_stories(data / "stories.txt.xz")
    figures = _write_stories(stories, folder)
    figures |= _write_dialogues(read_conversations(data / "dialogues.jsonl.xz"), folder)
    (folder / "corpus.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def _write_stories(stories: Split[str], folder: Path) -> Figures:
    figures: Figures = {}
    for part, documents in (("train", stories.train), ("held_out", stories.held_out)):
        name = f"stories.{part}.txt"
        (folder / name).write_text(f"\n{SEPARATOR}\n".join(documents) + "\n", encoding="utf-8")
        figures[name] = {"documents": len(documents), "text_bytes": sum(len(text.encode()) for text in documents)}
    return figures


def _write_dialogues(dialogues: Split[Conversation], folder: Path) -> Figures:
    figures: Figures = {}
    for part, conversations in (("train", dialogues.train), ("held_out", dialogues.held_out)):
        name = f"dialogues.{part}.jsonl"
        lines = "".join(f"{one.as_json()}\n" for one in conversations)
        (folder / name).write_text(lines, encoding="utf-8")
        turns = [turn for one in conversations for turn in one.turns]
        figures[name] = {"documents": len(conversations), "text_bytes": sum(len(turn.encode()) for turn in turns)}
    return figures
