"""Make the package's own models, from the raw text to the folders that ship, with their cards.

    python scripts/train_default_model.py --data ../shared/data/text --work build/default-model

Needs the package with its torch extra, torch 2.9 or newer and a C++ compiler. Runs the commands of Loquent one after
another (`default_model/recipe.py` has them) and goes on where it was stopped: about two hours on two cores. The
baseline in the cards is measured by `measure_kneser_ney.py`, which needs KenLM; `--kneser-ney` takes what it wrote, and
without it the figures that are in the folder already stay, as long as the text is the same.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from default_model.card import draft_card, model_card
from default_model.files import ship
from default_model.measures import measure
from default_model.recipe import MODELS, Places, run, tokenizer_command, training_command
from default_model.samples import as_json, stories, talks
from default_model.text_files import write_corpus

import loquent

MODELS_FOLDER = Path(__file__).parents[1] / "src" / "loquent" / "models"


def main() -> None:
    """Run the recipe."""
    arguments = _arguments()
    places = Places(arguments.work)
    if not (places.corpus / "corpus.json").is_file():
        write_corpus(arguments.data, places.corpus)
    if not (places.tokenizer / "tokenizer.json").is_file():
        run(tokenizer_command(places))
    baseline = _baseline(arguments, as_json(places.corpus / "corpus.json"))
    for name in MODELS:
        run(training_command(places, name, arguments.threads))
        ship(places.run(name), arguments.out / name)
    figures = measure(arguments.out, places)
    figures["kneser_ney"] = baseline
    for name in MODELS:
        text = json.dumps(figures, indent=2) + "\n"
        (arguments.out / name / "metrics.json").write_text(text, encoding="utf-8")
    model = loquent.load(arguments.out / "default")
    card = model_card(figures, stories(model, places.corpus), talks(model), arguments.how)
    (arguments.out / "default" / "README.md").write_text(card, encoding="utf-8")
    (arguments.out / "default-draft" / "README.md").write_text(draft_card(figures), encoding="utf-8")


def _baseline(arguments: argparse.Namespace, corpus: dict[str, Any]) -> dict[str, Any]:
    """The figures of the 5-gram models on this text."""
    if arguments.kneser_ney is not None:
        return as_json(arguments.kneser_ney)
    known = arguments.out / "default" / "metrics.json"
    if not known.is_file() or as_json(known)["corpus"] != corpus:
        raise SystemExit(f"{known} has no figures of a 5-gram model on this text. Measure one, and pass --kneser-ney.")
    figures: dict[str, Any] = as_json(known)["kneser_ney"]
    return figures


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the package's own models.")
    parser.add_argument("--data", type=Path, required=True, help="the folder with stories.txt.xz, dialogues.jsonl.xz")
    parser.add_argument("--work", type=Path, required=True, help="a folder for what is made on the way")
    parser.add_argument("--out", type=Path, default=MODELS_FOLDER, help="the folder of the models' folders")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--how", default="It ran from beginning to end.", help="what the card says of the run itself")
    parser.add_argument("--kneser-ney", type=Path, help="what measure_kneser_ney.py wrote")
    return parser.parse_args()


if __name__ == "__main__":
    main()
