"""Traces made by hand, whose every number is known, and a tokenizer for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from loquent.decoding.task import Hypothesis
from loquent.decoding.trace import (
    Branched,
    Chosen,
    Contrast,
    Contrasted,
    Draft,
    Drafted,
    LayerChosen,
    Node,
    Trace,
)

WORDS = [" the", " cat", " dog", " sat", " ran", ".", "</s>", "\n"]
THE, CAT, DOG, SAT, RAN, DOT, END, BREAK = range(8)


class Tokenizer:
    """Ids to texts, and no more."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def decode(self, ids: list[int]) -> str:
        return "".join(self.words[token] if token < len(self.words) else "" for token in ids)


def trace_of(*events: Any, results: tuple[Hypothesis, ...], strategy: str = "one_by_one", **settings: Any) -> Trace:
    return Trace((THE,), "toy (by hand)", strategy, events, results, settings)


def kept(token: int, gain: float, score: float, parent: int, lane: int) -> Node:
    return Node(token=token, log_probability=gain, score=score, fate="kept", parent=parent, lane=lane)


def pruned(token: int, gain: float, score: float, parent: int = 0) -> Node:
    return Node(token=token, log_probability=gain, score=score, fate="pruned", parent=parent)


def ended(token: int, gain: float, score: float, parent: int) -> Node:
    return Node(token=token, log_probability=gain, score=score, fate="finished", parent=parent, reason="eos")


def two_beams() -> Trace:
    """The cat is ahead at first; the dog, from the lane behind, wins with a length penalty of 2."""
    return trace_of(
        Branched(0, (kept(CAT, -0.5, -0.5, 0, 0), kept(DOG, -1.0, -1.0, 0, 1), pruned(RAN, -3.0, -3.0))),
        Branched(1, (kept(RAN, -0.25, -1.25, 1, 0), ended(END, -1.0, -1.5, 0), kept(SAT, -1.5, -2.0, 0, 1),
                     pruned(RAN, -2.0, -2.5, 0))),
        Branched(2, (ended(END, -0.25, -1.5, 0), pruned(DOT, -4.0, -6.0, 1), pruned(DOT, -5.0, -6.25, 0))),
        results=(
            Hypothesis((DOG, RAN, END), "eos", -1.5 / 3**2),
            Hypothesis((CAT, END), "eos", -1.5 / 2**2),
        ),
        strategy="beam_search",
        num_beams=2,
        length_penalty=2.0,
    )  # fmt: skip


def two_groups() -> Trace:
    """Two groups of one beam each: the second finds the first's tokens, with a penalty on its score."""
    return trace_of(
        Branched(0, (kept(CAT, -0.5, -0.5, 0, 0), pruned(DOG, -1.0, -1.0))),
        Branched(0, (kept(DOG, -1.0, -1.0, 0, 1), pruned(CAT, -1.5, -1.5)), 1),
        Branched(1, (ended(END, -0.25, -0.75, 0),)),
        Branched(1, (ended(END, -0.5, -1.5, 1), pruned(DOT, -2.0, -3.0, 1)), 1),
        results=(Hypothesis((CAT, END), "eos", -0.375), Hypothesis((DOG, END), "eos", -0.75)),
        strategy="diverse_beam_search",
        num_beams=2,
        num_beam_groups=2,
    )


def one_by_one() -> Trace:
    """A sure token, a line break, an unlikely one."""
    line = [kept(CAT, -0.1, -0.1, 0, 0), kept(BREAK, -1.0, -1.1, 0, 0)]
    last = replace(ended(END, -4.0, -5.1, 0), reason="eos")
    return trace_of(
        Chosen(0, line[0], (pruned(DOG, -3.0, -3.0),)),
        Chosen(1, line[1], (pruned(SAT, -1.5, -1.6), pruned(RAN, -2.0, -2.1))),
        Chosen(2, last, (pruned(DOT, -0.05, -1.15),)),
        results=(Hypothesis((CAT, BREAK, END), "eos"),),
        do_sample=True,
    )


def drafted(token: int, fate: Any, confidence: float = 1.0) -> Draft:
    return Draft(token=token, log_probability=-0.7, score=-1.0, fate=fate, lane=0, confidence=confidence)


def speculated() -> Trace:
    """A token alone; two drafts that stand of three; one that falls."""
    return trace_of(
        Chosen(0, kept(CAT, -0.3, -0.3, 0, 0), (pruned(DOG, -2.0, -2.0),)),
        Drafted(
            1,
            (drafted(SAT, "kept"), drafted(DOT, "kept"), drafted(RAN, "rejected", 0.37)),
            kept(DOG, -0.2, -2.0, 0, 0),
            "lookup",
        ),
        Drafted(4, (drafted(CAT, "rejected", 0.5),), ended(END, -0.1, -2.1, 0), "lookup"),
        results=(Hypothesis((CAT, SAT, DOT, DOG, END), "eos"),),
        strategy="speculate",
        prompt_lookup_num_tokens=3,
    )


def contrastive() -> Trace:
    """The less probable candidate repeats less, and is kept."""
    rows = [(CAT, 0.6, 0.9, -0.3), (DOG, 0.3, 0.2, 0.06)]
    candidates = tuple(
        Contrast(
            token=token,
            log_probability=-1.0,
            score=-1.0,
            fate="finished" if token == DOG else "pruned",
            reason="length" if token == DOG else None,
            probability=probability,
            penalty=penalty,
            value=value,
        )
        for token, probability, penalty, value in rows
    )
    return trace_of(
        Contrasted(0, candidates),
        results=(Hypothesis((DOG,), "length"),),
        strategy="contrastive_search",
        penalty_alpha=0.6,
    )


def layered() -> Trace:
    """Layer 4 for the first token, layer 2 for the second."""
    return trace_of(
        LayerChosen(0, 4, ((2, 0.125), (4, 0.5))),
        Chosen(0, kept(CAT, -0.1, -0.1, 0, 0)),
        LayerChosen(1, 2, ((2, 0.75), (4, 0.25))),
        Chosen(1, ended(END, -0.2, -0.3, 0)),
        results=(Hypothesis((CAT, END), "eos"),),
        dola_layers=[2, 4],
    )


ALL = (two_beams, two_groups, one_by_one, speculated, contrastive, layered)
