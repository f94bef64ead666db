"""Traces as one page of HTML that needs nothing else: no scripts, no fonts, no images, no network."""

from __future__ import annotations

from loquent.visual.html.page import page

__all__ = ["page"]
