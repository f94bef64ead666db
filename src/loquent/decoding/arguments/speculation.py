"""From arguments to speculation: who drafts, how many tokens, and what an assistant must be like; reads nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from loquent.config.generation import GenerationConfig
from loquent.decoding.arguments.surroundings import Surroundings, as_tuple
from loquent.decoding.drafts import Draft, LookupDraft, ModelDraft, UniversalDraft
from loquent.decoding.drafts.lookup import DEFAULT_NGRAM
from loquent.decoding.drafts.universal import Tongue
from loquent.decoding.pace import Adaptive, Constant, Costs, Heuristic, Kept, Pace
from loquent.decoding.strategies.speculative import speculate
from loquent.decoding.task import Strategy, Task
from loquent.errors import ArgumentError, ContextLengthError


@dataclass(frozen=True, eq=False)
class Assistant:
    """A model that drafts, opened: what `assistant_model` and `assistant_early_exit` become."""

    reader: Any  # as the engine opened it
    vocabulary: int
    max_positions: int | None
    cost: float  # of a token, in tokens of the model
    host: float = 0.0  # the host's work for a token beside it, in the same
    config: GenerationConfig | None = None  # its own; None: it is the model itself, cut short
    tokenizer: Any = None  # of its own vocabulary, where that is another than the model's
    kept: Kept = field(default_factory=Kept)  # how many tokens it drafts, between requests ("heuristic")


def speculation(
    config: GenerationConfig, prompt: int, new_tokens: int, sampled: bool, around: Surroundings
) -> tuple[Callable[[Task], Strategy], tuple[Any, ...]] | None:
    """The strategy and the further readers, where the arguments ask for speculation.

    Raises:
        ArgumentError: they ask for several kinds of drafts, or the assistant's vocabulary does not fit.
        ContextLengthError: the assistant has fewer positions than the request needs.
    """
    assistant, lookup = around.assistant, config.prompt_lookup_num_tokens
    if assistant is None and lookup is None:
        return None
    if assistant is not None and lookup is not None:
        name = "assistant_early_exit" if assistant.config is None else "assistant_model"
        raise ArgumentError(f"prompt_lookup_num_tokens={lookup} and {name} both draft. Pass one of them.")
    _check_alone(config, around)
    ends = as_tuple(config.eos_token_id)
    if lookup is not None:
        longest = config.max_matching_ngram_size or DEFAULT_NGRAM
        found = partial(_lookup, longest=longest, ends=ends)
        return partial(speculate, draft=found, pace=_pace(config, None, lookup, sampled, around), source="lookup"), ()
    if assistant is None:
        return None
    if assistant.tokenizer is not None:
        draft = _universal(config, assistant, around)
    else:
        _check_fits(assistant, prompt + new_tokens - 1, around)
        draft = partial(ModelDraft, reader=assistant.reader, threshold=_setting(config, assistant, THRESHOLD))
    most = _setting(config, assistant, "num_assistant_tokens")
    strategy = partial(
        speculate,
        draft=draft,
        pace=_pace(config, assistant, most, sampled, around),
        source="early exit" if assistant.config is None else "assistant",
    )
    return strategy, (assistant.reader,)


THRESHOLD = "assistant_confidence_threshold"


def _lookup(task: Task, longest: int, ends: tuple[int, ...]) -> Draft:
    return LookupDraft(longest, ends)


def _universal(config: GenerationConfig, assistant: Assistant, around: Surroundings) -> Callable[[Task], Draft]:
    own = Tongue(around.tokenizer, as_tuple(config.eos_token_id), _setting(config, assistant, "target_lookbehind"))
    theirs = assistant.config or config
    other = Tongue(
        assistant.tokenizer,
        as_tuple(theirs.eos_token_id),
        _setting(config, assistant, "assistant_lookbehind"),
    )
    return partial(
        UniversalDraft,
        reader=assistant.reader,
        threshold=_setting(config, assistant, THRESHOLD),
        own=own,
        other=other,
        max_positions=assistant.max_positions,
    )


def _setting(config: GenerationConfig, assistant: Assistant | None, name: str) -> Any:
    """What the call says, else the assistant's generation config, else the model's."""
    theirs = None if assistant is None else assistant.config
    if name not in config.explicit and theirs is not None and theirs.was_set(name):
        return getattr(theirs, name)
    return getattr(config, name)


def _pace(
    config: GenerationConfig, assistant: Assistant | None, most: int, sampled: bool, around: Surroundings
) -> Callable[[], Pace]:
    """The schedule that is asked for, or else one that adapts to what stands."""
    name = "num_assistant_tokens_schedule"
    theirs = None if assistant is None else assistant.config
    if not (config.was_set(name) or (theirs is not None and theirs.was_set(name))):
        return partial(Adaptive, most, _costs(assistant, sampled, around), _SAMPLED_GAIN if sampled else _GAIN)
    schedule = _setting(config, assistant, name)
    if schedule == "constant":
        return partial(Constant, most)
    # What a request draws depends on how much it drafts, and must not depend on those before it.
    keeps = schedule == "heuristic" and not sampled and assistant is not None
    return partial(Heuristic, most, assistant.kept if keeps and assistant is not None else None)


# How many times as fast drafts must make a request. What a sampled one drafts decides what it draws, and cannot depend
# on how many others run; beside many, drafts lose: alone they must gain enough to be worth that.
_GAIN, _SAMPLED_GAIN = 1.1, 1.25


def _costs(assistant: Assistant | None, sampled: bool, around: Surroundings) -> Costs:
    row = around.row_work if sampled else 0.0
    if assistant is None:
        return Costs(around.free_rows, around.host_work, row)
    return Costs(around.free_rows, around.host_work, row, assistant.cost, assistant.host)


def _check_alone(config: GenerationConfig, around: Surroundings) -> None:
    several = f"num_beams={config.num_beams}" if config.num_beams > 1 else ""
    if config.penalty_alpha and not config.do_sample and (config.top_k or 0) > 1:
        several = f"penalty_alpha={config.penalty_alpha} (contrastive search)"
    if several:
        raise ArgumentError(
            f"{several} does not go with drafts (assistant_model, assistant_early_exit, prompt_lookup_num_tokens), "
            "which are for one sequence. Leave one of them out."
        )


def _check_fits(assistant: Assistant, read: int, around: Surroundings) -> None:
    if assistant.vocabulary != around.vocabulary:
        raise ArgumentError(
            f"assistant_model has a vocabulary of {assistant.vocabulary} tokens, the model one of "
            f"{around.vocabulary}. Pass an assistant with the model's tokenizer, or both tokenizers: "
            "tokenizer= and assistant_tokenizer=."
        )
    if assistant.max_positions is not None and read > assistant.max_positions:
        raise ContextLengthError(
            f"The prompt and its new tokens take {read} positions, and assistant_model has "
            f"{assistant.max_positions}. Ask for fewer new tokens, or pass an assistant with as many positions."
        )
