"""A 5-gram model with modified Kneser-Ney smoothing over tokens, by KenLM: what the default model must beat.

KenLM (Heafield et al. 2013, "Scalable Modified Kneser-Ney Language Model Estimation") is needed by this script alone.
The module that scores needs cmake and a C++ compiler, the program that estimates (lmplz) Boost as well (on Debian
libboost-program-options-dev, libboost-system-dev, libboost-thread-dev):

    pip install kenlm==0.3.0
    pip download --no-deps --no-binary :all: kenlm==0.3.0 && tar xzf kenlm-0.3.0.tar.gz
    cmake -S kenlm-0.3.0 -B lm -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DBUILD_PYTHON=OFF && make -C lm lmplz

The events that are scored are those of the neural model: in a story all tokens of the text, given `<|endoftext|>`, and
`<|endoftext|>` at its end; in a conversation, as the chat template writes it, all tokens but the first, `<|user|>`.
KenLM's `<s>` and `</s>` stand for the ends of a document.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

ORDER = 5


class Model(Protocol):
    """What scores: `kenlm.Model`."""

    def full_scores(self, sentence: str) -> Iterable[tuple[float, int, bool]]:
        """For each word of a sentence and its end: the logarithm to base 10 of its probability, the length of the
        n-gram that was found, whether the word is unknown."""


@dataclass(frozen=True)
class Document:
    """Tokens; from which to which of its events (each token, then the end) are scored; the bytes of its text."""

    tokens: tuple[int, ...]
    first: int
    stop: int
    text_bytes: int


@dataclass(frozen=True)
class Score:
    """Sums over documents; `nats` is minus the natural logarithm of their probability."""

    documents: int
    events: int
    unknown: int
    text_bytes: int
    nats: float

    @property
    def figures(self) -> dict[str, float]:
        """With what follows from the sums."""
        return {
            **asdict(self),
            "perplexity": math.exp(self.nats / self.events),
            "bits_per_byte": self.nats / math.log(2) / self.text_bytes,
        }


def story(tokenizer: Any, text: str, with_end: bool = True) -> Document:
    """A story, every token of which is scored; `with_end` its end too."""
    tokens = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    return Document(tokens, 0, len(tokens) + with_end, len(text.encode()))


def conversation(tokenizer: Any, turns: Sequence[str]) -> Document:
    """A conversation of a user, who begins, and an assistant. The bytes are those of the turns, without the marks."""
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": turn} for place, turn in enumerate(turns)]
    tokens = tuple(tokenizer.apply_chat_template(messages))
    return Document(tokens, 1, len(tokens), sum(len(turn.encode()) for turn in turns))


def estimate(lmplz: Path, documents: Iterable[Document], arpa: Path, vocab_size: int, memory: str = "4G") -> None:
    """Write the model of the documents' tokens, a document a line, as an ARPA file."""
    command = [str(lmplz), "-o", str(ORDER), "-S", memory, "-T", str(arpa.parent / "sort"), "--arpa", str(arpa)]
    # Tokens that never occur share what is left for the unknown: the vocabulary with <unk>, <s> and </s>.
    command += ["--vocab_pad", str(vocab_size + 3)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as running, cast(IO[str], running.stdin) as lines:
        lines.writelines(f"{as_sentence(document)}\n" for document in documents)
    if running.returncode:
        raise SystemExit(f"{lmplz} ended with {running.returncode}.")


def as_sentence(document: Document) -> str:
    """The tokens as words."""
    return " ".join(map(str, document.tokens))


def score(model: Model, documents: Iterable[Document]) -> Score:
    """What the events of the documents cost."""
    number = events = unknown = text_bytes = 0
    costs: list[float] = []
    for document in documents:
        scored = list(model.full_scores(as_sentence(document)))[document.first : document.stop]
        number, events, text_bytes = number + 1, events + len(scored), text_bytes + document.text_bytes
        unknown += sum(out for _, _, out in scored)
        costs.append(-math.fsum(logarithm for logarithm, _, _ in scored) * math.log(10))
    return Score(number, events, unknown, text_bytes, math.fsum(costs))


def read_stories(path: Path) -> Iterator[str]:
    """The documents of a file, without the line ends around them."""
    for text in path.read_text(encoding="utf-8").split("<|endoftext|>\n"):
        if text.strip():
            yield text.strip("\n")


def read_conversations(path: Path) -> Iterator[list[str]]:
    """The turns of each conversation of a file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["turns"]
