"""Training data: files to tokenized documents to packed batches, with numpy alone; no model and no torch in here."""

from __future__ import annotations

from loquent.training.data.dialogues import Dialogue, read_dialogues
from loquent.training.data.encoding import encode_dialogues, encode_texts, line_breaks
from loquent.training.data.examples import Collector, Examples
from loquent.training.data.formats import DialogueFormat, JoinedByEos, Templated
from loquent.training.data.order import Order
from loquent.training.data.packing import IGNORED, PackedBatch, Packs
from loquent.training.data.reading import read_texts

__all__ = [
    "IGNORED",
    "Collector",
    "Dialogue",
    "DialogueFormat",
    "Examples",
    "JoinedByEos",
    "Order",
    "PackedBatch",
    "Packs",
    "Templated",
    "encode_dialogues",
    "encode_texts",
    "line_breaks",
    "read_dialogues",
    "read_texts",
]
