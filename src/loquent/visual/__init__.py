"""Looking: traces (`decoding.trace`) drawn in the terminal and on self-contained pages; no models, no files."""

from __future__ import annotations

from loquent.visual.texts import TokenTexts
from loquent.visual.views import VIEWS, View, has

__all__ = ["VIEWS", "TokenTexts", "View", "has"]
