"""`TorchBackend`: runs the engine's ragged batches on a torch model, and opens page stores for it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from loquent.cache import PLAIN, StoreKind
from loquent.engine.backend import Forward, Segment, Store, check_depth, check_layers, check_states
from loquent.engine.host_memory import free_host_memory
from loquent.errors import ArgumentError
from loquent.parts import Decoder
from loquent.rotary import table_key
from loquent.torch.batch import make_batch
from loquent.torch.causal import CausalLM
from loquent.torch.fingerprint import Fingerprint, deviation, fingerprint
from loquent.torch.groups import Row
from loquent.torch.layers import Linears, call_layer
from loquent.torch.packed import PackedLinears, can_pack
from loquent.torch.store import PageStore, open_store
from loquent.weights import multiplications

_PACKED: WeakKeyDictionary[CausalLM, PackedLinears] = WeakKeyDictionary()
"""The packed weights of each model, for all of its backends, as long as the model lives."""

# What a pass takes on a CPU besides its products, as a whole and in each block, and for each entry of a row that is
# drawn from, in multiplications. Measured on one core of an AMD EPYC, roughly: they only decide how much is drafted.
_PASS_WORK, _BLOCK_WORK, _ENTRY_WORK = 1_000_000, 250_000, 100


class TorchBackend:
    """A `loquent.engine.backend.Backend` over a causal language model, wherever its weights are.

    On a CPU, matrices are copied into a faster layout as they are first used, which takes their memory again (see
    `torch.packed`); `model.pack_weights = False` does without. Layers with hooks, replaced layers and models in
    training mode are run as they are. Runs happen in inference mode and leave no gradients.

    Args:
        model: the model.
        obstacle: why the native core does not run the model instead, where somebody considered it.
        depth: how many of its first blocks are run, before its final norm and head; None: all.

    Raises:
        ArgumentError: the model is on the meta device.
    """

    def __init__(self, model: CausalLM, obstacle: str | None = None, depth: int | None = None) -> None:
        if any(parameter.is_meta for parameter in model.parameters()):
            raise ArgumentError(
                "The model has weights on the meta device, where there are no numbers to compute with. Load it with "
                "from_pretrained, or call to_empty(device='cpu') and load_state_dict."
            )
        self.model, self.obstacle, self._depth = model, obstacle, depth
        self._packed = _PACKED.setdefault(model, PackedLinears())
        self._packed.forget_moved()
        self._fingerprint, self._was_plain = _looked_at(model)

    @property
    def decoder(self) -> Decoder:
        """The composition of what is run."""
        whole = self.model.decoder  # as it is now: resizing the vocabulary makes another one
        return whole if self._depth is None else replace(whole, blocks=whole.blocks[: self._depth])

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        return self.decoder.vocabulary

    @property
    def max_positions(self) -> int | None:
        """How many positions the model was made for."""
        return self.decoder.max_positions

    @property
    def incremental(self) -> bool:
        """Whether tokens may be read in several steps."""
        return self.decoder.incremental

    selects = False
    """Whether it answers choices: the rules choose, in torch."""

    @property
    def layers(self) -> int:
        """How many blocks there are."""
        return len(self.decoder.blocks)

    @property
    def tied(self) -> bool:
        """Whether the head's matrix is the embedding's."""
        return self.decoder.head.tied

    @property
    def multiplications(self) -> int:
        """How many numbers of its matrices a token is multiplied with."""
        return multiplications(self.decoder)

    @property
    def free_rows(self) -> int:
        """How many rows a pass takes in about the time of one: few on a CPU, many where launching it takes the time."""
        return 4 if self.model.device.type == "cpu" else 64

    @property
    def host_work(self) -> int:
        """What launching a pass takes, and the engine, in multiplications on a CPU; not known of other devices."""
        return _PASS_WORK + _BLOCK_WORK * self.layers if self.model.device.type == "cpu" else 0

    @property
    def row_work(self) -> int:
        """What the rules and drawing take on a CPU, in multiplications; not known of other devices."""
        return _ENTRY_WORK * self.vocabulary if self.model.device.type == "cpu" else 0

    def describe(self) -> str:
        """What runs the model, such as "torch (float32 on cpu; there are hooks on head)"."""
        what = f"{str(self.model.dtype).removeprefix('torch.')} on {self.model.device}"
        whole = len(self.model.decoder.blocks)
        some = None if self._depth is None else f"the first {self._depth} of {whole} blocks"
        return f"torch ({'; '.join(part for part in (what, self.obstacle, some) if part)})"

    def free_memory(self) -> int | None:
        """How many bytes the model's device has left, those counted that torch keeps for reuse; None: nothing says."""
        device = self.model.device
        if device.type == "cpu":
            return free_host_memory()
        if device.type != "cuda":
            return None
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)

    def weights_changed(self) -> bool:
        """Whether the model computes something else than when this was last asked; packed copies are then forgotten."""
        weights, was_plain = self._fingerprint, self._was_plain
        self._fingerprint, self._was_plain = _looked_at(self.model)
        if self._fingerprint != weights:
            self._packed.clear()
            return True
        return not (was_plain and self._was_plain)

    def open_store(self, page_size: int, kind: StoreKind = PLAIN) -> PageStore:
        """A new store with no pages yet, of the model's type.

        Raises:
            ArgumentError: a kind of store that there is none of.
            MissingExtraError: a library that is not installed.
        """
        return open_store(self.decoder, page_size, kind, self.model.dtype, self.model.device)

    def prefix_key(self, span: int) -> Hashable:
        """What, besides its tokens, a sequence's keys and values depend on: rotary scalings that depend on the span."""
        rotaries = {block.attention.rotary for block in self.decoder.blocks}
        return frozenset((rotary, table_key(rotary, span)) for rotary in rotaries if rotary is not None)

    @torch.inference_mode()
    def run(self, store: Store, segments: Sequence[Segment], hidden_layers: Sequence[int] = ()) -> Forward:
        """Read the segments: write their keys and values into the store, and give the wanted rows.

        Raises:
            ArgumentError: the store was not opened here, or is of a type that the model no longer has.
            ValueError: rows or layers are wanted that are not there.
        """
        _check(segments)
        check_layers(hidden_layers, self.layers)
        model, decoder = self.model, self.decoder
        base, dtype = model.base_model, model.dtype
        if not isinstance(store, PageStore) or store.dtype != dtype:
            raise ArgumentError("store must be one that this backend opened, since the model was last converted.")
        linear = self._linears(dtype)
        rows = [Row(len(s.tokens), s.start, s.span, s.tables, s.coded) for s in segments]
        batch = make_batch(decoder, rows, base.frequencies, model.device, dtype, store=store, linear=linear)
        tokens = np.concatenate([segment.tokens for segment in segments])
        ids = torch.from_numpy(tokens).to(model.device, non_blocking=True)
        # Subclasses may read in their own way, and know no depth.
        read = base.read if self._depth is None else partial(base.read, depth=self._depth)
        hidden, kept = read(ids, batch, hidden_layers)
        scored = _last(segments, [segment.logit_rows for segment in segments], model.device)
        logits = linear(model.head, _take(hidden, scored)).float()
        if not kept:
            return Forward(logits)
        wanted = _last(segments, [segment.rows for segment in segments], model.device)
        return Forward(logits, {layer: _take(state, wanted) for layer, state in kept.items()})

    @torch.inference_mode()
    def head(self, states: Tensor) -> Tensor:
        """The logits (rows, vocabulary) of hidden states (rows, width), without the final norm.

        Raises:
            ValueError: states of another shape.
        """
        model = self.model
        check_states(states.shape, model.decoder.width)
        dtype = model.dtype
        logits: Tensor = self._linears(dtype)(model.head, states.to(model.device, dtype)).float()
        return logits

    def truncated(self, depth: int) -> TorchBackend:
        """A backend over the same model that has the first `depth` blocks, the final norm and the head.

        Raises:
            ValueError: `depth` is not in 1 to `layers` - 1.
        """
        check_depth(depth, self.layers)
        return TorchBackend(self.model, self.obstacle, depth)

    def _linears(self, dtype: torch.dtype) -> Linears:
        model = self.model
        on_cpu = model.device.type == "cpu" and can_pack(dtype)
        plain = model.pack_weights is False or model.training or not on_cpu
        return call_layer if plain else self._packed


def _looked_at(model: CausalLM) -> tuple[Fingerprint, bool]:
    """What its weights are, and whether its outputs follow from these and its inputs."""
    modules = list(model.modules())
    return fingerprint(model, modules), deviation(model, modules) is None


def _check(segments: Sequence[Segment]) -> None:
    for segment in segments:
        if not 0 <= segment.logit_rows <= segment.rows <= len(segment.tokens):
            raise ValueError(
                f"a segment of {len(segment.tokens)} tokens cannot have {segment.rows} rows, {segment.scored} scored"
            )


def _last(segments: Sequence[Segment], counts: Sequence[int], device: torch.device) -> Tensor | slice:
    """Which packed tokens are the last so many of their segments'."""
    lengths = [len(segment.tokens) for segment in segments]
    if counts == lengths:
        return slice(None)
    picked = np.concatenate([np.arange(stop - count, stop) for stop, count in zip(np.cumsum(lengths), counts)])
    return torch.from_numpy(picked).to(device, non_blocking=True)


def _take(packed: Tensor, wanted: Tensor | slice) -> Tensor:
    return packed[wanted] if isinstance(wanted, slice) else packed.index_select(0, wanted)
