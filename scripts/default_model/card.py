"""The default model's card: what it is, how it was made, what it can and cannot do; every figure is a measured one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from default_model.evaluation import SAMPLE_SEED
from default_model.training import Recipe

_SHOWN = 5

_CARD = """\
---
license: apache-2.0
language: en
library_name: loquent
pipeline_tag: text-generation
---

# The default model

A small Doge language model ({parameters:,} parameters) that writes English in the manner of old children's stories. It
comes with Loquent so that there is something to run on any computer, at once and offline. Seeing the library work is
all it is good for: **it knows nothing, answers no questions, follows no instructions, and loses its thread within a few
sentences.**

| measured on held-out books | bits per byte |
|---|---|
| this model | **{bits_per_byte}** |
| 3-gram of the same tokens, interpolated Kneser-Ney | {token_trigram_bits_per_byte} |
| 3-gram of bytes, interpolated Kneser-Ney | {byte_trigram_bits_per_byte} |

All three learned from the same text and pay for the same {held_out_tokens:,} tokens ({held_out_bytes:,} bytes;
document ends are paid for too). After {written_texts} openings from the held-out books the model wrote
{written_words:,} words, sampled as `generation_config.json` says. {known_words:.1%} of them occur in its training text
({known_different_words:.1%} counting each different word once); of the held-out books' own words
{held_out_known_words:.1%} do. The figures are in `metrics.json`.

## Text

Books from GITenberg, in the public domain in the USA (elsewhere some may not be, by their authors' years of death):
tales, fables and children's novels in English, most of them a century old or more. Of 178 books those are kept of
whose words at least 86% are among the 2,000 commonest of all. Verse, headings, tables, and longer paragraphs that
occurred before are left out, speech is put in double quotes; a document is a tale or a chapter, with one line a
paragraph. Every fortieth book that is kept, three in all, is held out whole, and no paragraph of 60 characters or more
in them is in the training text. Retellings of one tale in other words may be. What is left to train on is
{train_documents:,} documents, {train_bytes:,} bytes, {train_tokens:,} tokens.

The text is of its time, and so is what the model writes: expect its prejudices about peoples, women and animals.

## Recipe

    python scripts/train_default_model.py --text ../shared/data/text/stories.txt.xz --out src/loquent/models/default

- Vocabulary: byte-level BPE, {vocabulary:,} tokens, learned from the training text. `<|endoftext|>` begins and ends
  documents; `<|system|>`, `<|user|>`, `<|assistant|>`, `<|end|>` and two spare tokens were never trained.
- Model: Doge, {layers} layers of width {width}, {heads} heads, MLP of {mlp_width}, embedding and head tied, attention
  over a window of {length} tokens (so that texts longer than the sequences in training do not fall apart).
- Training: {steps:,} steps of {rows} sequences of {length} tokens ({seen:,} tokens), cut at the starts of paragraphs
  where one is near; Muon at {matrix_rate} for matrices, AdamW at {rate} for the rest, warm-up over {warm_up} steps,
  straight down to zero over the last {decay:.0%}; bfloat16 autocast; seed {seed}. It took {minutes} minutes on a
  two-core computer that was busy with other work. The same seed gives the same model only with the same torch,
  processor and number of threads.
- Files: weights in bfloat16, computed in float32. The figures are those of these files.

## As it came

The first {shown} of the {written_texts}, not chosen (seed {sample_seed} and counting). The opening is the book's.

{samples}
"""


def model_card(
    figures: Mapping[str, float | int], recipe: Recipe, samples: Sequence[tuple[str, str]], shown: int = _SHOWN
) -> str:
    """The card as Markdown."""
    quoted = "\n\n---\n\n".join(_quote(prompt, text) for prompt, text in samples[:shown])
    return _CARD.format(
        **figures,
        **vars(recipe),
        seen=recipe.steps * recipe.rows * recipe.length,
        minutes=round(figures["training_seconds"] / 60),
        shown=shown,
        sample_seed=SAMPLE_SEED,
        samples=quoted,
    )


def _quote(prompt: str, text: str) -> str:
    lines = f"**{prompt}**{text}".split("\n")
    return "\n>\n".join(f"> {line}" for line in lines)
