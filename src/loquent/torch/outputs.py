"""What models return: records that are read by attribute, by key or by index, under the names of transformers.

Fields that are None are no keys and have no index: `output[0]` is the loss where there is one, the logits otherwise.
The documentation page is https://huggingface.co/docs/transformers/main_classes/output.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.utils import _pytree as pytree

from loquent.cache.faces import Cache, EncoderDecoderCache
from loquent.records import Record

Layers = tuple[Tensor, ...]


class ModelOutput(Record):
    """The base of the records; a subclass is a dataclass whose fields default to None."""

    def __init_subclass__(cls) -> None:
        """Lets torch look into the record (`DistributedDataParallel`, `torch.compile`)."""
        pytree.register_pytree_node(
            cls,
            lambda output: (list(output.values()), list(output.keys())),
            lambda values, keys: cls(**dict(zip(keys, values))),
            serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        )


@dataclass(eq=False)
class BaseModelOutputWithPast(ModelOutput):
    """What a model without a head returns.

    Attributes:
        last_hidden_state: (batch, length, width), after the final norm; zeros where the input is padding.
        past_key_values: the cache, where `use_cache` is on.
        hidden_states: for `output_hidden_states`, layers + 1 tensors like `last_hidden_state`: the embeddings', each
            layer's, the last of them after the final norm.
        attentions: for `output_attentions`, a tensor (batch, heads, length, columns) per layer.
    """

    last_hidden_state: Tensor | None = None
    past_key_values: Cache | EncoderDecoderCache | None = None
    hidden_states: Layers | None = None
    attentions: Layers | None = None


@dataclass(eq=False)
class BaseModelOutputWithPastAndCrossAttentions(BaseModelOutputWithPast):
    """`BaseModelOutputWithPast` under the name that GPT-2 and GPTBigCode use; nothing is attended across."""

    cross_attentions: Layers | None = None


@dataclass(eq=False)
class MoeModelOutputWithPast(BaseModelOutputWithPast):
    """`BaseModelOutputWithPast` under the name that Doge uses."""

    router_logits: Layers | None = None


@dataclass(eq=False)
class CausalLMOutputWithPast(ModelOutput):
    """What a model with a language-model head returns.

    Attributes:
        loss: where `labels` were given, the mean cross entropy of the next tokens, a scalar in float32.
        logits: (batch, kept, vocabulary), `kept` by `logits_to_keep`; zeros where the input is padding.
        past_key_values, hidden_states, attentions: as in `BaseModelOutputWithPast`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | EncoderDecoderCache | None = None
    hidden_states: Layers | None = None
    attentions: Layers | None = None


@dataclass(eq=False)
class CausalLMOutputWithCrossAttentions(CausalLMOutputWithPast):
    """`CausalLMOutputWithPast` under the name that GPT-2 and GPTBigCode use; nothing is attended across."""

    cross_attentions: Layers | None = None


@dataclass(eq=False)
class MoeCausalLMOutputWithPast(ModelOutput):
    """`CausalLMOutputWithPast` under the name that Doge uses."""

    loss: Tensor | None = None
    aux_loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | EncoderDecoderCache | None = None
    hidden_states: Layers | None = None
    attentions: Layers | None = None
    router_logits: Layers | None = None
