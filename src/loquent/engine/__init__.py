"""The engine: one loop that runs any mix of requests over a backend."""

from loquent.engine.backend import Backend, Forward, Segment, Store
from loquent.engine.engine import Engine
from loquent.engine.prompt_cache import PromptCache
from loquent.engine.request import Handle

__all__ = ["Backend", "Engine", "Forward", "Handle", "PromptCache", "Segment", "Store"]
