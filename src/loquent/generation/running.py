"""A run: the requests of one call of `generate()` or `stream()`, from their submission to their results."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from loquent.config import GenerationConfig
from loquent.decoding.arguments import resolve
from loquent.decoding.surroundings import DEFAULT_NEW_TOKENS, Surroundings
from loquent.decoding.task import Hypothesis
from loquent.engine import Engine, Handle
from loquent.errors import ArgumentError
from loquent.generation.assistants import assistant_of
from loquent.generation.binding import Bound, engine_of
from loquent.generation.prompts import INPUT_NAMES, Prompts, pad_token, read_prompts
from loquent.generation.results import tensor_like
from loquent.generation.settings import callables, merged, row_seeds

KEPT_STORE_BYTES = 256 << 20
"""How much key-value memory an idle model keeps for its next call, and what it remembers there with it."""


class StreamEvent(NamedTuple):
    """News of one row: tokens that are there for good, and why it ended if it has."""

    row: int  # of what `generate` would return: the input's row * num_return_sequences + which of them
    tokens: tuple[int, ...]
    finished: str | None = None  # "eos", "length", "stop_string", "time", "criteria"


@dataclass(eq=False)
class Run:
    """Submitted requests; `copies` rows of the result belong to each input row."""

    engine: Engine
    handles: list[Handle]  # in the order of the result's rows; a beam search's handle gives several of them
    prompts: Prompts
    config: GenerationConfig
    copies: int
    healed: tuple[int, ...] = ()  # for each input row, how many of its last tokens are made again

    @property
    def pad(self) -> int:
        """What rows are filled with."""
        return pad_token(self.config)

    @property
    def rows(self) -> int:
        """How many rows the result has."""
        return len(self.prompts.rows) * self.copies

    def events(self) -> Iterator[StreamEvent]:
        """Steps the engine until all requests are done, with what each step brought."""
        each = self.rows // len(self.handles)  # rows of a handle
        live = {number * each: handle for number, handle in enumerate(self.handles)}  # by its first row
        while live:
            with self.engine.lock:  # one turn for the step and its news, not as many as there are requests
                self.engine.step()
                news = [(row, *handle.news()) for row, handle in live.items()]
            for row, tokens, ended, error in news:
                if error:
                    raise error
                if ended:
                    handle = live.pop(row)
                    yield StreamEvent(row, tuple(tokens), handle.reason)
                    yield from _others(handle, row)
                elif tokens:
                    yield StreamEvent(row, tuple(tokens))
        tidy(self.engine)

    def stream(self) -> Generator[StreamEvent, None, None]:
        """`events`; closing the generator, or an exception where it is consumed, cancels what is left."""

        def events() -> Generator[StreamEvent, None, None]:
            try:
                yield StreamEvent(-1, ())
                yield from self.events()
            finally:
                self.cancel()

        news = events()
        next(news)  # it is inside `try` from here on, so that closing it before its first event cancels too
        return news

    def results(self) -> list[Hypothesis]:
        """The hypothesis of each row of the result."""
        ranked = [handle.result() for handle in self.handles]
        return [hypothesis for hypotheses in ranked for hypothesis in hypotheses]

    def unfinished(self) -> list[Hypothesis]:
        """The results of what has ended, and as far as they came, those of what was cancelled."""
        each = self.rows // len(self.handles)
        return [hypothesis for handle in self.handles for hypothesis in handle.so_far(each)]

    def cancel(self) -> None:
        """End what has not ended."""
        for handle in self.handles:
            handle.cancel()
        tidy(self.engine)


def tidy(engine: Engine) -> None:
    """Give back the key-value memory of an idle model, unless it is little enough to be kept."""
    if engine.scheduler.idle and engine.store_bytes > KEPT_STORE_BYTES:
        engine.release_memory()


def _others(handle: Handle, first_row: int) -> Iterator[StreamEvent]:
    """The hypotheses of a handle behind its best, which come when it is done."""
    for offset, hypothesis in enumerate(handle.result()[1:], 1):
        yield StreamEvent(first_row + offset, hypothesis.tokens, hypothesis.reason)


def start(
    model: Bound,
    inputs: Any = None,
    generation_config: Any = None,
    *,
    seed: int | list[int] | None = None,
    tokenizer: Any = None,
    stopping_criteria: Any = None,
    logits_processor: Any = None,
    assistant_model: Any = None,
    assistant_tokenizer: Any = None,
    prefix_allowed_tokens_fn: Any = None,
    context_overflow: str = "error",
    default_new_tokens: int = DEFAULT_NEW_TOKENS,
    **kwargs: Any,
) -> Run:
    """Submit the requests that the arguments of `generate()` ask for, all of them checked first.

    Where no length is asked for, `default_new_tokens` follow, or as many as the model has positions left.
    """
    if context_overflow not in ("error", "slide"):
        raise ArgumentError(f'context_overflow={context_overflow!r} must be "error" or "slide".')
    arguments = dict(kwargs)
    named = {name: arguments.pop(name) for name in INPUT_NAMES & arguments.keys()}
    config = merged(model.generation_config, generation_config, arguments)
    prompts = read_prompts(inputs, named, config, model.gives_tensors)
    seeds = row_seeds(seed, config, len(prompts.rows))
    engine = engine_of(model)
    around = Surroundings(
        vocabulary=engine.backend.vocabulary,
        max_positions=engine.backend.max_positions,
        tokenizer=tokenizer,
        processors=callables(logits_processor, "logits_processor"),
        criteria=callables(stopping_criteria, "stopping_criteria"),
        allowed=next(iter(callables(prefix_allowed_tokens_fn, "prefix_allowed_tokens_fn")), None),
        as_given=None if prompts.as_tensors == model.gives_tensors else partial(tensor_like, prompts),
        slide=context_overflow == "slide",
        default_new_tokens=default_new_tokens,
        free_rows=engine.backend.free_rows,
        assistant=assistant_of(engine, model, config, assistant_model, tokenizer, assistant_tokenizer),
        as_ids=lambda tokens: tensor_like(prompts, tokens[None, :]),
    )
    pairs = [
        (prompt, decoding)
        for row, (prompt, row_seed) in enumerate(zip(prompts.rows, seeds))
        for decoding in resolve(config, prompt.tolist(), row_seed, replace(around, row=row))
    ]
    engine.refresh()
    healed = tuple(decoding.healed for _, decoding in pairs[:: len(pairs) // len(prompts.rows)])
    run = Run(engine, [], prompts, config, config.num_return_sequences, healed)
    try:
        for prompt, decoding in pairs:
            run.handles.append(engine.submit(prompt[: len(prompt) - decoding.healed], decoding))
    except BaseException:
        run.cancel()
        raise
    return run
