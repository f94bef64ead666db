"""What lm-eval asks of a model, answered by the engine; lm-eval itself is not imported here.

The interface is that of `lm_eval.api.model.TemplateLM`, version 0.4.13; texts become tokens, are cut and end as in its
model `hf`, so that both give the same figures.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from loquent.errors import ArgumentError, TemplateError
from loquent.evaluation.harness.requests import GenerationRequest, generation_request
from loquent.evaluation.windows import windows
from loquent.generation import engine_of, start
from loquent.text import TextModel, load
from loquent.text.loading import has_torch
from loquent.text.targets import Row, target_scores

_LOG = logging.getLogger(__name__)
_NO_LIMIT = 2048  # what a model may read at once that has no positions of its own
_AT_ONCE = 256  # generations

Pair = tuple[Any, Sequence[int], Sequence[int]]
"""What lm-eval caches an answer under, the tokens of a context, and those that follow and are scored."""


class Answers:
    """The methods of lm-eval's `TemplateLM`, beside which it must stand among a class's bases.

    Args:
        pretrained: what `loquent.load` takes; None: the model in the package.
        model: a model that is loaded already, instead.
        max_length: how many tokens are read at once; None: the model's positions.
        max_gen_toks: how many tokens a task gets that does not say.
        add_bos_token: whether texts begin with BOS; None: as the tokenizer does.
        prefix_token_id: what stands before texts without a context; None: BOS, or else the end token.
        seed: of what is sampled.
        kv_bits: how many bits keys and values are kept in; None: as the model's generation config says.
        batch_size, max_batch_size: are of no effect: the engine batches by itself.
        device: where the model runs; the CPU where there is no GPU, for which lm-eval's command asks by itself.
        load_options: further arguments of `loquent.load`; lm-eval's `dtype` is its `precision`.
    """

    backend = "causal"
    cache_hook: Any  # lm-eval's, which keeps answers for the next run

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        model: TextModel | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        seed: int = 0,
        kv_bits: int | None = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
        dtype: Any = None,
        device: str | None = None,
        **load_options: Any,
    ) -> None:
        super().__init__()
        if dtype is not None:
            load_options["precision"] = dtype
        if device is not None:
            load_options["device"] = _device(device)
        if model is not None and (pretrained is not None or load_options):
            raise ArgumentError("model= is loaded already: leave pretrained, dtype and the like out.")
        self.model = load(pretrained, **load_options) if model is None else model
        self.tokenizer = self.model.tokenizer
        self.max_length = _max_length(self.model, max_length)
        self.max_gen_toks, self.add_bos_token, self.seed = max_gen_toks, add_bos_token, seed
        self._prefix_token_id = prefix_token_id
        self._store: dict[str, Any] = {}
        if kv_bits is not None:
            self._store = {"cache_implementation": "quantized", "cache_config": {"nbits": kv_bits}}

    @property
    def eot_token_id(self) -> int:
        """What ends a document."""
        return int(self._token("eos_token_id"))

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without a context."""
        if self._prefix_token_id is not None:
            return self._prefix_token_id
        found = self.tokenizer.bos_token_id
        return self.eot_token_id if found is None else found

    def _token(self, name: str) -> int:
        found: int | None = getattr(self.tokenizer, name)
        if found is None:
            raise ArgumentError(f"The tokenizer has no {name}, which lm-eval's tasks need. Pass prefix_token_id.")
        return found

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval tells caches of requests apart by."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **_: Any,
    ) -> list[int]:
        """The ids of a text, at most the last `left_truncate_len`; BOS comes before them as the model was made."""
        if add_special_tokens is None:
            add_special_tokens = self.add_bos_token
            if string.startswith(self.tokenizer.decode([self.prefix_token_id])):
                add_special_tokens = False  # a chat template has written it
        special = True if add_special_tokens is None else add_special_tokens
        ids: list[int] = self.tokenizer(string, add_special_tokens=special, verbose=False)["input_ids"]
        return ids[-left_truncate_len:] if left_truncate_len else ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model's template writes it; without the system's words where the template has none."""
        how: dict[str, Any] = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        try:
            text: str = self.tokenizer.apply_chat_template(chat_history, tokenize=False, **how)
        except TemplateError:
            others = [message for message in chat_history if message["role"] != "system"]
            if len(others) == len(chat_history):
                raise
            _LOG.warning("The chat template fails with the system's message, which is left out.")
            text = self.tokenizer.apply_chat_template(others, tokenize=False, **how)
        return text

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """For each pair the log-probability of what follows, and whether each of its tokens is the likeliest."""
        rows = []
        for _key, context, following in requests:
            if not len(following) or not len(context) or len(following) > self.max_length:
                raise ArgumentError(
                    f"A request scores {len(following)} tokens behind {len(context)}: there must be one of each, and "
                    f"no more to score than max_length={self.max_length}."
                )
            rows.append(Row([*context, *following][-(self.max_length + 1) :], len(following)))
        answers: dict[int, tuple[float, bool]] = {}
        with (
            _bar(len(rows), "Running loglikelihood requests", disable_tqdm) as bar,
            closing(target_scores(self.model.model, rows, self._store)) as scored,
        ):
            for number, found in scored:
                answers[number] = (float(found.log_probabilities.sum()), bool(found.likeliest.all()))
                if requests[number][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[number][0], answers[number])
                bar.update(1)
        return [answers[number] for number in range(len(rows))]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each text, in windows that follow one another behind the prefix token."""
        pairs: list[Pair] = []
        owners: list[int] = []
        for owner, request in enumerate(requests):
            tokens = [self.prefix_token_id, *self.tok_encode(request.args[0])]
            for window in windows(len(tokens), self.max_length, self.max_length):
                pairs.append((None, tokens[window.first : window.scored], tokens[window.scored : window.stop]))
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, (gained, _) in zip(owners, self._loglikelihood_tokens(pairs, disable_tqdm)):
            totals[owner] += gained
        for request, total in zip(requests, totals):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes behind each context, up to the texts that end it."""
        wanted = [generation_request(request.args[0], request.args[1], self.max_gen_toks) for request in requests]
        texts: list[str] = []
        with _bar(len(wanted), "Running generate_until requests", disable_tqdm) as bar:
            for first in range(0, len(wanted), _AT_ONCE):
                part = wanted[first : first + _AT_ONCE]
                for request, text in zip(requests[first : first + _AT_ONCE], self._written(part, first, bar)):
                    texts.append(text)
                    self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _written(self, wanted: Sequence[GenerationRequest], first: int, bar: Any) -> Iterator[str]:
        rows = [self._context(request) for request in wanted]
        end = self.eot_token_id
        configs = [
            request.config(len(row), self.model.model.generation_config, end) for request, row in zip(wanted, rows)
        ]
        seeds = [self.seed + first + number for number in range(len(rows))]
        run = start(self.model.model, rows, configs, tokenizer=self.tokenizer, seed=seeds, **self._store)
        with closing(run.stream()) as events:
            for event in events:
                if event.finished:
                    bar.update(1)
        for request, hypothesis in zip(wanted, run.results()):
            yield request.cut(self.tokenizer.decode(list(hypothesis.tokens), skip_special_tokens=True))

    def _context(self, request: GenerationRequest) -> list[int]:
        """The last tokens of a context that leave room for what is written."""
        room = self.max_length - request.new_tokens
        if room < 1:
            raise ArgumentError(
                f"max_gen_toks={request.new_tokens} leaves no room for a context: the model reads {self.max_length} "
                "tokens. Ask for fewer."
            )
        return self.tok_encode(request.context, left_truncate_len=room) or [self.prefix_token_id]


def _device(name: str) -> str:
    if name.startswith("cuda") and has_torch():
        import torch

        if torch.cuda.is_available():
            return name
    if name != "cpu":
        _LOG.warning("device=%s is not there: the model runs on the CPU.", name)
    return "cpu"


def _max_length(model: TextModel, wanted: int | None) -> int:
    positions = engine_of(model.model).backend.max_positions
    if wanted is None:
        return positions if positions is not None else min(model.tokenizer.model_max_length, _NO_LIMIT)
    if wanted < 1 or (positions is not None and wanted > positions):
        raise ArgumentError(
            f"max_length={wanted!r} must be at least 1, and at most the model's positions, {positions}."
        )
    return wanted


def _bar(total: int, label: str, hidden: bool) -> Any:
    from tqdm import tqdm  # which is there with lm-eval, and what its other models show

    return tqdm(total=total, desc=label, disable=hidden)
