"""A run: the requests of one call of `generate()` or `stream()`, from their submission to their results."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from loquent.cache.faces import Cache
from loquent.config import GenerationConfig
from loquent.decoding.arguments import resolve
from loquent.decoding.arguments.stores import store_of_cache
from loquent.decoding.arguments.surroundings import DEFAULT_NEW_TOKENS, Surroundings
from loquent.decoding.recording import Recorded
from loquent.decoding.task import Decoding, Hypothesis
from loquent.decoding.trace import Event
from loquent.engine import Backend, Engine, Handle, PromptCache
from loquent.errors import ArgumentError
from loquent.generation.assistants import assistant_of
from loquent.generation.binding import Bound, engine_of
from loquent.generation.caches import Passed, check_cache, new_cache, own_cache, passed_cache, result_columns
from loquent.generation.prompt_caching import open_prompt_cache
from loquent.generation.prompts import INPUT_NAMES, Prompts, pad_token, read_negative_prompts, read_prompts
from loquent.generation.replay import Attentive
from loquent.generation.results import padded, tensor_like
from loquent.generation.settings import callables, merged_for_rows, row_seeds
from loquent.generation.stores import home_of

KEPT_STORE_BYTES = 256 << 20
"""How much key-value memory an idle model keeps for its next call, and what it remembers there with it."""


class StreamEvent(NamedTuple):
    """News of one row: tokens that are there for good, and why it ended if it has."""

    row: int  # of what `generate` would return: the rows of the first input row first, `num_return_sequences` of them
    tokens: tuple[int, ...]
    finished: str | None = None  # "eos", "length", "stop_string", "time", "criteria", "cancelled"
    trace: tuple[Event, ...] = ()  # with `events=True`, what the strategy has told since the last event of the row


@dataclass(eq=False)
class Submitted:
    """A request of a run, and which rows of the result it gives."""

    handle: Handle
    decoding: Decoding
    config: GenerationConfig
    row: int  # of the inputs
    first: int  # of its rows in the result
    count: int  # of them: a beam search's request gives several


@dataclass(eq=False)
class Run:
    """Submitted requests, in the order of the result's rows."""

    engine: Engine
    prompts: Prompts
    configs: list[GenerationConfig]  # of each row of the inputs
    requests: list[Submitted]
    cache: PromptCache | None = None  # of the one prompt
    past: Cache | None = None  # that is to hold what they leave
    passed: Passed = None  # it, or the pair that has it
    is_past_filled: bool = False

    @property
    def config(self) -> GenerationConfig:
        """The first row's, which says how the result is filled and returned."""
        return self.configs[0]

    @property
    def pad(self) -> int:
        """What rows are filled with."""
        return pad_token(self.config)

    @property
    def owners(self) -> list[int]:
        """For each row of the result the row of the inputs that it continues."""
        return [request.row for request in self.requests for _ in range(request.count)]

    @property
    def healed(self) -> list[int]:
        """For each row of the inputs how many of its last tokens are made again."""
        return list({request.row: request.decoding.healed for request in self.requests}.values())

    @property
    def rows(self) -> int:
        """How many rows the result has."""
        return sum(request.count for request in self.requests)

    def events(self) -> Iterator[StreamEvent]:
        """Steps the engine until all requests are done, with what each step brought."""
        live = {request.first: request for request in self.requests}
        while live:
            with self.engine.lock:  # one turn for the step and its news, not as many as there are requests
                if not all(request.handle.done for request in live.values()):  # by another thread's steps, perhaps
                    self.engine.step()
                news = [
                    (request, *request.handle.news(), request.handle.new_events() if request.decoding.traced else ())
                    for request in live.values()
                ]
            self.write_cache()
            for request, tokens, ended, error, told in news:
                if error:
                    raise error
                if ended:
                    del live[request.first]
                    yield from _last_events(request, tuple(tokens), tuple(told))
                elif tokens or told:
                    yield StreamEvent(request.first, tuple(tokens), None, tuple(told))
        self.fill_past()
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

    def write_cache(self) -> None:
        """Write the prompt's pages to its cache, once they are there.

        Raises:
            ArgumentError: the file cannot be written.
        """
        if self.cache is not None:
            self.cache.write()

    def results(self) -> list[Hypothesis]:
        """The hypothesis of each row of the result."""
        ranked = [request.handle.result() for request in self.requests]
        return [hypothesis for hypotheses in ranked for hypothesis in hypotheses]

    def fill_past(self) -> None:
        """Let the cache, if there is one, hold all of the results but their last column; once."""
        cache, prompts, owners = self.past, self.prompts, self.owners
        if cache is None or self.is_past_filled:
            return
        self.is_past_filled, results = True, self.unfinished()
        new = [len(result.tokens) - self.healed[owner] for result, owner in zip(results, owners)]
        whole = padded(prompts, owners, results, self.pad, self.healed)
        columns = result_columns(whole, prompts.kept[owners], new)
        handles = [request.handle for request in self.requests for _ in range(request.count)]
        pages = self.engine.hold(columns.rows(), handles)
        cache.leave_pages()
        cache.columns, cache.pages = columns, pages

    def unfinished(self) -> list[Hypothesis]:
        """The results of what has ended, and as far as they came, those of what was cancelled."""
        return [hypothesis for request in self.requests for hypothesis in request.handle.so_far()]

    def cancel(self) -> None:
        """End what has not ended."""
        for request in self.requests:
            request.handle.cancel()
        tidy(self.engine)


