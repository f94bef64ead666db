"""DoLa's choices over the places of a result; it draws nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loquent.visual.places import Place


def candidate_layers(places: Sequence[Place]) -> list[int]:
    """All layers that were compared with the last one, or chosen without a comparison."""
    found = {layer for place in places if place.layer for layer, _ in place.layer.divergences}
    return sorted(found | {place.layer.layer for place in places if place.layer})


def chosen_layers(places: Sequence[Place]) -> Counter[int]:
    """How often each layer was chosen."""
    return Counter(place.layer.layer for place in places if place.layer)
