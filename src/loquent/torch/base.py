"""Models without a head: the padded `forward` of transformers around the packed one."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from loquent.cache.faces import Cache, DynamicCache, EncoderDecoderCache
from loquent.errors import ArgumentError
from loquent.torch.batch import Batch, make_batch
from loquent.torch.cache import ForwardPages, check_known, forward_pages
from loquent.torch.decoder import DecoderStack
from loquent.torch.groups import Row
from loquent.torch.inputs import Packed, check_tensors, pack
from loquent.torch.model import PreTrainedModel
from loquent.torch.outputs import BaseModelOutputWithPast
from loquent.torch.positions import RotaryFrequencies
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
        past_key_values: Cache | EncoderDecoderCache | None = None,
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
            past_key_values: a cache, new, or one that an earlier call or `generate` filled; it is extended in place.
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
        given = DynamicCache() if past_key_values is None and wants_cache else past_key_values
        cache = _own_cache(given)
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
        returned = given if wants_cache else None
        output = self._run(packed, cache, returned, with_layers=with_layers, with_weights=with_weights)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _run(
        self,
        packed: Packed,
        cache: Cache | None,
        returned: Cache | EncoderDecoderCache | None,
        *,
        with_layers: bool,
        with_weights: bool,
    ) -> BaseModelOutputWithPast:
        """Read packed tokens, extend the cache, and pad the results."""
        pages = None if cache is None else self._caught_up(cache, packed)
        batch = self._batch(packed, pages, with_weights)
        layers = range(len(self.blocks) + 1) if with_layers else ()
        types = None if packed.token_types is None else self.tokens(packed.token_types)
        hidden, kept = self.read(packed.tokens, batch, layers, types)
        if cache is not None and pages is not None:
            pages.commit()
            cache.columns.append(packed.ids)
        return self.output_class(
            last_hidden_state=packed.unpack(hidden),
            past_key_values=returned,
            hidden_states=tuple(packed.unpack(kept[layer]) for layer in layers) if with_layers else None,
            attentions=unpack_weights(self.decoder, batch, packed) if with_weights else None,
        )

    def _batch(self, packed: Packed, pages: ForwardPages | None, with_weights: bool) -> Batch:
        if pages is not None:
            rows = pages.plan([ids[held] for ids, held in zip(packed.ids, packed.mask)], packed.spans)
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
            store=None if pages is None else pages.store,
            with_weights=with_weights,
        )

    def _caught_up(self, cache: Cache, packed: Packed) -> ForwardPages:
        """The cache's pages, once they hold all that the cache remembers; what they lack is read again."""
        count, new = packed.shape
        cache.check_room(count, cache.get_seq_length() + new)
        longest = int((cache.columns.lengths + packed.mask.sum(1)).max()) if cache.get_seq_length() else new
        pages = forward_pages(cache, self.decoder, rows=count, room=longest, dtype=self.dtype, device=self.device)
        if not cache.get_seq_length() or pages.hold(cache.columns):
            return pages
        check_known(cache)
        with torch.no_grad():
            rows = pages.plan(pages.lacking(cache.columns), packed.spans)
            batch = make_batch(self.decoder, rows, self.frequencies, self.device, self.dtype, store=pages.store)
            self.read(torch.from_numpy(pages.coming).to(self.device), batch)
        pages.commit()
        return pages


def _own_cache(given: Any) -> Cache | None:
    """The cache of the decoder's own attention among what is passed as `past_key_values`."""
    cache = given.self_attention_cache if isinstance(given, EncoderDecoderCache) else given
    if cache is None or isinstance(cache, Cache):
        return cache
    remedy = "Pass a new DynamicCache(), or what a forward call returned."
    if isinstance(given, tuple | list):
        remedy = "Keys and values cannot be put in from outside: pass a new DynamicCache() with the tokens."
    raise ArgumentError(f"past_key_values is a {type(given).__name__}, not a cache. {remedy}")
