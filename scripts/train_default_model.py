"""Train the model that ships in the package, measure it, and write its folder with its model card.

    python scripts/train_default_model.py --text ../shared/data/text/stories.txt.xz --out src/loquent/models/default

Needs the package with its torch extra, torch 2.9 or later and a C++ compiler (`--eager` does without, more slowly).
Prints the loss as it goes, and continues from its checkpoint if it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from default_model.card import model_card
from default_model.corpus import read_corpus
from default_model.evaluation import measure
from default_model.files import save_model
from default_model.training import Recipe, sequences, train
from default_model.vocabulary import encode_documents, learn_vocabulary, paragraph_breaks, save_tokenizer

from loquent import AutoTokenizer, DogeForCausalLM


def main() -> None:
    """Run the recipe from text to model card."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    # Normalization under autocast: what is computed is right, torch only says that it is not its fastest way.
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    recipe = Recipe()
    corpus = read_corpus(arguments.text)
    tokenizer = learn_vocabulary(corpus.train, recipe.vocabulary)
    tokens = encode_documents(tokenizer, corpus.train)

    torch.manual_seed(recipe.seed)
    model = DogeForCausalLM(recipe.config())
    if not arguments.eager:
        for block in model.stack.blocks:
            block.compile(dynamic=False)
    batches = sequences(tokens, np.array(paragraph_breaks(tokenizer)), recipe)
    seconds = train(model, batches, recipe, arguments.checkpoint)
    save_tokenizer(tokenizer, arguments.out, recipe.positions)
    save_model(model, arguments.out)

    shipped = DogeForCausalLM.from_pretrained(arguments.out)
    figures, samples = measure(shipped, AutoTokenizer.from_pretrained(arguments.out), corpus, tokens)
    figures |= {"parameters": shipped.num_parameters(), "training_seconds": round(seconds)}
    (arguments.out / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (arguments.out / "README.md").write_text(model_card(figures, recipe, samples), encoding="utf-8")
    print(json.dumps(figures, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the default model.")
    parser.add_argument("--text", type=Path, required=True, help="stories.txt.xz")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--checkpoint", type=Path, default=Path(tempfile.gettempdir()) / "loquent-default-model.pt")
    return parser.parse_args()


if __name__ == "__main__":
    main()
