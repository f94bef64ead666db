"""What the baseline counts: the events of documents, their bytes, and sums of a library's scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loquent.tokenization import train_tokenizer

SCRIPTS = Path(__file__).parents[2] / "scripts"
TEMPLATE = (SCRIPTS / "default_model" / "chat_template.jinja").read_text(encoding="utf-8")
MARKS = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]

# A back-off model over the words 7 and 8: logarithms to base 10 of a probability, and of what backing off costs.
NGRAMS = {
    "<unk>": (-2.0, 0.0),
    "<s>": (0.0, -0.3),
    "</s>": (-1.0, 0.0),
    "7": (-0.5, -0.2),
    "8": (-0.7, -0.1),
    "<s> 7": (-0.25, -0.05),
    "7 8": (-0.35, -0.15),
    "8 </s>": (-0.45, 0.0),
    "<s> 7 8": (-0.125, 0.0),
}


@pytest.fixture(autouse=True)
def scripts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield


class BackingOff:
    """Scores by the rule of ARPA files: the longest n-gram that is there, and what it costs to shorten the context."""

    def full_scores(self, sentence: str) -> Iterator[tuple[float, int, bool]]:
        words = ["<s>", *(word if word in NGRAMS else "<unk>" for word in sentence.split()), "</s>"]
        for place in range(1, len(words)):
            for length in range(min(3, place + 1), 0, -1):
                found = NGRAMS.get(" ".join(words[place + 1 - length : place + 1]))
                if found is not None:
                    contexts = (" ".join(words[first:place]) for first in range(max(0, place - 2), place + 1 - length))
                    cost = sum(NGRAMS[context][1] for context in contexts if context in NGRAMS)
                    yield found[0] + cost, length, words[place] == "<unk>"
                    break


def test_the_sum_is_over_the_events_that_count() -> None:
    from default_model.kneser_ney import Document, score

    # 7 behind <s>; 8 behind <s> 7; an unknown word behind 7 8; the end behind an unknown word.
    logarithms = [-0.25, -0.125, -2.0 - 0.15 - 0.1, -1.0]
    whole, inside = Document((7, 8, 9), 0, 4, 10), Document((7, 8, 9), 1, 3, 6)
    found = score(BackingOff(), [whole, inside])
    expected = -math.log(10) * (sum(logarithms) + sum(logarithms[1:3]))
    assert found.nats == pytest.approx(expected)
    assert (found.documents, found.events, found.unknown, found.text_bytes) == (2, 6, 2, 16)
    assert found.figures["perplexity"] == pytest.approx(math.exp(expected / 6))
    assert found.figures["bits_per_byte"] == pytest.approx(expected / math.log(2) / 16)


def test_the_library_scores_so_too(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm", reason="KenLM is for scripts/measure_kneser_ney.py alone")
    lines = ["\\data\\"]
    orders = [[ngram for ngram in NGRAMS if ngram.count(" ") == length] for length in range(3)]
    lines += [f"ngram {length}={len(ngrams)}" for length, ngrams in enumerate(orders, start=1)]
    for length, ngrams in enumerate(orders, start=1):
        lines += ["", f"\\{length}-grams:"]
        lines += ["\t".join([str(NGRAMS[one][0]), one, *[str(NGRAMS[one][1])] * (length < 3)]) for one in ngrams]
    (tmp_path / "small.arpa").write_text("\n".join([*lines, "", "\\end\\", ""]))
    model = kenlm.Model(str(tmp_path / "small.arpa"))
    for sentence in ("", "7", "8 8", "7 8 9", "9 9 7 8 7 8 8"):
        theirs, ours = list(model.full_scores(sentence)), list(BackingOff().full_scores(sentence))
        assert [one[1:] for one in theirs if not one[2]] == [one[1:] for one in ours if not one[2]]
        assert [one[0] for one in theirs] == pytest.approx([one[0] for one in ours], abs=1e-5)


def test_a_storys_end_counts_and_a_conversations_first_mark_does_not() -> None:
    from default_model.kneser_ney import conversation, story

    tokenizer: Any = train_tokenizer(["é"], 300, special_tokens=MARKS, chat_template=TEMPLATE, add_bos_token=True)
    told = story(tokenizer, "aé")
    assert len(told.tokens) == 3
    assert (told.first, told.stop, told.text_bytes) == (0, 4, 3)
    assert story(tokenizer, "aé", with_end=False).stop == 3
    talked = conversation(tokenizer, ["a", "é", "bc"])
    assert tokenizer.decode(talked.tokens) == "<|user|>a<|end|><|assistant|>é<|end|><|user|>bc<|end|>"
    assert (talked.first, talked.stop, talked.text_bytes) == (1, len(talked.tokens), 5)


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    from default_model.kneser_ney import read_conversations, read_stories

    (tmp_path / "stories.txt").write_text("a\nb\n<|endoftext|>\nc\n", encoding="utf-8")
    (tmp_path / "talks.jsonl").write_text('{"turns": ["a", "b"]}\n{"turns": ["c"]}\n', encoding="utf-8")
    assert list(read_stories(tmp_path / "stories.txt")) == ["a\nb", "c"]
    assert list(read_conversations(tmp_path / "talks.jsonl")) == [["a", "b"], ["c"]]
