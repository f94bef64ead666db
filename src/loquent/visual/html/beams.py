"""A beam search as a tree from left to right, its candidates chosen and pruned, and the final ranking.

Every candidate has a place of its own: a step is a column, and in it those of one parent stand together in the order of
their parents, so that no two lines cross.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from loquent.decoding.trace import Trace
from loquent.visual.html.markup import Markup, element, row, table, word
from loquent.visual.places import probability_of
from loquent.visual.ranking import ranking_of
from loquent.visual.shades import percent
from loquent.visual.texts import TokenTexts
from loquent.visual.tree import Branch, Tree, grow

_COLUMN, _BOX, _CHOSEN, _PRUNED, _GAP = 190, 150, 42, 22, 5
_OFFSPRING = 8  # how many pruned candidates of one parent are drawn
_SHOWN_TOKENS = 40


@dataclass(eq=False)
class _Layout:
    """Where everything is, in pixels."""

    top: dict[Branch, int] = field(default_factory=dict)
    more: list[tuple[int, int, int]] = field(default_factory=list)  # column, top, how many are left out there
    height: int = 0

    def middle(self, branch: Branch) -> int:
        """Where lines meet a box."""
        return self.top[branch] + (_CHOSEN if branch.stands else _PRUNED) // 2


def beams(trace: Trace, texts: TokenTexts) -> Markup:
    """Everything about a search."""
    tree = grow(trace)
    legend = element(
        "p",
        *(element("span", name, class_=f"key {kind}") for name, kind in _KEYS),
        " Below each token: its log-probability, and the hypothesis's score Σ so far.",
        class_="legend",
    )
    return element(
        "div", element("h2", "Beams"), legend, _drawing(trace, tree, texts), _ranking(trace, tree, texts), class_="view"
    )


_KEYS = (
    ("best result", "chosen best"),
    ("other results", "chosen result"),
    ("chosen", "chosen"),
    ("ended ■", "chosen ended"),
    ("pruned", "pruned"),
)


def _drawing(trace: Trace, tree: Tree, texts: TokenTexts) -> Markup:
    layout = _placed(tree)
    width, height = _COLUMN * (len(tree.steps) + 1), layout.height
    boxes = [_prompt(trace, texts)]
    lines = []
    for row_ in tree.steps:
        for branch in row_:
            if branch in layout.top:
                boxes.append(_box(branch, tree, layout, texts))
                lines.append(_line(branch, layout))
    boxes += [
        element("div", f"… {count} more", class_="more", style=f"left:{_COLUMN * (column + 1)}px;top:{top}px")
        for column, top, count in layout.more
    ]
    picture = element("svg", *lines, width=width, height=height, aria_hidden="true")
    return element(
        "div",
        element("div", picture, *boxes, class_="tree", style=f"width:{width}px;height:{height}px"),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label="Beam tree",
    )


def _placed(tree: Tree) -> _Layout:
    layout = _Layout()
    for column, branches in enumerate(tree.steps):
        top, pruned, hidden = 0, Counter[Branch | None](), Counter[Branch | None]()
        for index, branch in enumerate(branches):
            pruned[branch.parent] += not branch.stands
            if branch.stands or pruned[branch.parent] <= _OFFSPRING:
                layout.top[branch] = top
                top += (_CHOSEN if branch.stands else _PRUNED) + _GAP
            else:
                hidden[branch.parent] += 1
            is_last = index + 1 == len(branches) or branches[index + 1].parent is not branch.parent
            if is_last and hidden[branch.parent]:
                layout.more.append((column, top, hidden[branch.parent]))
                top += _PRUNED + _GAP
        layout.height = max(layout.height, top)
    layout.height = max(layout.height, _CHOSEN + _GAP)
    return layout


def _classes(branch: Branch) -> str:
    if not branch.stands:
        return "pruned"
    kinds = ["chosen"] + (["best" if 0 in branch.ranks else "result"] if branch.ranks else [])
    return " ".join([*kinds, *(["ended"] if branch.node.fate == "finished" else [])])


def _prompt(trace: Trace, texts: TokenTexts) -> Markup:
    text = texts.text(trace.prompt[-12:])
    return element(
        "div", word(text if len(trace.prompt) <= 12 else f"…{text}", "token"), class_="box prompt", style="left:0;top:0"
    )


def _box(branch: Branch, tree: Tree, layout: _Layout, texts: TokenTexts) -> Markup:
    node, token = branch.node, word(texts.token(branch.node.token), "token")
    numbers = element("span", f"{node.log_probability:.3f}", class_="step")
    total = element("span", f"Σ {node.score:.3f}", class_="total")
    ends = [rank for rank, leaf in enumerate(tree.leaves) if leaf is branch]
    mark = element("b", "".join(f"#{rank + 1} " for rank in ends).strip() or "■") if node.fate == "finished" else ""
    return element(
        "div",
        token,
        mark,
        numbers,
        total,
        class_=f"box {_classes(branch)}",
        style=f"left:{_COLUMN * (branch.step + 1)}px;top:{layout.top[branch]}px",
        title=_told(branch, tree, texts),
    )


def _told(branch: Branch, tree: Tree, texts: TokenTexts) -> str:
    """What is told of a box when it is pointed at."""
    node = branch.node
    text = texts.text(each.node.token for each in branch.way(_SHOWN_TOKENS))
    facts = [
        ("…" if branch.step >= _SHOWN_TOKENS else "") + text,
        f"token {node.token}, p = {percent(probability_of(node))}, step {branch.step + 1}",
        f"log p {node.log_probability:.4f}, Σ {node.score:.4f}",
        f"{node.fate}{f' ({node.reason})' if node.reason else ''}",
    ]
    facts += [f"group {branch.group + 1}"] if tree.groups > 1 else []
    facts += [] if node.bank is None else [f"{node.bank} tokens of the constraints met"]
    return "\n".join(facts)


def _line(branch: Branch, layout: _Layout) -> Markup:
    left, right = _COLUMN * branch.step + _BOX, _COLUMN * (branch.step + 1)
    start = layout.middle(branch.parent) if branch.parent in layout.top else _CHOSEN // 2
    bend = (left + right) // 2
    end = layout.middle(branch)
    return element("path", d=f"M{left} {start}C{bend} {start} {bend} {end} {right} {end}", class_=_classes(branch))


def _ranking(trace: Trace, tree: Tree, texts: TokenTexts) -> Markup:
    rows = [
        row(
            str(rank),
            f"{each.score:.4f}",
            element("span", f"{each.total:.3f} / {each.length}", element("sup", f"{each.penalty:g}")),
            each.result.reason,
            word(texts.text(each.result.tokens)),
            class_="best" if rank == 1 else "result",
        )
        for rank, each in enumerate(ranking_of(trace, tree), 1)
    ]
    formula = element("span", "Σ log p / length", element("sup", "penalty"))
    return element(
        "div", element("h3", "Final ranking"), table(("#", "Score", formula, "End", "Text"), rows, "ranking")
    )
