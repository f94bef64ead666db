"""Listeners that write files: the history of a run, its curve as a picture, and TensorBoard's logs; no terminal."""

from __future__ import annotations

from loquent.training.reports.history import History, facts, read_history

__all__ = ["History", "facts", "read_history"]
