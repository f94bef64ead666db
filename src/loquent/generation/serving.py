"""A model's engine for programs that take requests one by one, such as servers; requests run side by side in it.

There is no thread of its own: whoever waits for a request steps the engine, and each step serves all requests. So a
request goes on while anybody streams, waits for a result, or calls `step()`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from loquent.decoding.task import Hypothesis
from loquent.decoding.trace import Trace
from loquent.engine.reader import StoreMemory
from loquent.errors import ArgumentError
from loquent.generation.binding import Bound, WithTokenizer, engine_of, limit_kv_memory
from loquent.generation.collecting import trace_of
from loquent.generation.running import Run, StreamEvent, start, tidy


def open_engine(model: Any, tokenizer: Any = None, *, kv_memory: int | str | None = None) -> GenerationEngine:
    """The engine of a model, for requests that come and go.

    Args:
        model: a model of `AutoModelForCausalLM`, or what `loquent.load` gives.
        tokenizer: makes ids of prompts that are texts, and is what `stop_strings` and grammars see texts through; that
            of a `loquent.load` model is its own.
        kv_memory: how much of keys and values it may hold in memory, in bytes or as "2GiB", by all requests together,
            those of `model.generate` too; what was said before holds where it is None, or else 90 % of what is free.

    Raises:
        ArgumentError: the model is none that generates, or `kv_memory` is no size.
    """
    if isinstance(model, WithTokenizer):
        model, tokenizer = model.model, tokenizer or model.tokenizer
    if not isinstance(model, Bound):
        raise ArgumentError(f"model is a {type(model).__name__}. Pass a model that generates, such as loquent.load's.")
    if kv_memory is not None:
        limit_kv_memory(model, kv_memory)
    return GenerationEngine(model, tokenizer)


class GenerationEngine:
    """Runs requests of all strategies side by side on one model; `open_engine` makes it. Threads may share it."""

    def __init__(self, model: Bound, tokenizer: Any = None) -> None:
        self.model, self.tokenizer = model, tokenizer

    def submit(
        self, prompt: Any, config: Any = None, *, deadline: float | None = None, events: bool = False, **kwargs: Any
    ) -> GenerationHandle:
        """Queue a request; it starts with one of the next steps.

        Args:
            prompt: ids (length,) or (1, length), or a text where there is a tokenizer.
            config: a GenerationConfig; fields that it does not set are those of `model.generation_config`.
            deadline: seconds from now, after which the request ends with what is there, be it nothing: its results have
                the reason "time". Other than `max_time` it also ends requests that have not begun.
            events: whether streamed events tell what the strategy weighed (`StreamEvent.trace`), and `trace()` all.
            **kwargs: what `model.generate` takes, but `streamer`; the fields of GenerationConfig among them.

        Raises:
            ArgumentError: an argument is unknown, cannot work, or contradicts another.
            ContextLengthError: the prompt and its new tokens exceed the model's positions.
            CapacityError: the request cannot fit into the key-value store even alone.
        """
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise ArgumentError(f"prompt={prompt!r:.80} is a text. Pass ids, or open the engine with a tokenizer.")
            prompt = self.tokenizer(prompt, verbose=False)["input_ids"]
        if isinstance(prompt, list | tuple):
            prompt = prompt if any(isinstance(row, list | tuple) or np.ndim(row) for row in prompt) else [prompt]
        elif not getattr(prompt, "ndim", 0):
            raise ArgumentError(f"prompt={prompt!r:.80} is neither ids nor a text. Pass a list of ids.")
        elif prompt.ndim == 1:
            prompt = prompt[None]
        if len(prompt) != 1:
            raise ArgumentError(f"prompt has {len(prompt)} rows. Submit each of them.")
        kwargs = {"tokenizer": self.tokenizer, **kwargs}
        return GenerationHandle(start(self.model, prompt, config, deadline=deadline, traced=events, **kwargs))

    def step(self) -> bool:
        """One step of everything that runs. Returns whether anything is left to do."""
        engine = engine_of(self.model)
        is_left = engine.step()
        if not is_left:
            tidy(engine)
        return is_left

    def describe(self) -> str:
        """What runs the model, in a few words."""
        return engine_of(self.model).backend.describe()

    def memory(self) -> list[StoreMemory]:
        """What the key-value stores take, in bytes: a line for each group of pages, by where and in which form it is.

        Pages are held by requests, or remembered for requests that begin equally, which give way to what needs room.
        """
        return engine_of(self.model).memory()


class GenerationHandle:
    """A request: its new tokens as they come, its results, and the means to cancel it. Threads may share it."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def done(self) -> bool:
        """Whether the request has ended, in whatever way."""
        return all(request.handle.done for request in self._run.requests)

    def stream(self) -> Generator[StreamEvent, None, None]:
        """The new tokens since they were last streamed, as they come; `row` counts the `num_return_sequences`.

        A row's last event says why it ended, "cancelled" included. Leaving the stream leaves the request as it is: who
        has lost interest cancels it.

        Raises:
            LoquentError: what made the request fail.
        """
        yield from self._run.events()

    def result(self) -> list[Hypothesis]:
        """Waits for the results: tokens, the reason why they end, and a score where the strategy ranks by one.

        Samples come in their order, beams best first.

        Raises:
            RequestCancelledError: it was cancelled.
            LoquentError: what made the request fail.
        """
        while not self.done:
            self._run.engine.step()
        results = self._run.results()
        self._run.fill_past()
        self._run.write_cache()
        tidy(self._run.engine)
        return results

    def so_far(self) -> list[Hypothesis]:
        """The results, or what is there of them; the reason of those that have not ended is "cancelled"."""
        with self._run.engine.lock:
            return self._run.unfinished()

    def trace(self) -> list[Trace]:
        """For each result what its strategy has told so far, where the request was submitted with `events`."""
        with self._run.engine.lock:
            run, results = self._run, self._run.unfinished()
            return [trace_of(run, request, results) for request in run.requests for _ in range(request.count)]

    def cancel(self) -> None:
        """End the request now and free what it holds; cancelling one that has ended does nothing."""
        self._run.cancel()
