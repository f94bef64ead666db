"""Binds a model to an engine: what `model.generate()`, pipelines and servers call; it decodes nothing itself.

Everything runs through `start`: prompts are read from whatever the caller has, arguments are resolved against each of
them, and the requests are submitted together; `generate` and `stream` differ in how they hand on what comes.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from loquent.decoding.task import Hypothesis
from loquent.errors import RequestCancelledError
from loquent.generation.binding import Bound, engine_of
from loquent.generation.collecting import collected, traces
from loquent.generation.outputs import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput
from loquent.generation.results import padded, tensor_like
from loquent.generation.running import Run, StreamEvent, start, tidy
from loquent.generation.serving import GenerationEngine, GenerationHandle, open_engine
from loquent.generation.streamers import StreamerFeed, check_streamer
from loquent.generation.transitions import compute_transition_scores

__all__ = [
    "Bound",
    "GenerateBeamDecoderOnlyOutput",
    "GenerateDecoderOnlyOutput",
    "GenerationEngine",
    "GenerationHandle",
    "Run",
    "StreamEvent",
    "compute_transition_scores",
    "engine_of",
    "generate",
    "open_engine",
    "run_all",
    "start",
    "stream",
    "tidy",
    "traces",
]


def generate(
    model: Bound,
    inputs: Any = None,
    generation_config: Any = None,
    *,
    streamer: Any = None,
    seed: int | list[int] | None = None,
    tokenizer: Any = None,
    stopping_criteria: Any = None,
    logits_processor: Any = None,
    assistant_model: Any = None,
    assistant_tokenizer: Any = None,
    context_overflow: str = "error",
    past_key_values: Any = None,
    prompt_cache: Any = None,
    **kwargs: Any,
) -> Any:
    """Continue sequences of tokens.

    Each row's continuation depends on the model, its own tokens and the arguments alone, never on the other rows.

    Args:
        inputs: ids (rows, length), as a tensor, an array, lists, or what a tokenizer returns. Rows may be padded on
            either side where `attention_mask` says so; lists may differ in length. Without inputs the row is BOS.
        generation_config: a GenerationConfig, or a list with one for each row, whose rows then run side by side; fields
            that it does not set are those of `model.generation_config`. The first row's config fills the result.
        streamer: an object with `put(value)` and `end()`: is given the prompts, then a token of each row at a time. If
            `put` raises RequestCancelledError, generating stops and what is there so far is returned.
        seed: makes sampling repeatable; one for all rows, or a list with one for each. Rows with the same prompt and
            seed are equal, sequences of one prompt (`num_return_sequences`) are not.
        tokenizer: what `stop_strings`, grammars (`regex`, ...), `token_healing`, and drafts of another vocabulary see
            texts through.
        stopping_criteria: callables `(input_ids, scores) -> bool`, asked about one row at a time.
        logits_processor: callables `(input_ids, scores) -> scores`, called with one row at a time.
        assistant_model: a model that drafts tokens, which this one verifies several at a time: what comes out is the
            same, sooner. Of the same vocabulary, or with `tokenizer` and `assistant_tokenizer` of any.
        assistant_tokenizer: the assistant's, where its vocabulary is another.
        context_overflow: "error" refuses to generate past the model's positions; "slide" drops the oldest half of the
            context whenever it is full.
        past_key_values: a cache that holds the beginning of `inputs`, new or filled by an earlier call; afterwards it
            holds the result but for its last column. It says how keys and values are kept, as `cache_implementation`
            does otherwise.
        prompt_cache: a file that keeps what was read of the prompt, of which there is one, for a later call, be it of
            another process: what it holds of the prompt's beginning is not read again. Written where it is not there,
            or lacks some of the prompt; made by another model or damaged, it is refused.
        **kwargs: any field of GenerationConfig, `attention_mask`, and `input_ids` in place of `inputs`.

    Returns:
        Ids (rows * num_return_sequences, length) as a tensor on the device of the inputs (an array, where neither the
        inputs nor the model are torch's): the inputs' columns, then the new tokens, filled with the pad token (or the
        first EOS token) where a row ended before the longest. With `return_dict_in_generate=True` a
        GenerateDecoderOnlyOutput with them as `sequences`, and with what `output_scores`, `output_logits`,
        `output_hidden_states`, `output_attentions` and `output_trace` ask for; a GenerateBeamDecoderOnlyOutput where
        there are beams.

    Raises:
        ArgumentError: an argument is unknown, cannot work, or contradicts another.
        CheckpointError: the prompt cache is damaged.
        ContextLengthError: a prompt and its new tokens exceed the model's positions.

    Source: https://huggingface.co/docs/transformers/main_classes/text_generation
    """
    run, results = run_all(
        model,
        inputs,
        generation_config,
        streamer=streamer,
        seed=seed,
        tokenizer=tokenizer,
        stopping_criteria=stopping_criteria,
        logits_processor=logits_processor,
        assistant_model=assistant_model,
        assistant_tokenizer=assistant_tokenizer,
        context_overflow=context_overflow,
        past_key_values=past_key_values,
        prompt_cache=prompt_cache,
        **kwargs,
    )
    if run.config.return_dict_in_generate:
        return collected(model, run, results)
    return tensor_like(run.prompts, padded(run.prompts, run.owners, results, run.pad, run.healed))


def run_all(
    model: Bound, inputs: Any = None, generation_config: Any = None, *, streamer: Any = None, **kwargs: Any
) -> tuple[Run, list[Hypothesis]]:
    """What `generate` does up to its return: the run, and the hypothesis of each row, without padding."""
    if streamer is not None:
        check_streamer(streamer)
    run = start(model, inputs, generation_config, **kwargs)
    feed = None if streamer is None else StreamerFeed(streamer, run)
    try:
        if feed:
            feed.begin()
        for event in run.events():
            if feed:
                feed.take(event)
        results = run.results()
        if feed:
            feed.end()
    except RequestCancelledError:  # whoever reads the stream has left it, which is no failure of this call
        run.cancel()
        run.fill_past()
        return run, run.unfinished()
    except BaseException as error:
        run.cancel()
        if feed:
            feed.fail(error)
        raise
    return run, results


def stream(
    model: Bound, inputs: Any = None, generation_config: Any = None, *, events: bool = False, **kwargs: Any
) -> Generator[StreamEvent, None, None]:
    """Continue sequences of tokens, yielding each row's new tokens as they come.

    Takes what `generate` takes, but a streamer. Arguments are checked before this returns. Closing the generator, or
    an exception where it is consumed, cancels what is left. Beams stream the tokens that all of them begin with; the
    rest, and the rows behind the best, come at the end.

    Args:
        events: whether each event tells in `trace` what its row's strategy weighed since the last one
            (`loquent.decoding.trace`); there is one for each step then, with or without tokens.

    Yields:
        StreamEvents; `row` is the number of the row that `generate` would return. A row's last event says why it
        ended.
    """
    return start(model, inputs, generation_config, traced=events, **kwargs).stream()
