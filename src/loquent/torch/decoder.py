"""Blocks and the stack of them: a composition (`parts.Decoder`) as modules that read a packed batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from loquent import parts
from loquent.torch.attention import SelfAttention
from loquent.torch.batch import Batch
from loquent.torch.experts import CrossDomainExperts
from loquent.torch.layers import MLP, GatedMLP, make_embedding, make_norm


def _make_mlp(part: parts.FeedForward, width: int) -> MLP | GatedMLP | CrossDomainExperts:
    if isinstance(part, parts.MLP):
        return MLP(part, width)
    return CrossDomainExperts(part, width) if isinstance(part, parts.CrossDomainExperts) else GatedMLP(part, width)


class Block(nn.Module):
    """`parts.Block`."""

    def __init__(self, part: parts.Block, width: int, layer: int) -> None:
        super().__init__()
        self.part = part
        self.attention_norm = make_norm(part.attention_norm, width)
        self.attention = SelfAttention(part.attention, width, layer)
        self.mlp_norm = make_norm(part.mlp_norm, width)
        self.mlp = _make_mlp(part.mlp, width)
        self.dropout = nn.Dropout(part.dropout)
        if isinstance(part.residual, parts.ScaledResidual):
            self.attention_residual = nn.Parameter(torch.empty(width))
            self.mlp_residual = nn.Parameter(torch.empty(width))

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        if isinstance(self.part.residual, parts.ParallelResidual):
            return hidden + self._attention(hidden, batch) + self._mlp(hidden, batch)
        if isinstance(self.part.residual, parts.ScaledResidual):
            hidden = torch.addcmul(self._attention(hidden, batch), self.attention_residual, hidden)
            return torch.addcmul(self._mlp(hidden, batch), self.mlp_residual, hidden)
        hidden = hidden + self._attention(hidden, batch)
        return hidden + self._mlp(hidden, batch)

    def _attention(self, hidden: Tensor, batch: Batch) -> Tensor:
        return self._drop(self.attention(self.attention_norm(hidden), batch))

    def _mlp(self, hidden: Tensor, batch: Batch) -> Tensor:
        normed = self.mlp_norm(hidden)
        if isinstance(self.mlp, CrossDomainExperts):
            return self._drop(self.mlp(normed, batch.linear, batch.lengths))
        return self._drop(self.mlp(normed, batch.linear))

    def _drop(self, x: Tensor) -> Tensor:
        return self.dropout(x) if self.training else x


class DecoderStack(nn.Module):
    """`parts.Decoder` without its head: packed tokens to hidden states, with gradients or without."""

    tokens: nn.Embedding
    positions: nn.Embedding
    blocks: nn.ModuleList
    norm: nn.Module
    dropout: nn.Dropout
    decoder: parts.Decoder
    checkpointing: Callable[..., Tensor] | None = None

    def _add_modules(self, decoder: parts.Decoder) -> None:
        self.decoder = decoder
        self.tokens = make_embedding(decoder.vocabulary, decoder.width)
        if decoder.learned_positions:
            self.positions = make_embedding(decoder.learned_positions.count, decoder.width)
        self.blocks = nn.ModuleList(Block(part, decoder.width, layer) for layer, part in enumerate(decoder.blocks))
        self.norm = make_norm(decoder.norm, decoder.width)
        self.dropout = nn.Dropout(decoder.embedding_dropout)

    def read(
        self,
        tokens: Tensor,
        batch: Batch,
        keep_layers: Sequence[int] = (),
        extra: Tensor | None = None,
        depth: int | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Read a batch.

        Args:
            tokens: ids (tokens,), or embeddings (tokens, width).
            batch: what is known of the tokens.
            keep_layers: layers whose output is wanted: 0 is the embeddings', the last one's is taken after the norm.
            extra: further embeddings (tokens, width) to be added, such as token types'.
            depth: how many of the first blocks there are; None: all.

        Returns:
            The hidden states after the final norm, (tokens, width), and those of `keep_layers`.
        """
        hidden = self._embed(tokens, batch, extra)
        kept = {0: hidden} if 0 in keep_layers else {}
        last = len(self.blocks) if depth is None else depth
        for layer, block in enumerate(islice(self.blocks, last), start=1):
            hidden = self._run_block(block, hidden, batch)
            if layer in keep_layers and layer < last:
                kept[layer] = hidden
        hidden = self.norm(hidden)
        if last in keep_layers:
            kept[last] = hidden
        return hidden, kept

    def _embed(self, tokens: Tensor, batch: Batch, extra: Tensor | None) -> Tensor:
        hidden = tokens if tokens.is_floating_point() else self.tokens(tokens)
        if self.decoder.learned_positions:
            hidden = hidden + self.positions(batch.positions)
        if extra is not None:
            hidden = hidden + extra
        return self.dropout(hidden) if self.training else hidden

    def _run_block(self, block: nn.Module, hidden: Tensor, batch: Batch) -> Tensor:
        if self.checkpointing is not None and self.training and torch.is_grad_enabled():
            return self.checkpointing(block, hidden, batch)
        result: Tensor = block(hidden, batch)
        return result


def checkpointed(block: nn.Module, hidden: Tensor, batch: Batch) -> Tensor:
    """Run a block without keeping its intermediate results; going backward computes them again."""
    result = checkpoint(block, hidden, batch, use_reentrant=False)
    assert isinstance(result, Tensor)
    return result
