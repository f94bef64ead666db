"""Training data: files to tokenized documents to packed batches, with numpy alone; no model and no torch in here."""

from __future__ import annotations

from loquent.training.data.encoding import encode_texts, line_breaks
from loquent.training.data.examples import Collector, Examples
from loquent.training.data.order import Order
from loquent.training.data.packing import IGNORED, PackedBatch, Packs

__all__ = [
    "IGNORED",
    "Collector",
    "Examples",
    "Order",
    "PackedBatch",
    "Packs",
    "encode_texts",
    "line_breaks",
]
