"""Replay: reads a finished request's texts once more, for the hidden states and attentions of its output.

The numbers are those of the run to rounding: the same model reads the same tokens, in other company.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import to_numpy
from loquent.decoding.stopping import Stopping
from loquent.decoding.task import Decoding, Hypothesis, Read, Strategy, Task
from loquent.decoding.wants import Hidden
from loquent.engine import Engine

Text = tuple[int, ...]
Layers = list[NDArray[Any]]


@runtime_checkable
class Attentive(Protocol):
    """A model that tells its attention weights."""

    def attention_weights(self, tokens: NDArray[np.int64]) -> Layers:
        """Those of each layer, (heads, length, length), for one text (length,)."""


def longest(texts: Iterable[Text]) -> dict[Text, Text]:
    """For each text the one to read for it: itself, or another that begins with it."""
    found: dict[Text, Text] = {}
    last: Text = ()
    for text in sorted(set(texts), reverse=True):  # what begins with a text comes before it
        last = last if last[: len(text)] == text and found else text
        found[text] = last
    return found


def hidden_states(engine: Engine, texts: Iterable[Text]) -> dict[Text, Layers]:
    """The states (length, width) of all layers behind all tokens of some texts, from one run of the engine."""
    layers = tuple(range(engine.backend.layers + 1))
    found: dict[Text, Layers] = {}

    def read_once(task: Task) -> Strategy:
        [states] = yield [Read(task.open(), task.prompt, Hidden(layers, every=True))]
        found[tuple(task.prompt.tolist())] = [to_numpy(states[layer]) for layer in layers]
        task.rank([Hypothesis((), "length")])

    decoding = Decoding(strategy=read_once, stopping=Stopping(max_new_tokens=0))
    handles = [engine.submit(text, decoding) for text in texts]
    try:
        while not all(handle.done for handle in handles):
            engine.step()
        for handle in handles:
            handle.result()
    finally:
        for handle in handles:
            handle.cancel()
    return found


def attentions(model: Attentive, texts: Iterable[Text]) -> dict[Text, Layers]:
    """The weights (heads, length, length) of all layers, for some texts."""
    return {text: model.attention_weights(np.array(text, np.int64)) for text in texts}