def tidy(engine: Engine) -> None:
    """Give back the key-value memory of an idle model, unless it is little enough to be kept."""
    if engine.scheduler.idle and engine.store_bytes > KEPT_STORE_BYTES:
        engine.release_memory()


def _last_events(request: Submitted, tokens: tuple[int, ...], told: tuple[Event, ...]) -> Iterator[StreamEvent]:
    """What is left of a request's best hypothesis, and the others, which come when it is done."""
    best, *others = request.handle.so_far()
    yield StreamEvent(request.first, tokens, best.reason, told)
    for offset, hypothesis in enumerate(others, 1):
        yield StreamEvent(request.first + offset, hypothesis.tokens, hypothesis.reason)


def start(
    model: Bound,
    inputs: Any = None,
    generation_config: Any = None,
    *,
    seed: int | list[int] | None = None,
    tokenizer: Any = None,
    stopping_criteria: Any = None,
    logits_processor: Any = None,
    negative_prompt_ids: Any = None,
    negative_prompt_attention_mask: Any = None,
    assistant_model: Any = None,
    assistant_tokenizer: Any = None,
    prefix_allowed_tokens_fn: Any = None,
    context_overflow: str = "error",
    prompt_cache: Any = None,
    default_new_tokens: int = DEFAULT_NEW_TOKENS,
    deadline: float | None = None,
    traced: bool = False,
    **kwargs: Any,
) -> Run:
    """Submit the requests that the arguments of `generate()` ask for, all of them checked first.

    Where no length is asked for, `default_new_tokens` follow, or as many as the model has positions left. `deadline` is
    in seconds from now.
    """
    if context_overflow not in ("error", "slide"):
        raise ArgumentError(f'context_overflow={context_overflow!r} must be "error" or "slide".')
    if deadline is not None and not (isinstance(deadline, int | float) and deadline > 0):
        raise ArgumentError(f"deadline={deadline!r} must be a number of seconds above 0.")
    arguments = dict(kwargs)
    named = {name: arguments.pop(name) for name in INPUT_NAMES & arguments.keys()}
    settings = merged_for_rows(model.generation_config, generation_config, arguments)
    prompts = read_prompts(inputs, named, settings[0], model.gives_tensors)
    configs = for_each_row(settings, len(prompts.rows))
    passed = passed_cache(inputs, named)
    past = own_cache(passed)
    negative = read_negative_prompts(negative_prompt_ids, negative_prompt_attention_mask, configs)
    seeds = row_seeds(seed, configs)
    engine = engine_of(model)
    around = replace(
        facts_of(model, engine.backend),
        tokenizer=tokenizer,
        processors=callables(logits_processor, "logits_processor"),
        criteria=callables(stopping_criteria, "stopping_criteria"),
        allowed=next(iter(callables(prefix_allowed_tokens_fn, "prefix_allowed_tokens_fn")), None),
        as_given=None if prompts.as_tensors == model.gives_tensors else partial(tensor_like, prompts),
        slide=context_overflow == "slide",
        default_new_tokens=default_new_tokens,
        as_ids=lambda tokens: tensor_like(prompts, tokens[None, :]),
    )
    wanted = _recorded(model, configs)
    ends = None if deadline is None else time.monotonic() + deadline
    requests = []
    for row, (config, row_seed) in enumerate(zip(configs, seeds)):
        assistant = assistant_of(engine, model, config, assistant_model, tokenizer, assistant_tokenizer)
        store = None if past is None else store_of_cache(past, config, around)
        own = replace(around, row=row, assistant=assistant, negative_prompt=negative[row], store=store)
        for decoding in resolve(config, prompts.rows[row].tolist(), row_seed, own):
            _check_recorded(wanted, decoding)
            home = home_of(engine, model, decoding.store)
            told = replace(decoding, home=home, recorded=wanted, traced=traced or config.output_trace)
            requests.append((row, _within(ends, told)))
    decodings = [decoding for _, decoding in requests]
    if past is not None:
        _check_past(past, prompts, decodings)
    elif any(config.return_dict_in_generate and config.use_cache for config in configs):
        past = passed = _cache_to_return(decodings)
    engine.refresh()
    run = Run(engine, prompts, configs, [], past=past, passed=passed)
    if prompt_cache is not None:
        run.cache = open_prompt_cache(prompt_cache, model, engine, prompts.rows, requests[0][1])
    return _submitted(run, requests)


