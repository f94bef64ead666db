"""Doge's cross-domain mixture of experts: a shared MLP and single-neuron experts found by product keys."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor, nn

from loquent import parts
from loquent.torch.layers import GatedMLP, Linears, call_layer, make_embedding

# How many numbers the gathered experts of one chunk of tokens may hold; a token gathers `chosen * width`, twice.
_CHUNK_ELEMENTS = 1 << 23


class CrossDomainExperts(GatedMLP):
    """`parts.CrossDomainExperts`, whose shared MLP's weights stand beside the experts' (arXiv:2412.11834)."""

    def __init__(self, part: parts.CrossDomainExperts, width: int) -> None:
        super().__init__(part.shared, width)
        self.part = part
        self.keys = isqrt(part.experts)
        self.router = nn.Linear(width, 2 * self.keys, bias=False)
        self.expert_down = make_embedding(part.experts, width)
        self.expert_up = make_embedding(part.experts, width)

    def route(self, x: Tensor, lengths: Sequence[int], linear: Linears = call_layer) -> tuple[Tensor, Tensor]:
        """The chosen experts of each token and their weights, both (tokens, chosen)."""
        chosen, keys = self.part.chosen, self.keys
        logits = linear(self.router, x)  # (tokens, 2 * keys)
        # An expert among the best pairs has each of its keys among the `chosen` best of that key's axis.
        scores, indices = self._axes(logits, lengths).topk(min(chosen, keys), dim=-1)  # (2, tokens, kept)
        pairs = (scores[0].unsqueeze(-1) + scores[1].unsqueeze(-2)).flatten(1)
        experts = (indices[0].unsqueeze(-1) * keys + indices[1].unsqueeze(-2)).flatten(1)
        best, places = pairs.topk(chosen, dim=-1)
        weights = best.softmax(-1)
        if self.part.normalized:
            weights = weights / weights.sum(-1, keepdim=True)
        return experts.gather(-1, places), weights

    def _axes(self, logits: Tensor, lengths: Sequence[int]) -> Tensor:
        """The router's logits on each of the two key axes, (2, tokens, keys)."""
        if self.part.routing == "per_token":
            return logits.view(-1, 2, self.keys).transpose(0, 1)
        # As the full forward pass of transformers does: halves of each row's flattened logits, not of each token's.
        return torch.cat([row.reshape(2, -1, self.keys) for row in torch.split(logits, list(lengths))], dim=1)

    def forward(self, x: Tensor, linear: Linears = call_layer, lengths: Sequence[int] = ()) -> Tensor:
        experts, weights = self.route(x, lengths or [len(x)], linear)
        size = max(1, _CHUNK_ELEMENTS // (self.part.chosen * x.shape[-1]))
        chunks = [
            self._apply_experts(some_x, some_experts, some_weights)
            for some_x, some_experts, some_weights in zip(*(torch.split(t, size) for t in (x, experts, weights)))
        ]
        return super().forward(x, linear) + torch.cat(chunks)

    def _apply_experts(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        down, up = self.expert_down(experts), self.expert_up(experts)  # (tokens, chosen, width)
        activated = self._activate(torch.matmul(down, x.unsqueeze(-1)).squeeze(-1)) * weights  # (tokens, chosen)
        return torch.matmul(activated.unsqueeze(-2), up).squeeze(-2)
