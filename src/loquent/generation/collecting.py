"""Collects what an output asks for from a run that has ended: recorded rows, replayed texts, traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.recording import RecordedRow
from loquent.decoding.task import Hypothesis
from loquent.decoding.trace import Trace
from loquent.generation.binding import Bound
from loquent.generation.lanes import Lanes, lanes_of
from loquent.generation.outputs import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput
from loquent.generation.replay import Attentive, Layers, Text, attentions, hidden_states, longest
from loquent.generation.results import padded, tensor_like
from loquent.generation.running import Run, Submitted

Output = GenerateDecoderOnlyOutput | GenerateBeamDecoderOnlyOutput


def collected(model: Bound, run: Run, results: Sequence[Hypothesis]) -> Output:
    """The output of a run whose results are `results`, a row each."""
    of = _Collection(model, run, results)
    asked = {name for config in run.configs for name in _FLAGS if getattr(config, name)}
    found: dict[str, Any] = {
        "sequences": tensor_like(run.prompts, padded(run.prompts, run.owners, results, run.pad, run.healed)),
        "scores": of.rows(lambda row: row.scores) if "output_scores" in asked else None,
        "logits": of.rows(lambda row: row.logits) if "output_logits" in asked else None,
        "attentions": of.attentions() if "output_attentions" in asked else None,
        "hidden_states": of.hidden_states() if "output_hidden_states" in asked else None,
        "past_key_values": run.passed if run.config.use_cache else None,
        "trace": of.traces() if "output_trace" in asked else None,
    }
    if not any(config.num_beams > 1 for config in run.configs):
        return GenerateDecoderOnlyOutput(**found)
    scores = [np.nan if result.score is None else result.score for result in results]
    return GenerateBeamDecoderOnlyOutput(
        **found,
        sequences_scores=tensor_like(run.prompts, np.array(scores, np.float32)),
        beam_indices=of.beam_indices() if asked - {"output_trace"} else None,
    )


_FLAGS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states", "output_trace")


@dataclass(eq=False)
class _Collection:
    """A run that has ended, and what is made of it."""

    model: Bound
    run: Run
    results: Sequence[Hypothesis]

    @cached_property
    def lanes(self) -> list[tuple[Submitted, Lanes]]:
        """Each request's lanes."""
        return [
            (
                request,
                lanes_of(
                    request.handle.recording, request.config, self.results[request.first], request.decoding.healed
                ),
            )
            for request in self.run.requests
            if request.handle.recording is not None
        ]

    @property
    def steps(self) -> int:
        """How many steps the longest request took."""
        return max((len(lanes.steps) for _, lanes in self.lanes), default=0)

    def rows(self, of: Callable[[RecordedRow], NDArray[np.float32] | None]) -> tuple[Any, ...]:
        """For each step (lanes, vocabulary)."""
        ended = np.full(self.run.engine.backend.vocabulary, -np.inf, np.float32)
        ended[self.run.pad] = 0
        return tuple(
            self._tensor(
                np.stack([of(row) if row else ended for _, _, row in self._at(step)])  # type: ignore[misc]
            )
            for step in range(self.steps)
        )

    def beam_indices(self) -> Any:
        """(rows, longest)."""
        found = np.full((len(self.results), max(len(result.tokens) for result in self.results)), -1, np.int32)
        offset = 0
        for request, lanes in self.lanes:
            for row in range(request.first, request.first + request.count):
                way = lanes.way(self.results[row])
                found[row, : len(way)] = offset + np.array(way)
            offset += lanes.width
        return self._tensor(found)

    def hidden_states(self) -> tuple[tuple[Any, ...], ...]:
        """For each step and layer (lanes, read, width)."""
        read = self._replayed(lambda texts: hidden_states(self.run.engine, texts))
        return self._layers(read, _spread)

    def attentions(self) -> tuple[tuple[Any, ...], ...]:
        """For each step and layer (lanes, heads, read, columns)."""
        model = self.model
        assert isinstance(model, Attentive)  # `start` has refused others
        read = self._replayed(lambda texts: attentions(model, texts))
        return self._layers(read, _spread_square)

    def traces(self) -> tuple[Trace, ...]:
        """Of each row; those of one beam search share one."""
        return tuple(
            trace
            for request in self.run.requests
            for trace in [trace_of(self.run, request, self.results)] * request.count
        )

    def _at(self, step: int) -> list[tuple[Submitted, Lanes, RecordedRow | None]]:
        """The rows of all lanes at a step; None where the request has ended."""
        return [
            (request, lanes, lanes.steps[step][lane] if step < len(lanes.steps) else None)
            for request, lanes in self.lanes
            for lane in range(lanes.width)
        ]

    def _replayed(self, read: Callable[[set[Text]], dict[Text, Layers]]) -> Callable[[Submitted, RecordedRow], Layers]:
        """What reading the texts of all lanes gives, each beginning read once."""
        rows, healed = self.run.prompts.rows, self.run.healed
        prompts = [tuple(prompt[: len(prompt) - at].tolist()) for prompt, at in zip(rows, healed)]
        texts = longest(
            prompts[request.row] + row.generated
            for request, lanes in self.lanes
            for rows in lanes.steps
            for row in rows
            if row
        )
        found = read(set(texts.values()))
        return lambda request, row: found[texts[prompts[request.row] + row.generated]]

    def _layers(
        self,
        read: Callable[[Submitted, RecordedRow], Layers],
        spread: Callable[[NDArray[Any], NDArray[np.bool_], int], NDArray[Any]],
    ) -> tuple[tuple[Any, ...], ...]:
        """For each step and layer the rows of all lanes, behind the columns read in that step.

        `spread` makes columns, from one on, of the numbers of a text, of whose columns a mask says which have tokens.
        """
        steps = []
        for step in range(self.steps):
            columns: list[list[NDArray[Any]] | None] = []
            for request, _, row in self._at(step):
                if row is None:
                    columns.append(None)
                    continue
                kept = np.concatenate([self.run.prompts.kept[request.row], np.ones(step, np.bool_)])
                first = len(kept) - 1 if step else 0
                columns.append([spread(layer, kept, first) for layer in read(request, row)])
            some = next(column for column in columns if column is not None)
            whole = [column or [np.zeros_like(layer) for layer in some] for column in columns]
            steps.append(tuple(self._tensor(np.stack(layer)) for layer in zip(*whole)))
        return tuple(steps)

    def _tensor(self, values: NDArray[Any]) -> Any:
        return tensor_like(self.run.prompts, values)