def facts_of(model: Bound, backend: Backend) -> Surroundings:
    """What a model is, for requests to be resolved against."""
    return Surroundings(
        vocabulary=backend.vocabulary,
        max_positions=backend.max_positions,
        layers=backend.layers,
        tied=backend.tied,
        free_rows=backend.free_rows,
        host_work=backend.host_work / backend.multiplications,
        row_work=backend.row_work / backend.multiplications,
        has_windows=any(block.attention.window is not None for block in model.decoder.blocks),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
    )


def _check_past(cache: Cache, prompts: Prompts, decodings: Sequence[Decoding]) -> None:
    """Refuse a cache that the prompts do not begin with, or that has no room for what they become."""
    new = max(decoding.stopping.max_new_tokens - decoding.healed for decoding in decodings)
    columns = prompts.columns.shape[1] + new - 1
    check_cache(cache, prompts.rows, columns, sum(decoding.returned for decoding in decodings))


def _cache_to_return(decodings: Sequence[Decoding]) -> Cache | None:
    """A cache for an output, where all of its rows are kept in the same way."""
    kinds = {decoding.store for decoding in decodings}
    return new_cache(*kinds) if len(kinds) == 1 else None


def _submitted(run: Run, requests: Sequence[tuple[int, Decoding]]) -> Run:
    """The run with these requests, each of a row of the inputs; all of them, or none."""
    try:
        for row, decoding in requests:
            prompt = run.prompts.rows[row]
            cache = None if run.requests else run.cache  # the others of the prompt share what the first reads
            handle = run.engine.submit(prompt[: len(prompt) - decoding.healed], decoding, cache)
            run.requests.append(Submitted(handle, decoding, run.configs[row], row, run.rows, decoding.returned))
    except BaseException:
        run.cancel()
        raise
    return run


def _within(ends: float | None, decoding: Decoding) -> Decoding:
    """The request, ended by a deadline if there is one: by itself at the next token, or else by the engine."""
    if ends is None:
        return decoding
    known = decoding.stopping.deadline
    stopping = replace(decoding.stopping, deadline=ends if known is None else min(ends, known))
    return replace(decoding, stopping=stopping, deadline=ends)


def _recorded(model: Bound, configs: Sequence[GenerationConfig]) -> frozenset[Recorded]:
    """What the output wants kept of the rows: all requests keep what one of them asks for."""
    asking = [config for config in configs if config.return_dict_in_generate]
    if any(config.output_attentions for config in asking) and not isinstance(model, Attentive):
        raise ArgumentError(
            f"output_attentions=True cannot work with a {type(model).__name__}, which does not tell its attention "
            "weights. Leave it out, or load the model with AutoModelForCausalLM, without quantization."
        )
    wanted: set[Recorded] = {"scores"} if any(config.output_scores for config in asking) else set()
    wanted |= {"logits"} if any(config.output_logits for config in asking) else set()
    replayed = any(config.output_attentions or config.output_hidden_states for config in asking)
    return frozenset(wanted | ({"texts"} if replayed else set()))


def _check_recorded(wanted: frozenset[Recorded], decoding: Decoding) -> None:
    if "texts" in wanted and decoding.context:
        raise ArgumentError(
            'context_overflow="slide" forgets what was read, so that output_hidden_states and output_attentions cannot '
            "tell of it. Leave them out, or ask for fewer tokens."
        )


def for_each_row(settings: Sequence[GenerationConfig], rows: int) -> list[GenerationConfig]:
    """A config for each row of the inputs, from one for all of them, or as many as there are."""
    if len(settings) not in (1, rows):
        raise ArgumentError(
            f"generation_config has {len(settings)} configs for {rows} rows. Pass one, or one for each row."
        )
    return list(settings) * (rows if len(settings) == 1 else 1)
