"""What the default model's draft gains: tokens per second with and without it, in turns.

    python benchmarks/draft.py                     # a minute or two
    python benchmarks/draft.py --rounds 9 --precisions float32 int8

Each turn continues the same openings of tales by 200 tokens, greedily or drawn with the same seed, first without and
then with `default-draft`. "stood" is the share of drafted tokens that did. Needs loquent alone.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

import loquent
from loquent.decoding.trace import Drafted

OPENINGS = (
    "Once upon a time there was a king who",
    "The old woman looked at the little boy and said,",
    "In the middle of the forest stood a house",
    '"Where are you going?" asked the fox.',
    "The princess had never seen the sea",
    "Early in the morning the brothers set out",
    "There lived in a village a poor tailor",
    "When the giant heard this he laughed",
)
NEW = 200


def speed(model: Any, openings: list[str], **options: Any) -> float:
    """Tokens of all rows per second."""
    started = time.perf_counter()
    tokens = sum(event.tokens for event in model.events(openings, min_new_tokens=NEW, max_new_tokens=NEW, **options))
    return tokens / (time.perf_counter() - started)


def stood(model: Any, openings: list[str], **options: Any) -> tuple[float, float]:
    """The share of drafted tokens that stood, and tokens for each pass of the model."""
    events = [
        event
        for news in model.events(openings, max_new_tokens=NEW, output_trace=True, **options)
        for event in news.trace
        if isinstance(event, Drafted)
    ]
    drafts, accepted = sum(len(event.drafts) for event in events), sum(event.accepted for event in events)
    return accepted / max(1, drafts), 1 + accepted / max(1, len(events))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16", "int8"])
    args = parser.parse_args()
    table = Table("precision", "rows", "how", "without", "with", "ratio", "stood", "tokens / pass")
    for precision in args.precisions:
        model, draft = (loquent.load(name, precision=precision) for name in ("default", "default-draft"))
        for rows in (1, len(OPENINGS)):
            for name, options in (("greedy", {"do_sample": False}), ("drawn", {"do_sample": True, "seed": 1})):
                openings = list(OPENINGS[:rows])
                drafting = {**options, "assistant_model": draft.model}
                pairs = []
                for turn in range(args.rounds + 1):
                    pair = speed(model, openings, **options), speed(model, openings, **drafting)
                    pairs += [pair] if turn else []
                share, each = stood(model, openings, **drafting)
                without, beside = median(one for one, _ in pairs), median(other for _, other in pairs)
                ratio = median(other / one for one, other in pairs)
                table.add_row(
                    *(precision, str(rows), name, f"{without:,.0f}", f"{beside:,.0f}", f"{ratio:.2f}x"),
                    *(f"{share:.0%}", f"{each:.1f}"),
                )
    Console().print(table)


if __name__ == "__main__":
    main()
