"""Which tensor of a checkpoint fills which part of which parameter; finds everything that does not fit at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loquent.hub.report import LoadReport
from loquent.names import NameTable, Piece, Shape

_HEAD = "head."


@dataclass(frozen=True)
class Match:
    """A checkpoint tensor by the name it has there, and the piece that says what it fills."""

    theirs: str
    piece: Piece


def match_tensors(
    table: NameTable,
    prefix: str,
    wanted: Mapping[str, Shape],
    present: Mapping[str, Shape],
    *,
    headless: bool = False,
) -> tuple[list[Match], LoadReport]:
    """Find the tensors for all `wanted` canonical ones among those `present` in a checkpoint, and what does not fit.

    Pieces of the base model are looked for with the prefix of models with heads, then without. Present tensors that are
    pieces of nothing wanted (a head that is tied) or that the table drops are left alone. A `headless` model leaves
    alone whatever head the checkpoint has: all that is not under the prefix.
    """
    matches, report = [], LoadReport()
    known = set()
    for piece in table.pieces:
        names = [piece.theirs] if piece.ours.startswith(_HEAD) else [f"{prefix}.{piece.theirs}", piece.theirs]
        known.update(names)
        if piece.ours not in wanted:
            continue
        found = next((name for name in names if name in present), None)
        shape = piece.shape_of_theirs(wanted[piece.ours])
        if found is None:
            report.missing.append(names[0])
        elif tuple(present[found]) != tuple(shape):
            report.mismatched.append((found, tuple(present[found]), tuple(shape)))
        else:
            matches.append(Match(found, piece))
    only_prefixed = headless and any(name.startswith(f"{prefix}.") for name in present)
    for name in present:
        base_name = name.removeprefix(f"{prefix}.")
        other_head = only_prefixed and base_name == name
        if name not in known and not other_head and not table.drops(name) and not table.drops(base_name):
            report.unexpected.append(name)
    return matches, report
