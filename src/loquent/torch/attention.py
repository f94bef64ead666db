"""Self-attention as a module: projections, head norms, rotary positions, and what it adds to the store."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent import parts
from loquent.torch.attend import attend, attend_with_weights
from loquent.torch.batch import Batch
from loquent.torch.groups import Group
from loquent.torch.keys import JoinedKeys, Keys
from loquent.torch.layers import Linears, RMSNorm
from loquent.torch.positions import turn


class DynamicMask(nn.Module):
    """`parts.DynamicMask`: a value for each token and key-value head, from the token's own un-rotated values."""

    def __init__(self, part: parts.Attention, bias: bool) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.empty(part.kv_heads))
        self.step = nn.Linear(part.kv_heads * part.head_dim, part.kv_heads, bias)

    def forward(self, values: Tensor, linear: Linears) -> Tensor:
        return torch.exp(self.decay * F.softplus(linear(self.step, values.flatten(1))))  # (tokens, kv_heads)


class SelfAttention(nn.Module):
    """`parts.Attention` over a packed batch."""

    def __init__(self, part: parts.Attention, width: int, layer: int) -> None:
        super().__init__()
        self.part, self.layer = part, layer
        self.qkv = nn.Linear(width, (part.heads + 2 * part.kv_heads) * part.head_dim, part.qkv_bias)
        self.dropout = nn.Dropout(part.dropout)  # of attention weights; a module, so that programs can set its `p`
        self.output = nn.Linear(part.heads * part.head_dim, width, part.output_bias)
        if part.query_key_norm:
            self.query_norm = RMSNorm(part.head_dim, part.query_key_norm.epsilon)
            self.key_norm = RMSNorm(part.head_dim, part.query_key_norm.epsilon)
        if part.dynamic_mask:
            self.dynamic_mask = DynamicMask(part, part.dynamic_mask.bias)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        part = self.part
        heads = batch.linear(self.qkv, hidden).view(len(hidden), -1, part.head_dim)
        both, values = heads[:, : part.heads + part.kv_heads], heads[:, part.heads + part.kv_heads :]
        if part.query_key_norm:
            both = torch.cat([self.query_norm(both[:, : part.heads]), self.key_norm(both[:, part.heads :])], 1)
        if part.rotary:
            both = turn(both, batch.turns[part.rotary])
        queries, keys = both[:, : part.heads], both[:, part.heads :]  # (tokens, heads, head_dim)
        entries = [keys, values]
        if part.dynamic_mask:
            entries.append(self.dynamic_mask(values, batch.linear))  # (tokens, kv_heads)
        batch.write(self.layer, entries)
        groups = batch.plans[self.layer].groups
        read = batch.restore(self.layer, [self._attend(group, queries, entries, batch) for group in groups])
        return batch.linear(self.output, read.flatten(1))

    def _attend(self, group: Group, queries: Tensor, entries: list[Tensor], batch: Batch) -> Tensor:
        where = group.keys(self.part.window)
        keys, values, *mask_values = [
            self._known(group, where, plane, entry, batch) for plane, entry in enumerate(entries)
        ]  # (count, size, kv_heads, head_dim)
        added = mask_values[0] if mask_values else None
        dropout = self.dropout.p if self.training else 0.0
        mine = group.take(queries)
        if batch.weights is None:
            return attend(self.part, mine, keys, values, where, mask_values=added, dropout=dropout)
        read, weights = attend_with_weights(self.part, mine, keys, values, where, mask_values=added, dropout=dropout)
        if group is batch.plans[self.layer].groups[0]:
            batch.weights[self.layer] = []
        batch.weights[self.layer].append(weights)
        return read

    def _known(self, group: Group, where: Keys | JoinedKeys, plane: int, entry: Tensor, batch: Batch) -> Tensor:
        """The entries of one plane that a group's queries see, (count, size, ...)."""
        exact = where if isinstance(where, Keys) else where.exact
        seen = group.take(entry) if exact.reads_new else None
        if batch.pages is not None and exact.source is not None:
            seen = exact.read(batch.pages.planes(self.layer)[plane], seen)
        assert seen is not None
        if isinstance(where, Keys):
            return seen
        assert batch.pages is not None  # of a store that has coded ones
        coded = where.coded.size
        both = seen.new_empty(len(seen), coded + seen.shape[1], *seen.shape[2:])
        batch.pages.coded(self.layer).decode(where.coded.pages, plane, both[:, :coded])
        both[:, coded:] = seen
        return both