def _spread(states: NDArray[Any], kept: NDArray[np.bool_], first: int) -> NDArray[Any]:
    """The states (columns, width), from column `first` on, of a text whose tokens are in the columns `kept`; else 0."""
    columns = np.zeros((len(kept) - first, states.shape[1]), states.dtype)
    columns[kept[first:]] = states[kept[:first].sum() : kept.sum()]
    return columns


def _spread_square(weights: NDArray[Any], kept: NDArray[np.bool_], first: int) -> NDArray[Any]:
    """The weights (heads, columns from `first` on, all columns), likewise."""
    before, count = kept[:first].sum(), kept.sum()
    columns = np.zeros((len(weights), len(kept) - first, len(kept)), weights.dtype)
    columns[:, np.outer(kept[first:], kept)] = weights[:, before:count, :count].reshape(len(weights), -1)
    return columns


def traces(run: Run) -> list[Trace]:
    """What each request of a run told, and what has come of it so far."""
    results = run.unfinished()
    return [trace_of(run, request, results) for request in run.requests]


def trace_of(run: Run, request: Submitted, results: Sequence[Hypothesis]) -> Trace:
    """What a request's strategy told, and what it came to."""
    strategy: Any = request.decoding.strategy
    return Trace(
        prompt=tuple(request.handle.prompt.tolist()),
        backend=run.engine.backend.describe(),
        strategy=getattr(strategy, "func", strategy).__name__,  # it may be a partial
        events=tuple(request.handle.events),
        results=tuple(results[request.first : request.first + request.count]),
        settings=request.config.to_diff_dict(),
    )
