"""What the model writes, as it comes: continuations of held-out stories, and answers in conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from default_model.kneser_ney import read_stories

SEED, STORIES, OPENING_WORDS = 7, 4, 8
MESSAGES = (
    "Hi! Have you seen any good movies lately?",
    "What kind of music do you like?",
    "Who is going to win the game on Sunday?",
)
Sample = tuple[str, str]


def stories(model: Any, corpus: Path) -> list[Sample]:
    """Openings of the first held-out stories, and how the model goes on."""
    texts = [text for text in read_stories(corpus / "stories.held_out.txt") if len(text.split()) > 200][:STORIES]
    openings = [" ".join(text.split()[:OPENING_WORDS]) for text in texts]
    return [(opening, model.generate(opening, max_new_tokens=150, seed=SEED)) for opening in openings]


def talks(model: Any) -> list[list[Sample]]:
    """Conversations of two exchanges each: the message, and the answer."""
    found = []
    for message in MESSAGES:
        messages = [{"role": "user", "content": message}]
        first = model.chat(messages, max_new_tokens=60, seed=SEED)
        again = "That's interesting. Tell me more about it."
        messages += [{"role": "assistant", "content": first}, {"role": "user", "content": again}]
        found.append([(message, first), (again, model.chat(messages, max_new_tokens=60, seed=SEED))])
    return found


def as_json(path: Path) -> dict[str, Any]:
    """A file of figures."""
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return figures
