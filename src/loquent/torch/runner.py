"""`TorchBackend`: runs the engine's ragged batches on a torch model, and opens page stores for it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from loquent.engine.backend import Forward, Segment, Store
from loquent.errors import ArgumentError
from loquent.rotary import table_key
from loquent.torch.batch import make_batch
from loquent.torch.causal import CausalLM
from loquent.torch.fingerprint import deviation, fingerprint
from loquent.torch.groups import Row
from loquent.torch.layers import Linears, call_layer
from loquent.torch.packed import PackedLinears, can_pack
from loquent.torch.store import PageStore

_PACKED: WeakKeyDictionary[CausalLM, PackedLinears] = WeakKeyDictionary()
"""The packed weights of each model, for all of its backends, as long as the model lives."""


class TorchBackend:
    """A `loquent.engine.backend.Backend` over a causal language model, wherever its weights are.

    On a CPU, matrices are copied into a faster layout as they are first used, which takes their memory again (see
    `torch.packed`); `model.pack_weights = False` does without. Layers with hooks, replaced layers and models in
    training mode are run as they are. Runs happen in inference mode and leave no gradients. `obstacle` is why the
    native core does not run the model instead, where somebody considered it.

    Raises:
        ArgumentError: the model is on the meta device.
    """

    def __init__(self, model: CausalLM, obstacle: str | None = None) -> None:
        if any(parameter.is_meta for parameter in model.parameters()):
            raise ArgumentError(
                "The model has weights on the meta device, where there are no numbers to compute with. Load it with "
                "from_pretrained, or call to_empty(device='cpu') and load_state_dict."
            )
        self.model, self.obstacle = model, obstacle
        self._packed = _PACKED.setdefault(model, PackedLinears())
        self._packed.forget_moved()
        self._fingerprint, self._was_plain = fingerprint(model), _is_plain(model)

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        return self.model.decoder.vocabulary

    @property
    def max_positions(self) -> int | None:
        """How many positions the model was made for."""
        return self.model.decoder.max_positions

    @property
    def incremental(self) -> bool:
        """Whether tokens may be read in several steps."""
        return self.model.decoder.incremental

    selects = False
    """Whether it answers choices: the rules choose, in torch."""

    @property
    def layers(self) -> int:
        """How many blocks there are."""
        return len(self.model.decoder.blocks)

    def describe(self) -> str:
        """What runs the model, such as "torch (float32 on cpu; there are hooks on head)"."""
        what = f"{str(self.model.dtype).removeprefix('torch.')} on {self.model.device}"
        return f"torch ({what}; {self.obstacle})" if self.obstacle else f"torch ({what})"

    def weights_changed(self) -> bool:
        """Whether the model computes something else than when this was last asked; packed copies are then forgotten."""
        weights, was_plain = self._fingerprint, self._was_plain
        self._fingerprint, self._was_plain = fingerprint(self.model), _is_plain(self.model)
        if self._fingerprint != weights:
            self._packed.clear()
            return True
        return not (was_plain and self._was_plain)

    def open_store(self, page_size: int) -> PageStore:
        """A new store with no pages yet, of the model's type and on its device."""
        return PageStore(self.model.decoder, page_size, self.model.dtype, self.model.device)

    def prefix_key(self, span: int) -> Hashable:
        """What, besides its tokens, a sequence's keys and values depend on: rotary scalings that depend on the span."""
        rotaries = {block.attention.rotary for block in self.model.decoder.blocks}
        return frozenset((rotary, table_key(rotary, span)) for rotary in rotaries if rotary is not None)

    @torch.inference_mode()
    def run(self, store: Store, segments: Sequence[Segment], hidden_layers: Sequence[int] = ()) -> Forward:
        """Read the segments: write their keys and values into the store, and give the wanted rows.

        Raises:
            ArgumentError: the store was not opened here, or is of a type that the model no longer has.
        """
        model = self.model
        base, dtype = model.base_model, model.dtype
        if not isinstance(store, PageStore) or store.dtype != dtype:
            raise ArgumentError("store must be one that this backend opened, since the model was last converted.")
        linear = self._linears(dtype)
        rows = [Row(len(segment.tokens), segment.start, segment.span, segment.pages) for segment in segments]
        batch = make_batch(model.decoder, rows, base.frequencies, model.device, dtype, store=store, linear=linear)
        tokens = np.concatenate([segment.tokens for segment in segments])
        hidden, kept = base.read(torch.from_numpy(tokens).to(model.device, non_blocking=True), batch, hidden_layers)
        wanted = _wanted(segments, model.device)
        logits = linear(model.head, _take(hidden, wanted)).float()
        return Forward(logits, {layer: _take(state, wanted) for layer, state in kept.items()})

    def _linears(self, dtype: torch.dtype) -> Linears:
        model = self.model
        on_cpu = model.device.type == "cpu" and can_pack(dtype)
        plain = model.pack_weights is False or model.training or not on_cpu
        return call_layer if plain else self._packed


def _is_plain(model: CausalLM) -> bool:
    """Whether its outputs follow from its weights and its inputs."""
    return deviation(model, model.modules()) is None


def _wanted(segments: Sequence[Segment], device: torch.device) -> Tensor | slice:
    """Which packed tokens want a row."""
    if all(segment.rows == len(segment.tokens) for segment in segments):
        return slice(None)
    stops = np.cumsum([len(segment.tokens) for segment in segments])
    picked = np.concatenate([np.arange(stop - segment.rows, stop) for segment, stop in zip(segments, stops)])
    return torch.from_numpy(picked).to(device, non_blocking=True)


def _take(packed: Tensor, wanted: Tensor | slice) -> Tensor:
    return packed[wanted] if isinstance(wanted, slice) else packed.index_select(0, wanted)
