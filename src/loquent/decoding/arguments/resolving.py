"""From arguments to a request: what a generation config asks for, resolved against one prompt, or a clear refusal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from loquent.config.generation import GenerationConfig
from loquent.decoding.arguments.beams import beams_of
from loquent.decoding.arguments.contrastive import candidates_of, contrastive_of
from loquent.decoding.arguments.grammar import grammar_of
from loquent.decoding.arguments.healing import healing_of
from loquent.decoding.arguments.rules import rules_of
from loquent.decoding.arguments.sources import sources_of
from loquent.decoding.arguments.speculation import speculation
from loquent.decoding.arguments.stores import store_of
from loquent.decoding.arguments.surroundings import Surroundings, as_tuple
from loquent.decoding.grammar import Completion
from loquent.decoding.random import branch_seed
from loquent.decoding.stop_strings import StopStrings
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import one_by_one
from loquent.decoding.task import Decoding
from loquent.errors import ArgumentError, ContextLengthError


def resolve(config: GenerationConfig, prompt: Sequence[int], seed: int, around: Surroundings) -> list[Decoding]:
    """The requests that one prompt becomes: one, or `num_return_sequences` where they are independent samples.

    Raises:
        ArgumentError: the config cannot work with this prompt or model.
        ContextLengthError: the prompt and the new tokens exceed the model's positions, and `around.slide` is off.
    """
    _check_prompt(prompt, around)
    sampled, beams = config.do_sample and config.temperature != 0, config.num_beams > 1
    candidates, healing = candidates_of(config), healing_of(config, prompt, around)
    healed, unread = int(healing is not None), 0 if candidates else 1
    sourced = sources_of(config, prompt[: len(prompt) - healed], around)
    shadowed = sourced.shadow + healed if sourced.shadow else 0  # before new tokens
    new_tokens = max_new_tokens(config, len(prompt), around, shadowed, unread)
    branches = 1 if beams else config.num_return_sequences
    if branches > 1 and not sampled:
        raise ArgumentError(
            f"num_return_sequences={branches} makes equal sequences in greedy search. "
            "Pass do_sample=True (and a temperature above 0), or num_beams of at least as many."
        )
    chosen = beams_of(config, sampled, around) or contrastive_of(config, around)
    strategy, readers = chosen or one_by_one, tuple[Any, ...]()
    read = max(len(prompt), shadowed) + new_tokens - unread
    context = _sliding_context(config, read, around)
    if drafted := speculation(config, len(prompt), new_tokens, sampled, around):
        strategy, readers = drafted
    decoding = Decoding(
        strategy=strategy,
        stopping=_stopping(config, new_tokens, around, healed=healed),
        rules=(*([healing] if healing else ()), *rules_of(config, len(prompt), new_tokens, sampled, around)),
        healed=healed,
        sampled=sampled,
        returned=config.num_return_sequences if beams else 1,
        branches=min(candidates, around.vocabulary) or config.num_beams,
        own_tokens=1 if candidates else 0,
        source=sourced.source,
        shadow=sourced.shadow,
        store=store_of(config, around),
        readers=readers,
        context=context,
    )
    return [replace(decoding, seed=branch_seed(seed, branch)) for branch in range(branches)]


def max_new_tokens(
    config: GenerationConfig, prompt: int, around: Surroundings, negative: int = 0, unread: int = 1
) -> int:
    """How many tokens may follow a prompt of `prompt` tokens; the unset default takes what positions are left.

    They follow a negative prompt of `negative` tokens too. The last `unread` ones are never read, and need no position.
    """
    longest = max(prompt, negative)
    room = None if around.max_positions is None or around.slide else around.max_positions - longest + unread
    if config.max_new_tokens is not None:
        wanted, argument = config.max_new_tokens, f"max_new_tokens={config.max_new_tokens}"
    elif config.was_set("max_length"):
        wanted, argument = config.max_length - prompt, f"max_length={config.max_length}"
        if wanted < 1:
            raise ArgumentError(
                f"max_length={config.max_length} counts the prompt, which has {prompt} tokens already. "
                "Raise it, or pass max_new_tokens, which does not count the prompt."
            )
    else:
        wanted = around.default_new_tokens if room is None else min(around.default_new_tokens, max(room, 1))
        argument = f"the default of {wanted} new tokens"
    if room is not None and wanted > room:
        raise ContextLengthError(
            f"The {'negative ' if negative > prompt else ''}prompt's {longest} tokens and {argument} exceed the "
            f"model's {around.max_positions} positions. Ask for at most {max(room, 0)} new tokens, shorten the prompt, "
            'or pass context_overflow="slide" to drop the oldest tokens.'
        )
    return wanted


def _sliding_context(config: GenerationConfig, read: int, around: Surroundings) -> int | None:
    """The positions over which a request that reads `read` tokens slides, None where it fits into them."""
    if not around.slide or around.max_positions is None or read <= around.max_positions:
        return None
    fixed = next((f"{name}={getattr(config, name)}" for name in _whole_contexts(config)), None)
    if fixed:
        raise ContextLengthError(
            f"The prompt and its new tokens take {read} positions, the model has {around.max_positions}, and {fixed} "
            'does not go with context_overflow="slide". Ask for fewer tokens, or leave it out.'
        )
    if around.assistant is not None or config.prompt_lookup_num_tokens is not None:
        raise ContextLengthError(
            f"The prompt and its new tokens take {read} positions, the model has {around.max_positions}, and drafts "
            "(assistant_model, assistant_early_exit, prompt_lookup_num_tokens) do not go with "
            'context_overflow="slide". Ask for fewer tokens, or leave the drafts out.'
        )
    return around.max_positions


def _whole_contexts(config: GenerationConfig) -> Iterator[str]:
    """The arguments that choose what needs all of its context."""
    if config.num_beams > 1:
        yield "num_beams"
    if candidates_of(config):
        yield "penalty_alpha"
    if config.guidance_scale not in (None, 1):
        yield "guidance_scale"


def _check_prompt(prompt: Sequence[int], around: Surroundings) -> None:
    if not len(prompt):
        raise ArgumentError("a prompt has no tokens. Give it at least one, such as the model's BOS token.")
    bad = next((token for token in prompt if not 0 <= token < around.vocabulary), None)
    if bad is not None:
        raise ArgumentError(
            f"a prompt has the token {bad}, and the model's vocabulary is 0 to {around.vocabulary - 1}. "
            "Use the model's own tokenizer."
        )


def _stopping(config: GenerationConfig, new_tokens: int, around: Surroundings, healed: int) -> Stopping:
    strings = config.stop_strings
    if strings and around.tokenizer is None:
        raise ArgumentError(f"stop_strings={strings!r} are texts. Pass tokenizer=, which they are compared through.")
    grammar = grammar_of(config, around)
    texts = (strings,) if isinstance(strings, str) else tuple(strings or ())
    return Stopping(
        max_new_tokens=new_tokens + healed,
        healed=healed,
        eos=as_tuple(config.eos_token_id),
        strings=StopStrings(texts, around.tokenizer) if texts else None,
        completion=Completion(grammar) if grammar is not None and not grammar.has_end else None,
        deadline=None if config.max_time is None else time.monotonic() + config.max_time,
        criteria=around.criteria,
        as_ids=around.as_ids,
    )
