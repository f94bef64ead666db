"""Markup from parts: text is escaped unless it is `Markup`, so that nothing a model writes can become any."""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is markup already; only `element` and `joined` make it."""

    __slots__ = ()


def joined(*parts: str) -> Markup:
    """Parts one after another, those that are no markup escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def element(name: str, *parts: str, **attributes: str | int | float | None) -> Markup:
    """An element with parts in it; `class_` is the attribute class, and attributes that are None are left out."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{told}>{joined(*parts)}</{name}>")


def word(text: str, class_: str | None = None) -> Markup:
    """A text of the model's, such that its direction leaves its neighbours where they are."""
    return element("bdi", text, class_=class_)


def row(*cells: str, of: str = "td", class_: str | None = None) -> Markup:
    """A row of a table."""
    return element("tr", *(element(of, cell) for cell in cells), class_=class_)


def table(head: tuple[str, ...], rows: list[Markup], class_: str | None = None) -> Markup:
    """A table with a head."""
    return element("table", element("thead", row(*head, of="th")), element("tbody", *rows), class_=class_)
