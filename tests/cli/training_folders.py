"""Small files for tests of `loquent train`: texts, conversations, a tokenizer learned from them, and a config."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from loquent.tokenization.training import train_tokenizer

WORDS = "the cat dog king queen went to a house and saw red green small big bird that sang in tree by sea"
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def sentences(count: int, seed: int) -> list[str]:
    choose, words = random.Random(seed), WORDS.split()
    return [" ".join(choose.choices(words, k=choose.randint(4, 12))) + "." for _ in range(count)]


def make_folder(folder: Path) -> Path:
    """story.txt, talks.jsonl, tokenizer/, config.json and a model/ that was made of them."""
    folder.mkdir(parents=True, exist_ok=True)
    texts, answers = sentences(60, 1), sentences(60, 2)
    (folder / "story.txt").write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    turns = [{"turns": [text, answer, text]} for text, answer in zip(texts, answers)]
    (folder / "talks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in turns), encoding="utf-8")
    tokenizer = train_tokenizer(texts, 300, special_tokens=["<|user|>", "<|assistant|>"], chat_template=TEMPLATE)
    tokenizer.save_pretrained(folder / "tokenizer")
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = {"model_type": "llama", "vocab_size": 320, **shape, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}), encoding="utf-8")
    return folder


def scratch(folder: Path, out: Path, *more: str, text: bool = True) -> list[str]:
    """The arguments of a run from scratch: thirty steps in float32."""
    data = ["--text", str(folder / "story.txt")] if text else ["--dialogues", str(folder / "talks.jsonl")]
    model = ["--config", str(folder / "config.json"), "--tokenizer", str(folder / "tokenizer")]
    size = ["--max-length", "32", "--batch-size", "2", "--steps", "30", "--lr", "0.01", "--logging-steps", "1"]
    return ["train", *data, *model, *size, "--no-bf16", "--threads", "1", "--out", str(out), *more]


def history(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "training.jsonl").read_text(encoding="utf-8").splitlines()]


def by_step(out: Path, event: str = "stepped") -> list[tuple[int, float]]:
    """The steps and losses of one kind of event."""
    return [(line["step"], line["loss"]) for line in history(out) if line["event"] == event]
