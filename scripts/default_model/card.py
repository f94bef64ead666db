"""The models' cards: what they are, how they were made, what they can and cannot do; every figure is a measured one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from default_model.recipe import LENGTH, PACKS, STEPS
from default_model.samples import SEED, Sample

_CARD = """\
---
license: apache-2.0
language: en
library_name: loquent
pipeline_tag: text-generation
---

# The default model

A small Doge language model ({parameters:,} parameters) that continues stories in the manner of old children's books and
chats about films, music and sport in the manner of small talk. It comes with Loquent so that there is something to run
on any computer, at once and offline. Seeing the library work is what it is good for: **it knows nothing, invents
names and facts, cannot be told what to do, contradicts itself, and loses its thread within a few sentences.** Nothing
that it says is advice. It was not tuned to be harmless: expect the prejudices of its books about peoples, women and
animals.

    loquent generate "Once upon a time"
    loquent generate "Once upon a time" --assistant default-draft
    loquent chat

| bits per byte of held-out text (perplexity of a token) | stories | conversations |
|---|---|---|
| this model | **{stories[bits_per_byte]:.3f}** ({stories[perplexity]:.1f}) | **{talks[bits_per_byte]:.3f}** \
({talks[perplexity]:.1f}) |
| its draft, `default-draft` | {draft_stories[bits_per_byte]:.3f} ({draft_stories[perplexity]:.1f}) \
| {draft_talks[bits_per_byte]:.3f} ({draft_talks[perplexity]:.1f}) |
| 5-gram, modified Kneser-Ney (KenLM), of the same kind of text | {own_stories[bits_per_byte]:.3f} \
({own_stories[perplexity]:.1f}) | {own_talks[bits_per_byte]:.3f} ({own_talks[perplexity]:.1f}) |
| 5-gram, modified Kneser-Ney, of all text | {all_stories[bits_per_byte]:.3f} ({all_stories[perplexity]:.1f}) \
| {all_talks[bits_per_byte]:.3f} ({all_talks[perplexity]:.1f}) |

All learned from the same text with the same tokens and pay for the same {story_tokens:,} and {talk_tokens:,} tokens
({story_bytes:,} and {talk_bytes:,} bytes; ends of stories and of turns are paid for). The model needs
{less_stories:.1%} less than the better 5-gram for stories, and {less_talks:.1%} less for conversations. The figures are
in `metrics.json`.

## Data

- **Stories**: books from GITenberg, in the public domain in the USA (elsewhere some may not be, by their authors' years
  of death): tales, fables and children's novels in English, most of them a century old or more. Books are kept of whose
  words at least 84 % are among the 2,000 commonest of all; verse, headings, tables and repeated paragraphs are left
  out. {train_stories[documents]:,} documents, {train_stories[text_bytes]:,} bytes.
- **Conversations**: {train_talks[documents]:,}, {train_talks[text_bytes]:,} bytes, tidied, without garbled ones, code
  and long answers. From the Self-dialogue Corpus (BSD-3-Clause), the ChatterBot corpus (BSD-3-Clause), Taskmaster-4
  (Byrne and Ganesh, Google LLC; CC BY 4.0), CaSiNo (Chawla, Ramirez, Clever, Lucas, May and Gratch, NAACL 2021; CC BY
  4.0), and Open-Assistant's evaluation set (Apache-2.0).
- **Held out**: {held_stories[documents]:,} documents of whole books ({held_stories[text_bytes]:,} bytes) and
  {held_talks[documents]:,} conversations ({held_talks[text_bytes]:,} bytes), about 5 % of each, without copies of what
  is trained on.

The weights are under Apache-2.0. `scripts/prepare_default_corpus.py` makes the files from the raw data.

## Recipe

    python scripts/train_default_model.py --data ../shared/data/text --work build/default-model

- It runs `loquent tokenizer train` and `loquent train`, with the arguments in `scripts/default_model/recipe.py`, on a
  CPU; where it is stopped it goes on.
- Vocabulary: byte-level BPE, 8,192 tokens, learned from the training text. `<|endoftext|>` begins and ends documents;
  `<|system|>` and two spare tokens were never trained.
