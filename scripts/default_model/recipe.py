"""How the package's own models are made: the commands of Loquent, one after another, with their arguments."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SPECIAL = ("<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|spare0|>", "<|spare1|>")
STEPS, PACKS, LENGTH = 1500, 16, 512
MODELS = {"default": "model.json", "default-draft": "draft.json"}


@dataclass(frozen=True)
class Places:
    """Where everything is while the models are made."""

    work: Path

    @property
    def corpus(self) -> Path:
        """The clean text."""
        return self.work / "corpus"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer of both models."""
        return self.work / "tokenizer"

    def run(self, name: str) -> Path:
        """A model's checkpoints, history and curve."""
        return self.work / name

    def data(self, part: str) -> list[str]:
        """The files of a part of the corpus, as options without their prefix."""
        return [str(self.corpus / f"stories.{part}.txt"), str(self.corpus / f"dialogues.{part}.jsonl")]


def tokenizer_command(places: Places) -> list[str]:
    """What learns the tokenizer."""
    stories, dialogues = places.data("train")
    special = [argument for token in SPECIAL for argument in ("--special", token)]
    return [
        *("tokenizer", "train", "--text", stories, "--dialogues", dialogues, "--vocab-size", "8192", *special),
        *("--pad", "<|pad|>", "--add-bos", "--chat-template", str(HERE / "chat_template.jinja")),
        *("--model-max-length", "2048", "--out", str(places.tokenizer)),
    ]


def training_command(places: Places, name: str, threads: int) -> list[str]:
    """What trains a model, or goes on with it."""
    (stories, dialogues), (held_stories, held_dialogues) = places.data("train"), places.data("held_out")
    return [
        *("train", "--config", str(HERE / MODELS[name]), "--tokenizer", str(places.tokenizer)),
        *("--text", stories, "--dialogues", dialogues, "--all-turns"),
        *("--eval-text", held_stories, "--eval-dialogues", held_dialogues, "--eval-steps", "500"),
        *("--max-length", str(LENGTH), "--batch-size", str(PACKS), "--steps", str(STEPS)),
        *("--optim", "muon", "--lr", "6e-3", "--weight-decay", "0.05", "--adam-beta2", "0.98"),
        *("--schedule", "warmup_stable_decay", "--warmup-steps", "60", "--decay-ratio", "0.35"),
        *("--bf16", "--compile", "--threads", str(threads), "--seed", "1", "--save-steps", "50"),
        *("--out", str(places.run(name)), "--resume"),
    ]


def run(command: list[str]) -> None:
    """Run a command of Loquent, and stop with it if it fails."""
    print(f"$ {shlex.join(['loquent', *command])}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "loquent", *command], check=True)
