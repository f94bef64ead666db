"""The engine: one loop that runs any mix of requests over a backend."""

from loquent.engine.backend import Backend, Forward, Segment, Store
from loquent.engine.engine import Engine
from loquent.engine.request import Handle

__all__ = ["Backend", "Engine", "Forward", "Handle", "Segment", "Store"]
