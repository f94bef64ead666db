"""Measure a 5-gram Kneser-Ney model on the text that the default model is measured on; see default_model/kneser_ney.py.

    python scripts/measure_kneser_ney.py --corpus build/corpus --tokenizer build/tokenizer --lmplz lm/bin/lmplz \\
        --out build/kneser_ney.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from default_model import kneser_ney as ngrams

from loquent import AutoTokenizer

PARTS = {"stories": ("stories",), "dialogues": ("dialogues",), "both": ("stories", "dialogues")}


def main() -> None:
    """Estimate on each part of the training text and on all of it, and score the held-out parts with each."""
    arguments = _arguments()
    # Needed here alone.
    import kenlm

    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    held_out = {
        "stories": list(_documents(tokenizer, arguments.corpus, "stories", "held_out")),
        "stories_without_ends": list(_documents(tokenizer, arguments.corpus, "stories", "held_out", with_end=False)),
        "dialogues": list(_documents(tokenizer, arguments.corpus, "dialogues", "held_out")),
    }
    figures: dict[str, Any] = {"order": ngrams.ORDER, "vocabulary": len(tokenizer)}
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        arpa = Path(work) / "model.arpa"
        for name, parts in PARTS.items():
            train = (one for part in parts for one in _documents(tokenizer, arguments.corpus, part, "train"))
            ngrams.estimate(arguments.lmplz, train, arpa, len(tokenizer))
            model = kenlm.Model(str(arpa))
            scores = {part: ngrams.score(model, documents).figures for part, documents in held_out.items()}
            figures[f"trained_on_{name}"] = scores
            print(name, json.dumps(scores, indent=2), flush=True)
    arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _documents(tokenizer: Any, corpus: Path, kind: str, part: str, with_end: bool = True) -> Iterator[ngrams.Document]:
    if kind == "stories":
        for text in ngrams.read_stories(corpus / f"stories.{part}.txt"):
            yield ngrams.story(tokenizer, text, with_end)
    else:
        for turns in ngrams.read_conversations(corpus / f"dialogues.{part}.jsonl"):
            yield ngrams.conversation(tokenizer, turns)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a 5-gram Kneser-Ney model.")
    parser.add_argument("--corpus", type=Path, required=True, help="what prepare_default_corpus.py wrote")
    parser.add_argument("--tokenizer", type=Path, required=True, help="the default model's tokenizer")
    parser.add_argument("--lmplz", type=Path, required=True, help="KenLM's program")
    parser.add_argument("--out", type=Path, required=True, help="the file of figures to write")
    parser.add_argument("--work", type=Path, help="a folder with room for 5 GB")
    return parser.parse_args()


if __name__ == "__main__":
    main()
