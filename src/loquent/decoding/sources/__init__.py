"""Sources of scores, which stand between a strategy and the model; each opens with its paper and its formula."""

from loquent.decoding.sources.base import Part, Source
from loquent.decoding.sources.dola import DoLa, candidate_layers
from loquent.decoding.sources.guidance import Guidance
from loquent.decoding.sources.reading import scored_by

__all__ = ["DoLa", "Guidance", "Part", "Source", "candidate_layers", "scored_by"]
