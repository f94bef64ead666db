"""Models with a language-model head: logits, and the loss of the next tokens."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.cache.faces import Cache, EncoderDecoderCache
from loquent.engine.backend import Backend
from loquent.engine.lending import Loan, Survey
from loquent.errors import ArgumentError
from loquent.torch.base import BaseModel
from loquent.torch.decoder import DecoderStack
from loquent.torch.inputs import check_tensors
from loquent.torch.model import PreTrainedModel
from loquent.torch.outputs import CausalLMOutputWithPast, MoeCausalLMOutputWithPast

_IGNORED = -100


class CausalLM(PreTrainedModel):
    """A decoder with a language-model head; the decoder is the attribute `base_model_prefix`, the head is `head`."""

    base_class: ClassVar[type[BaseModel]]
    output_class: ClassVar[type[CausalLMOutputWithPast] | type[MoeCausalLMOutputWithPast]] = CausalLMOutputWithPast

    head: nn.Linear

    pack_weights: bool | None = None
    """Whether generating on a CPU may keep a second copy of the matrices in a faster layout, which takes their memory
    again. None: where PyTorch runs the model (`torch.packed`), but not where the native core does, which reads them in
    place. True: there too. False: never."""

    def _build(self) -> None:
        base = self.base_class(self.config)
        setattr(self, self.base_model_prefix, base)
        self.head = nn.Linear(self.decoder.width, self.decoder.vocabulary, self.decoder.head.bias)
        self.tie_weights()

    @property
    def base_model(self) -> BaseModel:
        """The model without its head."""
        base = getattr(self, self.base_model_prefix)
        assert isinstance(base, BaseModel)
        return base

    @property
    def stack(self) -> DecoderStack:
        """The modules that read tokens."""
        return self.base_model

    def can_generate(self) -> bool:
        """Whether it has a language-model head: yes."""
        return True

    def tie_weights(self) -> None:
        """Make the head use the token embedding's memory where the config says so."""
        if self.decoder.head.tied:
            self.head.weight = self.stack.tokens.weight

    def get_output_embeddings(self) -> nn.Module:
        """The head's linear layer."""
        return self.head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the head's linear layer."""
        self.head = value

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CausalLM:
        """What all conversions (`to`, `half`, `cuda`, ...) go through: the old weights are not kept for generating."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if "_engine_slot" in vars(self):
            from loquent.generation.binding import forget_engine

            forget_engine(self)
        return self

    def _resize_vocabulary(self, size: int, resized: Callable[[Tensor], Tensor]) -> None:
        super()._resize_vocabulary(size, resized)
        if self.decoder.head.tied:
            self.tie_weights()
        else:
            self.head.weight = nn.Parameter(resized(self.head.weight), self.head.weight.requires_grad)
        if self.decoder.head.bias:
            self.head.bias = nn.Parameter(resized(self.head.bias), self.head.bias.requires_grad)
        self.head.out_features = size

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | EncoderDecoderCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        token_type_ids: Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
    ) -> CausalLMOutputWithPast | MoeCausalLMOutputWithPast | tuple[Any, ...]:
        """Read a padded batch and predict each next token; arguments not listed here are those of the base model.

        Args:
            labels: ids (batch, length) as `input_ids`; the loss is the mean cross entropy of each label given the
                tokens before it. Labels of -100 do not count, nor does what would be predicted from padding.
            logits_to_keep: how many of the last columns to give logits for (0: all), or which columns, 1-D.
            num_items_in_batch: divide the sum of the losses by this instead of taking their mean.

        Raises:
            ArgumentError: an argument that cannot work; nothing has been computed then.
            ContextLengthError: positions past those that the model learned.
        """
        check_tensors(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask, labels=labels)
        tokens = input_ids if input_ids is not None else inputs_embeds
        columns = None if tokens is None or tokens.dim() < 2 else _columns(tokens, labels, logits_to_keep)
        output = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            cache_position=cache_position,
            token_type_ids=token_type_ids,
        )
        hidden = output.last_hidden_state
        columns = columns.to(hidden.device) if isinstance(columns, Tensor) else columns
        mask = None if attention_mask is None else attention_mask[:, -hidden.shape[1] :].to(hidden.device) != 0
        logits = self._logits(hidden, mask, columns)
        result = self.output_class(
            loss=None if labels is None else causal_loss(logits, labels, mask, num_items_in_batch),
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return result if (self.config.return_dict if return_dict is None else return_dict) else result.to_tuple()

    def _logits(self, hidden: Tensor, mask: Tensor | None, columns: slice | Tensor | None) -> Tensor:
        """The head on the wanted columns of padded hidden states; only on tokens, the rest is zeros."""
        if columns is not None:
            hidden = hidden[:, columns]
            mask = mask if mask is None else mask[:, columns]
        if mask is None or bool(mask.all()):
            logits: Tensor = self.head(hidden)
            return logits
        some = self.head(hidden[mask])
        return hidden.new_zeros(*mask.shape, some.shape[-1], dtype=some.dtype).masked_scatter(mask.unsqueeze(-1), some)

    def open_backend(self, obstacle: str | None = None) -> Backend:
        """A backend that runs the model in torch; `obstacle` says why the native core does not, for its description."""
        from loquent.torch.runner import TorchBackend

        return TorchBackend(self, obstacle)

    def backend_key(self) -> Hashable:
        """What such a backend is made for."""
        return self.dtype, self.device

    def survey_weights(self) -> Survey:
        """Whether the native core may run the model over its own memory, as it is now."""
        from loquent.torch.lending import survey

        return survey(self)

    def lend_weights(self) -> Loan:
        """The weights for the native core; to be asked for where a survey found no obstacle."""
        from loquent.torch.lending import ModelLoan

        return ModelLoan(self)

    def sampled_weights(self) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
        """Each weight's canonical name, its type, and some of its rows, by which the model is told from another."""
        from loquent.torch.identity import sampled_weights

        return sampled_weights(self)

    def describe_backend(self) -> str:
        """What `generate` would run on now, such as "native (avx512, float32 in place, 2 threads)", or "torch (...)"
        with the reason why it is not native."""
        from loquent.generation import engine_of

        return engine_of(self).backend.describe()

    def generate(self, inputs: Any = None, generation_config: Any = None, **kwargs: Any) -> Any:
        """Continue token sequences; see `loquent.generation.generate` for the arguments and what is returned."""
        from loquent.generation import generate

        continued: Any = generate(self, inputs, generation_config, **kwargs)
        return continued

    def stream(self, inputs: Any = None, generation_config: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Continue token sequences, yielding events as they happen; see `loquent.generation.stream`."""
        from loquent.generation import stream

        events: Iterator[Any] = stream(self, inputs, generation_config, **kwargs)
        return events

    def compute_transition_scores(
        self, sequences: Any, scores: Any, beam_indices: Any = None, normalize_logits: bool = False
    ) -> Any:
        """The scores of an output's tokens; see `loquent.generation.compute_transition_scores`."""
        from loquent.generation import compute_transition_scores

        found: Any = compute_transition_scores(sequences, scores, beam_indices, normalize_logits)
        return found

    def attention_weights(self, tokens: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        """Each layer's attention weights (heads, length, length), for one text (length,)."""
        with torch.no_grad():
            ids = torch.from_numpy(tokens)[None].to(self.device)
            output = self(ids, output_attentions=True, use_cache=False, return_dict=True)
        return [weights[0].float().cpu().numpy() for weights in output.attentions]


def causal_loss(
    logits: Tensor, labels: Tensor, mask: Tensor | None = None, num_items_in_batch: int | Tensor | None = None
) -> Tensor:
    """The cross entropy of each label given the logits of the column before it, in float32.

    `logits` is (batch, length, vocabulary), `labels` (batch, length) with -100 where nothing is asked, `mask` (batch,
    length) is False at padding. The mean over what counts, or the sum over `num_items_in_batch`.
    """
    targets = F.pad(labels[:, 1:], (0, 1), value=_IGNORED).to(logits.device)
    if mask is not None:
        targets = targets.masked_fill(~mask, _IGNORED)
    flat = logits.flatten(0, 1).float()
    if num_items_in_batch is None:
        return F.cross_entropy(flat, targets.flatten().long(), ignore_index=_IGNORED)
    total = F.cross_entropy(flat, targets.flatten().long(), ignore_index=_IGNORED, reduction="sum")
    return total / num_items_in_batch


def _columns(tokens: Tensor, labels: Tensor | None, logits_to_keep: int | Tensor) -> slice | Tensor | None:
    """Which columns need logits, None for all; checks `labels` and `logits_to_keep`."""
    length = tokens.shape[1]
    if isinstance(logits_to_keep, Tensor):
        low, high = (int(logits_to_keep.min()), int(logits_to_keep.max())) if logits_to_keep.numel() else (0, -length)
        if logits_to_keep.dim() != 1 or logits_to_keep.is_floating_point() or low < -length or high >= length:
            raise ArgumentError(
                f"logits_to_keep={logits_to_keep!r} must be a 1-D tensor of columns of the input, below {length}."
            )
        columns: slice | Tensor | None = logits_to_keep
    elif not isinstance(logits_to_keep, int) or logits_to_keep < 0:
        raise ArgumentError(f"logits_to_keep={logits_to_keep!r} must be 0 (all), a number of columns, or a tensor.")
    else:
        columns = slice(-logits_to_keep, None) if 0 < logits_to_keep < length else None
    if labels is not None:
        if tuple(labels.shape) != tuple(tokens.shape[:2]):
            raise ArgumentError(
                f"labels has shape {tuple(labels.shape)}, but the input {tuple(tokens.shape[:2])}. They must be equal; "
                "-100 marks what does not count."
            )
        if columns is not None:
            raise ArgumentError("labels need the logits of all columns. Leave logits_to_keep at 0 with them.")
    return columns
