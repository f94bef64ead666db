"""What is measured: strategies by the arguments of `generate()`, the same for both libraries; runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROMPT, NEW = 64, 64
DRAFT_DEPTH = 2
"""How many layers of the damped model draft."""

CYCLE = 48
"""After how many tokens the copying model begins anew."""

NEVER = 50256
"""An end token for those who need one, which the copying model never writes."""


@dataclass(frozen=True, eq=False)
class Case:
    """One strategy, on one of the models; each is itself alone."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str = "plain"  # or "damped", "copying"
    draft: str | None = None  # the model that drafts
    batch: int = 1
    target: float | None = None  # times transformers
    peer: bool = True  # whether transformers can do it
    plain: bool = False  # what the other cases of its model and batch are compared with


def _diverse(groups: int) -> dict[str, Any]:
    return {"num_beams": 4, "num_beam_groups": groups, "diversity_penalty": 0.5}


STRATEGIES = (
    Case("greedy"),
    Case("sampling", {"do_sample": True, "top_k": 50, "top_p": 0.9}),
    Case("beams, 4", {"num_beams": 4}, target=2.0),
    Case("beam sampling, 4", {"num_beams": 4, "do_sample": True, "top_k": 50}),
    Case("diverse beams, 4 in 2 groups", _diverse(2)),
    Case("constrained beams, 4", {"num_beams": 4, "force_words_ids": [[101, 102], [103]]}),
    Case("contrastive, 4 candidates", {"penalty_alpha": 0.6, "top_k": 4}, target=2.0),
    Case("DoLa, high", {"dola_layers": "high"}),
    Case("DoLa, low", {"dola_layers": "low"}),
    Case("guidance", {"guidance_scale": 1.5}),
)

_LOOKUP = {"prompt_lookup_num_tokens": 10, "eos_token_id": NEVER}


def _speculation() -> tuple[Case, ...]:
    cases = []
    for batch in (1, 8):
        alone = batch == 1  # transformers speculates for one row alone
        cases += [
            Case("without drafts", model="damped", batch=batch, plain=True),
            Case("early exit", {"assistant_early_exit": DRAFT_DEPTH}, "damped", batch=batch, peer=False),
            Case("draft model", {}, "damped", draft="draft", batch=batch, peer=alone),
        ]
    for batch in (1, 8):
        cases += [
            Case("without drafts", {"eos_token_id": NEVER}, "copying", batch=batch, plain=True),
            Case("prompt lookup", _LOOKUP, "copying", batch=batch, peer=batch == 1),
        ]
    return tuple(cases)


SPECULATION = _speculation()
