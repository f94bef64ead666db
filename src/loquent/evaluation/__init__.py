"""Measures of a model: perplexity of texts and conversations, the tasks of lm-eval, HumanEval; it changes no model."""

from __future__ import annotations

from loquent.evaluation.conversations import conversation_documents, dialogue_perplexity
from loquent.evaluation.documents import Document, document_of
from loquent.evaluation.perplexity import Perplexity, measured, perplexity

__all__ = [
    "Document",
    "Perplexity",
    "conversation_documents",
    "dialogue_perplexity",
    "document_of",
    "measured",
    "perplexity",
]
