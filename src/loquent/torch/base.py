"""Models without a head: the padded `forward` of transformers around the packed one."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from loquent.errors import ArgumentError
from loquent.torch.batch import Batch, make_batch
from loquent.torch.cache import DynamicCache
from loquent.torch.decoder import DecoderStack
from loquent.torch.groups import Row
from loquent.torch.inputs import Packed, check_tensors, pack
from loquent.torch.model import PreTrainedModel
from loquent.torch.outputs import BaseModelOutputWithPast
from loquent.torch.positions import RotaryFrequencies
from loquent.torch.store import PageStore
from loquent.torch.weights import unpack_weights


class BaseModel(DecoderStack, PreTrainedModel):
    """A decoder without a head."""

    output_class: ClassVar[type[BaseModelOutputWithPast]] = BaseModelOutputWithPast

    def __init__(self, config: Any) -> None:
        PreTrainedModel.__init__(self, config)
        self.frequencies = RotaryFrequencies()

    def _build(self) -> None:
        self._add_modules(self.decoder)

    @property
    def stack(self) -> DecoderStack:
        """The modules that read tokens: the model itself."""
        return self

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Read a padded batch.

        Padding, on either side or between tokens, is left out before anything is computed: without `position_ids` the
        positions count tokens only, for every family, windows count tokens only, and what is returned at padded
        places is zeros.

        Args:
            input_ids: ids (batch, length).
            attention_mask: 1 for a token and 0 for padding, (batch, columns of the cache + length); None: no padding.
            position_ids: (batch, length) or (1, length); None: counted.
            past_key_values: a cache that this or an earlier call made; it is extended in place.
            inputs_embeds: embeddings (batch, length, width) instead of ids.
            use_cache: whether to return a cache; None: as the config says, but not while training.
            output_attentions: whether to return attention weights; None: as the config says.
            output_hidden_states: whether to return every layer's output; None: as the config says.
            return_dict: False for a plain tuple; None: as the config says.
            cache_position: accepted for programs that pass it; positions follow from the mask and the cache.
            token_type_ids: (batch, length), embedded like ids and added (GPT-2 and its relatives only).

        Raises:
            ArgumentError: an argument that cannot work; nothing has been computed then.
            ContextLengthError: positions past those that the model learned.
        """
        wants_cache = use_cache if use_cache is not None else self.config.use_cache and not self.training
        cache = past_key_values if past_key_values is not None else DynamicCache() if wants_cache else None
        _check_cache(past_key_values)
        check_tensors(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            token_type_ids=token_type_ids,
        )
        packed = pack(
            self.decoder,
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            token_type_ids=token_type_ids,
            cache=cache,
            device=self.device,
        )
        with_weights = self.config.output_attentions if output_attentions is None else output_attentions
        with_layers = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        returned = cache if wants_cache else None
        output = self._run(packed, cache, returned, with_layers=with_layers, with_weights=with_weights)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _run(
        self,
        packed: Packed,
        cache: DynamicCache | None,
        returned: DynamicCache | None,
        *,
        with_layers: bool,
        with_weights: bool,
    ) -> BaseModelOutputWithPast:
        """Read packed tokens, extend the cache, and pad the results."""
        batch = self._batch(packed, cache, with_weights)
        layers = range(len(self.blocks) + 1) if with_layers else ()
        types = None if packed.token_types is None else self.tokens(packed.token_types)
        hidden, kept = self.read(packed.tokens, batch, layers, types)
        seen = cache.seen if cache is not None else packed.mask[:, :0]
        if cache is not None:
            cache.commit(packed.mask)
        return self.output_class(
            last_hidden_state=packed.unpack(hidden),
            past_key_values=returned,
            hidden_states=tuple(packed.unpack(kept[layer]) for layer in layers) if with_layers else None,
            attentions=unpack_weights(self.decoder, batch, packed, seen) if with_weights else None,
        )

    def _batch(self, packed: Packed, cache: DynamicCache | None, with_weights: bool) -> Batch:
        store: PageStore | None = None
        if cache is not None:
            store, rows = cache.plan(packed.mask, packed.spans, self.decoder, self.dtype, self.device)
        else:
            rows = [Row(length, 0, span) for length, span in zip(packed.mask.sum(1).tolist(), packed.spans)]
        if not rows:
            raise ArgumentError("attention_mask marks no new column as a token: there is nothing to read.")
        return make_batch(
            self.decoder,
            rows,
            self.frequencies,
            self.device,
            self.dtype,
            positions=packed.positions,
            store=store,
            with_weights=with_weights,
        )


def _check_cache(cache: Any) -> None:
    if cache is not None and not isinstance(cache, DynamicCache):
        raise ArgumentError(
            f"past_key_values must be a DynamicCache that a forward call returned, not a {type(cache).__name__}."
        )
