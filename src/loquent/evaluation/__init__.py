"""Measures of a model: perplexity of texts and conversations, the tasks of lm-eval, HumanEval; it changes no model."""

from __future__ import annotations

from loquent.evaluation.documents import Document, document_of
from loquent.evaluation.perplexity import Perplexity, measured, perplexity

__all__ = ["Document", "Perplexity", "document_of", "measured", "perplexity"]
