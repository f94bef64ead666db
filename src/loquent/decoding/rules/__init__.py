"""Rules on scores, written once for every array library; `apply_rules` runs the rows of all requests through theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loquent.decoding.arrays import Array, beside
from loquent.decoding.rules.allowed import AllowedTokens
from loquent.decoding.rules.bad_words import BadWords
from loquent.decoding.rules.base import Context, Rule
from loquent.decoding.rules.custom import Custom
from loquent.decoding.rules.decay import ExponentialDecay
from loquent.decoding.rules.dry import DRY
from loquent.decoding.rules.encoder_ngrams import EncoderNoRepeatNgrams
from loquent.decoding.rules.encoder_repetition import EncoderRepetitionPenalty
from loquent.decoding.rules.epsilon import Epsilon
from loquent.decoding.rules.eta import Eta
from loquent.decoding.rules.forced import ForcedBegin, ForcedEnd
from loquent.decoding.rules.frequency import FrequencyPresence
from loquent.decoding.rules.grammar import Grammar
from loquent.decoding.rules.green_list import GreenList
from loquent.decoding.rules.healing import Heal
from loquent.decoding.rules.invalid import RemoveInvalid
from loquent.decoding.rules.min_p import MinP
from loquent.decoding.rules.mirostat import Mirostat
from loquent.decoding.rules.ngrams import NoRepeatNgrams
from loquent.decoding.rules.prefix_allowed import PrefixAllowed
from loquent.decoding.rules.renormalize import Renormalize
from loquent.decoding.rules.repetition import RepetitionPenalty
from loquent.decoding.rules.sequence_bias import SequenceBias
from loquent.decoding.rules.suppressed import MinLength, Suppress, SuppressAtBegin
from loquent.decoding.rules.synthid import SynthID
from loquent.decoding.rules.temperature import Temperature
from loquent.decoding.rules.top_h import TopH
from loquent.decoding.rules.top_k import TopK
from loquent.decoding.rules.top_n_sigma import TopNSigma
from loquent.decoding.rules.top_p import TopP
from loquent.decoding.rules.typical import Typical
from loquent.decoding.rules.xtc import XTC

ORDER: tuple[type[Rule], ...] = (
    *(SequenceBias, EncoderRepetitionPenalty, RepetitionPenalty, FrequencyPresence, DRY),
    *(NoRepeatNgrams, EncoderNoRepeatNgrams, BadWords, AllowedTokens, MinLength, PrefixAllowed),
    *(ForcedBegin, ForcedEnd, RemoveInvalid, ExponentialDecay, Suppress, SuppressAtBegin),
    Custom,
    *(Heal, Grammar),  # behind all that bans or forces tokens, so that nothing puts one back
    *(TopNSigma, Temperature, TopH, TopK, TopP, MinP, Typical, Epsilon, Eta, XTC, Mirostat),
    *(GreenList, SynthID, Renormalize),
)
"""The order in which rules act, whatever the order in which they were given.

It is transformers' (top-H: transformers 5's). What transformers has not stands where the peers it comes from have it:
logit bias is a sequence bias; the frequency and presence penalties follow the repetition penalty (vLLM, llama.cpp), and
DRY follows these (llama.cpp, text-generation-webui). Top-n-sigma leaves the same tokens at every temperature; it stands
before it, among logits of which no other rule has cut any. XTC chooses among what the truncating rules have left, at
the temperature that they saw, as in text-generation-webui (llama.cpp truncates first and applies the temperature last).
Mirostat comes last of those that truncate, and for a request takes the place of the others. Marks are made in what is
then drawn from.
"""

__all__ = [
    "DRY",
    "ORDER",
    "XTC",
    "AllowedTokens",
    "BadWords",
    "Context",
    "Custom",
    "EncoderNoRepeatNgrams",
    "EncoderRepetitionPenalty",
    "Epsilon",
    "Eta",
    "ExponentialDecay",
    "ForcedBegin",
    "ForcedEnd",
    "FrequencyPresence",
    "Grammar",
    "GreenList",
    "Heal",
    "MinLength",
    "MinP",
    "Mirostat",
    "NoRepeatNgrams",
    "PrefixAllowed",
    "RemoveInvalid",
    "Renormalize",
    "RepetitionPenalty",
    "Rule",
    "SequenceBias",
    "Suppress",
    "SuppressAtBegin",
    "SynthID",
    "Temperature",
    "TopH",
    "TopK",
    "TopNSigma",
    "TopP",
    "Typical",
    "apply_rules",
]


def apply_rules(scores: Array, rules: Sequence[tuple[Rule, ...]], contexts: Sequence[Context]) -> Array:
    """The scores (rows, vocabulary) after each row's own rules; a row has at most one rule of a kind.

    Each kind acts once, on all rows that have it. `scores` may be changed in place.
    """
    present = {type(rule) for row in rules for rule in row}
    for kind in ORDER:
        if kind not in present:
            continue
        chosen = [(row, rule) for row, own in enumerate(rules) for rule in own if type(rule) is kind]
        rows = [row for row, _ in chosen]
        settings, seen = [rule for _, rule in chosen], [contexts[row] for row in rows]
        with np.errstate(invalid="ignore"):  # where nothing is left of a row: its request is told so
            if len(rows) == len(rules):
                scores = kind.apply(scores, settings, seen)
            else:
                index = beside(scores, rows)
                scores[index] = kind.apply(scores[index], settings, seen)
    return scores