- Model: Doge, 8 layers of width 256, 4 heads (2 of keys and values), MLP of 704, embedding and head tied, attention
  over a window of 512 tokens.
- Training: {steps:,} steps of {packs} packs of {length} tokens ({tokens_read:,} tokens without padding, less than one
  reading of all text); Muon with AdamW at 0.006, warm-up over 60 steps, straight down to zero over the last 35 %;
  bfloat16 mixed precision; seed 1. Every turn of a conversation counts, the user's too.
- {how}
- The same seed gives the same model only with the same torch, processor and number of threads.
- Files: weights in bfloat16, computed in float32. The figures are those of these files.

![The loss of training and of held-out text by step](loss.png)

## As it came

Sampled as `generation_config.json` says, seed {seed}, not chosen: the first held-out stories, then three messages that
were written down before the model was trained.

{written}
"""

_DRAFT = """\
---
license: apache-2.0
language: en
library_name: loquent
pipeline_tag: text-generation
---

# The default model's draft

A Doge language model of {parameters:,} parameters with the tokenizer of Loquent's default model, for which it drafts:

    loquent generate "Once upon a time" --assistant default-draft

It learned from the same text by the same recipe (see the default model's card) in {tokens_read:,} tokens: 2 layers of
width 96. By itself it writes worse than the default model in every way. It shows speculation at work, and saves passes
of the model (1.8 tokens a pass in greedy search); it saves no time on a CPU, where a pass of so small a model costs
less than what drafting brings along (`benchmarks/draft.py`).

| bits per byte of held-out text (perplexity of a token) | stories | conversations |
|---|---|---|
| this model | {stories[bits_per_byte]:.3f} ({stories[perplexity]:.1f}) | {dialogues[bits_per_byte]:.3f} \
({dialogues[perplexity]:.1f}) |
"""


def model_card(
    figures: Mapping[str, Any], stories: Sequence[Sample], talks: Sequence[Sequence[Sample]], how: str
) -> str:
    """The default model's card; `how` says what was special about the run."""
    model, draft, corpus, ngrams = (figures[name] for name in ("default", "default-draft", "corpus", "kneser_ney"))
    own = {kind: ngrams[f"trained_on_{kind}"][kind] for kind in ("stories", "dialogues")}
    return _CARD.format(
        parameters=model["parameters"],
        stories=model["stories"],
        talks=model["dialogues"],
        draft_stories=draft["stories"],
        draft_talks=draft["dialogues"],
        own_stories=own["stories"],
        own_talks=own["dialogues"],
        all_stories=ngrams["trained_on_both"]["stories"],
        all_talks=ngrams["trained_on_both"]["dialogues"],
        story_tokens=model["stories"]["tokens"],
        talk_tokens=model["dialogues"]["tokens"],
        story_bytes=model["stories"]["text_bytes"],
        talk_bytes=model["dialogues"]["text_bytes"],
        less_stories=1 - model["stories"]["bits_per_byte"] / own["stories"]["bits_per_byte"],
        less_talks=1 - model["dialogues"]["bits_per_byte"] / own["dialogues"]["bits_per_byte"],
        train_stories=corpus["stories.train.txt"],
        held_stories=corpus["stories.held_out.txt"],
        train_talks=corpus["dialogues.train.jsonl"],
        held_talks=corpus["dialogues.held_out.jsonl"],
        steps=STEPS,
        packs=PACKS,
        length=LENGTH,
        tokens_read=model["tokens_read"],
        how=how,
        seed=SEED,
        written="\n\n---\n\n".join([*map(_story, stories), *map(_talk, talks)]),
    )


def draft_card(figures: Mapping[str, Any]) -> str:
    """The draft's card."""
    return _DRAFT.format(**figures["default-draft"])


def _story(sample: Sample) -> str:
    opening, written = sample
    paragraphs = f"**{opening}**{written}".strip().split("\n")
    return "\n>\n".join(f"> {paragraph}" for paragraph in paragraphs if paragraph.strip())


def _talk(exchanges: Sequence[Sample]) -> str:
    lines = [line for message, answer in exchanges for line in (f"> **{message}**", f"> {' '.join(answer.split())}")]
    return "\n>\n".join(lines)
