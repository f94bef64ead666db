"""What programs pass as `past_key_values`: the cache classes of transformers, as faces of the page store."""

from loquent.cache.faces.base import Cache, Pages
from loquent.cache.faces.columns import PADDING, UNKNOWN, Columns
from loquent.cache.faces.dynamic import DynamicCache, OffloadedCache
from loquent.cache.faces.encoder_decoder import EncoderDecoderCache
from loquent.cache.faces.quantized import HQQQuantizedCache, QuantizedCache, QuantoQuantizedCache
from loquent.cache.faces.static import OffloadedStaticCache, SlidingWindowCache, StaticCache

__all__ = [
    "PADDING",
    "UNKNOWN",
    "Cache",
    "Columns",
    "DynamicCache",
    "EncoderDecoderCache",
    "HQQQuantizedCache",
    "OffloadedCache",
    "OffloadedStaticCache",
    "Pages",
    "QuantizedCache",
    "QuantoQuantizedCache",
    "SlidingWindowCache",
    "StaticCache",
]
