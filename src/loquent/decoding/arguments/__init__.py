"""From the arguments of a call to requests: what a generation config asks for, or a clear refusal; it runs nothing."""

from loquent.decoding.arguments.resolving import max_new_tokens, resolve
from loquent.decoding.arguments.surroundings import DEFAULT_NEW_TOKENS, Surroundings, as_tuple

__all__ = ["DEFAULT_NEW_TOKENS", "Surroundings", "as_tuple", "max_new_tokens", "resolve"]
