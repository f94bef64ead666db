"""Held-out stories: the beginnings of tales in the books that the default model has not seen, nor stories260k any.

Run in the repository's environment: python -m kv.texts STORIES OUT    writes the tales as a JSON list
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[2] / "scripts"


def write(stories: Path, target: Path) -> None:
    """The held-out tales of the default model's corpus."""
    sys.path.insert(0, str(SCRIPTS))
    from default_model.stories import read_stories

    target.write_text(json.dumps(read_stories(stories).held_out))


def beginnings(tales: list[str], tokenizer: Any, length: int, count: int) -> list[str]:
    """Of the first `count` tales that are so long, the text of the first `length` tokens."""
    found: list[str] = []
    for tale in tales:
        if len(found) == count:
            break
        encoded = tokenizer(tale, return_offsets_mapping=True, verbose=False)
        if len(encoded["input_ids"]) > length:
            found.append(tale[: encoded["offset_mapping"][length - 1][1]])
    return found


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
