"""The native CPU backend: compositions lowered to plans that compiled code runs, a whole step in one call.

`weights` is the seam to whoever holds a model's weights, `lowering` makes the plan, `backend` is what an engine drives.
"""

from loquent.native.extension import available, core, why_unavailable

__all__ = ["available", "core", "why_unavailable"]
