"""The vocabulary of composition: frozen dataclasses that say what a model computes; nothing here computes.

A family (`loquent.families`) composes these from its config, and a backend (`loquent.torch`, ...) reads the composition
into something that runs. Two models with equal compositions compute the same function of their weights. The canonical
names and shapes of those weights are `loquent.weights`.
"""

from __future__ import annotations

from dataclasses import dataclass

# --- norms -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerNorm:
    """Layer normalization with a weight and a bias (Ba et al., 2016, arXiv:1607.06450)."""

    epsilon: float


@dataclass(frozen=True)
class RMSNorm:
    """Root mean square normalization with a weight, in float32 (Zhang and Sennrich, 2019, arXiv:1910.07467)."""

    epsilon: float


Norm = LayerNorm | RMSNorm


# --- positions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LearnedPositions:
    """A learned vector for each of `count` absolute positions, added to the token embedding."""

    count: int


@dataclass(frozen=True)
class LinearScaling:
    """Position interpolation: angles divided by `factor` (arXiv:2306.15595)."""

    factor: float


@dataclass(frozen=True)
class DynamicScaling:
    """NTK-aware scaling whose base grows with the request's length once that exceeds `original_positions`."""

    factor: float
    original_positions: int


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (arXiv:2309.00071): low frequencies interpolated, high ones kept, a ramp between."""

    factor: float
    original_positions: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None  # what cosines and sines are multiplied by; None derives it
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True


@dataclass(frozen=True)
class LongRopeScaling:
    """LongRoPE (arXiv:2402.13753): a divisor per frequency, one list up to the original length and one beyond."""

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_positions: int
    factor: float | None = None
    attention_factor: float | None = None


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's scaling: long wavelengths divided by `factor`, short ones kept, the middle interpolated."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_positions: int


RotaryScaling = LinearScaling | DynamicScaling | YarnScaling | LongRopeScaling | Llama3Scaling


@dataclass(frozen=True)
class Rotary:
    """Rotary positions (arXiv:2104.09864) on the first `dimensions` of each head, in half-split layout."""

    dimensions: int
    theta: float
    positions: int  # max_position_embeddings
    scaling: RotaryScaling | None = None


# --- attention -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DynamicMask:
    """Doge's dynamic mask (arXiv:2412.11834): a value per token and key-value head, computed from the token's own
    un-rotated values, is added to the scores; past `keep` visible keys only the `keep` largest are seen, and of equal
    values the most recent."""

    keep: int
    bias: bool


@dataclass(frozen=True)
class Attention:
    """Causal self-attention with `kv_heads` shared by groups of `heads // kv_heads` query heads.

    `scale` multiplies the scores. `window` is how many keys a query sees, itself included (None: all of them).
    `query_key_norm` acts on each head's queries and keys before rotary. The softmax is in float32.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    qkv_bias: bool
    output_bias: bool
    rotary: Rotary | None = None
    window: int | None = None
    query_key_norm: RMSNorm | None = None
    dynamic_mask: DynamicMask | None = None
    dropout: float = 0.0


# --- feed-forward ----------------------------------------------------------------------------------------------------

ACTIVATIONS = frozenset(
    {
        *(
            "gelu",
            "gelu_10",
            "gelu_accurate",
            "gelu_fast",
            "gelu_new",
            "gelu_python",
            "gelu_pytorch_tanh",
            "quick_gelu",
        ),
        *("relu", "relu2", "relu6", "leaky_relu", "prelu"),
        *("silu", "swish", "mish", "sigmoid", "tanh", "laplace", "linear"),
    }
)
"""The names that checkpoints use for activation functions; `prelu` alone has a weight of its own."""


@dataclass(frozen=True)
class MLP:
    """down(activation(up(x)))."""

    width: int
    activation: str
    bias: bool


@dataclass(frozen=True)
class GatedMLP:
    """down(activation(gate(x)) * up(x)) (Shazeer, 2020, arXiv:2002.05202)."""

    width: int
    activation: str
    bias: bool


@dataclass(frozen=True)
class CrossDomainExperts:
    """Doge's cross-domain mixture of experts: a shared gated MLP plus `chosen` of `experts` single-neuron experts,
    found by product keys (`isqrt(experts)` keys on each of two axes).

    `routing` "per_token" splits each token's own router logits into the two axes, which is causal. "flattened" splits
    the flattened logits of all tokens read together, as the full forward pass of transformers does; a token's result
    then depends on the tokens after it.
    """

    shared: GatedMLP
    experts: int
    chosen: int
    normalized: bool
    routing: str = "per_token"


FeedForward = MLP | GatedMLP | CrossDomainExperts


# --- blocks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SerialResidual:
    """x = x + attention(norm(x)); x = x + mlp(norm(x))."""


@dataclass(frozen=True)
class ScaledResidual:
    """x = a * x + attention(norm(x)); x = b * x + mlp(norm(x)), with learned a and b per channel (Doge)."""


@dataclass(frozen=True)
class ParallelResidual:
    """x = x + attention(attention_norm(x)) + mlp(mlp_norm(x)) (GPT-NeoX)."""


Residual = SerialResidual | ScaledResidual | ParallelResidual


@dataclass(frozen=True)
class Block:
    """One transformer layer with norms before attention and feed-forward; `dropout` acts on what each adds."""

    attention_norm: Norm
    attention: Attention
    mlp_norm: Norm
    mlp: FeedForward
    residual: Residual = SerialResidual()
    dropout: float = 0.0


# --- models ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LanguageHead:
    """Logits over the vocabulary, from the token embedding itself where tied."""

    tied: bool
    bias: bool = False


@dataclass(frozen=True)
class Decoder:
    """A causal language model: embeddings, blocks, a final norm and a head."""

    vocabulary: int
    width: int
    blocks: tuple[Block, ...]
    norm: Norm
    head: LanguageHead
    learned_positions: LearnedPositions | None = None
    max_positions: int | None = None  # how many positions the model was made for; None: no limit
    embedding_dropout: float = 0.0

    @property
    def incremental(self) -> bool:
        """Whether reading tokens one by one gives what reading them at once gives."""
        return not any(isinstance(b.mlp, CrossDomainExperts) and b.mlp.routing == "flattened" for b in self.blocks)
