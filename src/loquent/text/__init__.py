"""Loquent's own small face: `load()` gives a model whose methods take and return text; no ids, no tensors."""

from __future__ import annotations

from loquent.text.loading import default_model, load, place_of
from loquent.text.model import TextModel
from loquent.text.run import TextEvent, TextRun
from loquent.text.score import Score

__all__ = ["Score", "TextEvent", "TextModel", "TextRun", "default_model", "load", "place_of"]
