"""A beam search in the terminal: the candidates of each step, the branches that stood, the final ranking."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree as Drawing

from loquent.decoding.trace import Trace
from loquent.visual.folding import folded
from loquent.visual.ranking import ranking_of
from loquent.visual.terminal.canvas import FAINT, Canvas, listing, title
from loquent.visual.texts import isolated
from loquent.visual.tree import Branch, Tree, grow
from loquent.visual.views import NOTHING

MARKS = {"kept": "●", "finished": "■", "pruned": "×", "rejected": "×"}
_LEGEND = "● goes on   ■ ends a hypothesis   × pruned;   # a result goes through it"
_STEPS = 16
_STANDING = 8  # how many chosen candidates of a step are drawn, where there are many
_PRUNED = 3
_BRANCHES = 24
_RUN = 16
_NARROW = 64


def beams(trace: Trace, canvas: Canvas) -> RenderableType:
    """Everything about a search."""
    tree = grow(trace)
    if not tree.steps:
        return Text(NOTHING["beams"])
    return Group(
        title("Candidates, step by step"),
        Text(_LEGEND, FAINT),
        _candidates(tree, canvas),
        Text(),
        title("What became of the beams"),
        _standing(trace, tree, canvas),
        Text(),
        title("Final ranking"),
        ranking(trace, tree, canvas),
    )


def _style(branch: Branch) -> str:
    if branch.ranks:
        return "bold cyan" if 0 in branch.ranks else "cyan"
    return "" if branch.stands else FAINT


def _candidates(tree: Tree, canvas: Canvas) -> Table:
    is_narrow = canvas.width < _NARROW
    numbers = ("Step", "log p", "Σ log p")
    columns = ["Step", *(["Group"] if tree.groups > 1 else []), "", "Token", "log p", "Σ log p"]
    table = listing(*columns, *([] if is_narrow else ["Beam", "Text"]), right=numbers)
    first, missing, last = folded(list(enumerate(tree.steps)), canvas.limit(_STEPS))
    for step, row in [*first, *last]:
        if missing and last and step == last[0][0]:
            table.add_row("⋮", Text(f"{missing} steps left out", FAINT))
            table.add_section()
        for cells in _rows(step, row, tree, canvas, is_narrow):
            table.add_row(*cells)
        table.add_row()
    return table


def _rows(step: int, row: list[Branch], tree: Tree, canvas: Canvas, is_narrow: bool) -> Iterator[list[Text]]:
    standing, pruned = [b for b in row if b.stands], [b for b in row if not b.stands]
    shown = {*_some(standing, canvas.limit(_STANDING)), *_some(pruned, canvas.limit(_PRUNED))}
    shown = set(row) if len(shown) == len(row) - 1 else shown  # a line that says "1 more" is as long as the one
    number = str(step + 1)
    for branch in row:
        if branch in shown:
            yield _row(number, branch, tree, canvas, is_narrow)
            number = ""
    if len(shown) < len(row):
        rest = f"… {len(row) - len(shown)} more"
        yield [Text(), *([Text()] if tree.groups > 1 else []), Text(), Text(rest, FAINT)]


def _some(branches: list[Branch], limit: int | None) -> list[Branch]:
    """The results' branches, and the best others, within the limit."""
    return sorted(branches, key=lambda branch: (not branch.ranks, -branch.node.score))[:limit]


def _row(number: str, branch: Branch, tree: Tree, canvas: Canvas, is_narrow: bool) -> list[Text]:
    node, style = branch.node, _style(branch)
    rank = f" #{branch.ranks[0] + 1}" if branch.ranks else ""
    cells = [Text(number, FAINT), *([Text(str(branch.group + 1))] if tree.groups > 1 else [])]
    cells += [Text(f"{MARKS[node.fate]}{rank}", style), canvas.token(node.token, style)]
    cells += [Text(f"{node.log_probability:.3f}", style), Text(f"{node.score:.3f}", style)]
    if not is_narrow:
        room = canvas.width - 48
        way = f"{node.parent + 1}" if node.lane is None else f"{node.parent + 1}→{node.lane + 1}"
        text = canvas.tail(tuple(each.node.token for each in branch.way(room)), room)
        text.stylize(style)
        cells += [Text(way, style), text]
    return cells


def _standing(trace: Trace, tree: Tree, canvas: Canvas) -> Drawing:
    """The branches that stood, with unbranched runs of tokens on one line."""
    leaves = [b for row in tree.steps for b in row if b.stands and not any(child.stands for child in b.children)]
    limit = canvas.limit(_BRANCHES)
    losers = [leaf for leaf in leaves if not leaf.ranks]
    # The last ones to be pruned came closest.
    room = None if limit is None else max(limit - (len(leaves) - len(losers)), 0)
    kept = losers if room is None or len(losers) <= room else losers[len(losers) - room :]
    wanted = {branch for leaf in leaves if leaf.ranks or leaf in kept for branch in leaf.way()}
    root = Drawing(canvas.tail(trace.prompt, max(canvas.width - 4, 8)), guide_style=FAINT)
    waiting = [(root, branch) for branch in tree.roots if branch in wanted]
    while waiting:
        drawing, branch = waiting.pop(0)
        run = [branch]
        while len(children := [child for child in run[-1].children if child in wanted]) == 1:
            run.append(children[0])
        label = _label(run, bool(children), tree, canvas)
        below = drawing.add(label)
        waiting += [(below, child) for child in children]
    if len(kept) < len(losers):
        root.add(Text(f"… {len(losers) - len(kept)} more branches that were pruned", FAINT))
    return root


def _label(run: list[Branch], goes_on: bool, tree: Tree, canvas: Canvas) -> Text:
    last, style = run[-1], _style(run[-1])
    if last.ranks == [] and style == "":
        style = FAINT
    first, missing, end = folded([branch.node.token for branch in run], canvas.limit(_RUN))
    label = Text(isolated(canvas.texts.run(first)), style)
    if missing:
        label.append(f" … {missing} tokens … ", FAINT).append(isolated(canvas.texts.run(end)))
    ends = "".join(f" #{rank + 1}" for rank, leaf in enumerate(tree.leaves) if leaf is last)
    mark = "" if goes_on else f" {MARKS[last.node.fate] if ends or last.node.fate == 'finished' else MARKS['pruned']}"
    return label.append(f"  Σ {last.node.score:.3f}{mark}{ends}", "dim" if not ends else "bold")


def ranking(trace: Trace, tree: Tree, canvas: Canvas) -> Table:
    """The results, and how their scores come about."""
    table = listing("#", "Score", "= Σ log p / length^penalty", "End", "Text", right=("#", "Score"))
    table.columns[-1].overflow = "fold"
    if canvas.width < _NARROW:
        table.columns[2].header = "= Σ / n^penalty"
    for rank, each in enumerate(ranking_of(trace, tree), 1):
        text = Text(isolated(canvas.texts.text(each.result.tokens)))
        table.add_row(str(rank), f"{each.score:.4f}", each.formula, each.result.reason, text)
    return table
