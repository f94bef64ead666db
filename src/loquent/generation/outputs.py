"""What `generate(return_dict_in_generate=True)` returns, in transformers' classes and shapes; it computes no model.

A *lane* is a row of the tensors: each request has one, a beam search one a beam. The documentation page is
https://huggingface.co/docs/transformers/internal/generation_utils.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loquent.decoding.trace import Trace
from loquent.generation.caches import Passed
from loquent.records import Record


@dataclass(eq=False)
class GenerateDecoderOnlyOutput(Record):
    """What strategies without beams return; what was not asked for is None, and no key.

    Attributes:
        sequences: ids (rows, length).
        scores: for `output_scores`, for each new token (rows, vocabulary) in float32: the logits after the rules. A row
            that has ended has 0 for the pad token and minus infinity for the others.
        logits: for `output_logits`, likewise, before the rules.
        attentions: for `output_attentions`, for each new token a tuple with each layer's weights (rows, heads, read,
            columns), where `read` is the prompt's length first, then 1. A row has zeros where there are no tokens.
        hidden_states: for `output_hidden_states`, for each new token a tuple with the embeddings and each layer's
            states (rows, read, width). The model reads the result once more for it and for the attentions.
        past_key_values: where `use_cache` is on, the cache that was passed, or a new one: it holds all columns of
            `sequences` but the last, and can be passed to `generate` or to a model's `forward`.
        trace: for `output_trace`, each row's `decoding.trace.Trace`.
    """

    sequences: Any = None
    scores: tuple[Any, ...] | None = None
    logits: tuple[Any, ...] | None = None
    attentions: tuple[tuple[Any, ...], ...] | None = None
    hidden_states: tuple[tuple[Any, ...], ...] | None = None
    past_key_values: Passed = None
    trace: tuple[Trace, ...] | None = None


@dataclass(eq=False)
class GenerateBeamDecoderOnlyOutput(Record):
    """What beam searches return; what was not asked for is None, and no key.

    The tensors of `GenerateDecoderOnlyOutput` have a row for each beam of each input row here.

    Attributes:
        sequences_scores: (rows,), what the hypotheses were ranked by.
        scores: log-probabilities after the rules.
        beam_indices: where there are scores, logits, attentions or hidden states, (rows, longest): the row of theirs at
            step t that new token t was chosen from, and -1 behind the end.
    """

    sequences: Any = None
    sequences_scores: Any = None
    scores: tuple[Any, ...] | None = None
    logits: tuple[Any, ...] | None = None
    beam_indices: Any = None
    attentions: tuple[tuple[Any, ...], ...] | None = None
    hidden_states: tuple[tuple[Any, ...], ...] | None = None
    past_key_values: Passed = None
    trace: tuple[Trace, ...] | None = None
