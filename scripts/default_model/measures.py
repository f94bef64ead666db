"""The figures in the cards: what held-out text costs each model, and what the data and the training were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import loquent
from default_model.kneser_ney import read_stories
from default_model.recipe import LENGTH, MODELS, PACKS, STEPS, Places
from default_model.samples import as_json
from loquent.evaluation import Perplexity, measured, perplexity
from loquent.evaluation.conversations import conversation_documents
from loquent.training.data import Templated, read_dialogues


def measure(folder: Path, places: Places) -> dict[str, Any]:
    """What both models in the folder make of the held-out text, and how they came to be."""
    figures: dict[str, Any] = {"corpus": as_json(places.corpus / "corpus.json")}
    figures["training"] = {"steps": STEPS, "packs": PACKS, "length": LENGTH}
    for name in MODELS:
        figures[name] = {
            "parameters": parameters(folder / name),
            **held_out(folder / name, places),
            "tokens_read": _tokens_read(places.run(name) / "training.jsonl"),
        }
    return figures


def held_out(folder: Path, places: Places) -> dict[str, dict[str, float | int]]:
    """What the held-out stories and conversations cost a model."""
    model = loquent.load(folder)
    stories, dialogues = places.data("held_out")
    talks = conversation_documents(
        model.tokenizer, read_dialogues([dialogues]), Templated.of(model.tokenizer, answers_only=False)
    )
    return {
        "stories": _figures(perplexity(model, list(read_stories(Path(stories))), count_ends=True)),
        "dialogues": _figures(measured(model, talks)),
    }


def parameters(folder: Path) -> int:
    """How many numbers a model's file holds."""
    from loquent import AutoModelForCausalLM

    count: int = AutoModelForCausalLM.from_pretrained(folder).num_parameters()
    return count


def _figures(found: Perplexity) -> dict[str, float | int]:
    return {
        "bits_per_byte": round(found.bits_per_byte, 4),
        "perplexity": round(found.perplexity, 2),
        "tokens": found.tokens,
        "text_bytes": found.bytes,
        "documents": found.documents,
    }


def _tokens_read(history: Path) -> int:
    """How many tokens the run had read at its end, from its history."""
    events = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    return max(event["tokens"] for event in events if event.get("event") == "stepped")
