"""Streamers: whole characters and words, rows one after another, errors and early leaving across threads and tasks."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loquent.decoding.row_texts import split_words
from loquent.decoding.streaming import AsyncTextIteratorStreamer, TextIteratorStreamer, TextStreamer
from loquent.errors import ArgumentError, RequestCancelledError
from loquent.tokenization import AutoTokenizer, GPT2Tokenizer

TEXT = "One two\nthree: naïve 世界 🤗👩‍👩‍👧 end"


@pytest.fixture(scope="module", params=["tokenizers/gpt2", "models/stories260k"])
def tokenizer(request: pytest.FixtureRequest, shared_data: Path) -> Any:
    return AutoTokenizer.from_pretrained(shared_data / request.param)


def feed(streamer: Any, prompts: Sequence[Sequence[int]], steps: Sequence[Sequence[int]]) -> None:
    """What generate() does: prompts, then one token a row and step."""
    streamer.put(torch.tensor(prompts))
    for step in steps:
        streamer.put(torch.tensor(step))
    streamer.end()


class Recorder(TextStreamer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.calls: list[tuple[str, bool]] = []
        super().__init__(*args, **kwargs)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.calls.append((text, stream_end))


def test_one_row_prints_prompt_and_text_with_a_line_break(tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ids = tokenizer.encode(TEXT)
    feed(TextStreamer(tokenizer), [ids[:3]], [[token] for token in ids[3:]])
    assert capsys.readouterr().out == tokenizer.decode(ids) + "\n"


def test_pieces_are_whole_words_and_never_broken_characters(tokenizer: Any) -> None:
    ids = tokenizer.encode(TEXT)
    streamer = Recorder(tokenizer, skip_prompt=True)
    feed(streamer, [ids[:1]], [[token] for token in ids[1:]])
    pieces = [text for text, _ in streamer.calls]
    assert "".join(pieces) == tokenizer.decode(ids[1:])
    assert "\ufffd" not in "".join(pieces)
    assert [end for _, end in streamer.calls] == [False] * (len(pieces) - 1) + [True]
    for piece in pieces[:-1]:
        assert split_words(piece) == (piece, "")


def test_values_may_be_lists_arrays_or_tensors(tokenizer: Any) -> None:
    ids = tokenizer.encode(TEXT)
    seen = []
    for convert in (list, np.array, torch.tensor):
        streamer = Recorder(tokenizer)
        streamer.put(convert([ids[:2]]))
        streamer.put(convert(ids[2:3]))
        streamer.put(convert(ids[3:5]))  # several tokens of the one row at once
        streamer.put(convert([ids[5:]]))
        streamer.end()
        seen.append(streamer.calls)
    assert seen[0] == seen[1] == seen[2]
    assert "".join(text for text, _ in seen[0]) == tokenizer.decode(ids)


def test_a_streamer_serves_one_generation_after_another(tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ids = tokenizer.encode("Hello there")
    streamer = TextStreamer(tokenizer, skip_prompt=True)
    for _ in range(2):
        feed(streamer, [[ids[0]]], [[token] for token in ids])
    assert capsys.readouterr().out == (tokenizer.decode(ids) + "\n") * 2


def test_special_tokens_can_be_skipped(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = GPT2Tokenizer.from_pretrained(shared_data / "tokenizers/gpt2")
    ids = tokenizer.encode("Hi you")
    feed(TextStreamer(tokenizer, skip_special_tokens=True), [ids], [[tokenizer.eos_token_id]])
    assert capsys.readouterr().out == "Hi you\n"


def columns(rows: Sequence[Sequence[int]], pad: int) -> list[list[int]]:
    length = max(len(row) for row in rows)
    padded = [[*row, *[pad] * (length - len(row))] for row in rows]
    return [list(column) for column in zip(*padded)]


def test_several_rows_are_printed_one_after_another_and_the_first_live(tokenizer: Any) -> None:
    texts = ["first row of words", "second one", "the third row is the longest of all"]
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    steps = columns(rows, pad=0)
    streamer = Recorder(tokenizer, skip_prompt=True)
    streamer.put([[1], [1], [1]])
    printed_after_step = []
    for number, step in enumerate(steps):
        streamer.put(np.array(step))
        for row, ids in enumerate(rows):
            if len(ids) == number + 1:
                streamer.finish(row)
        printed_after_step.append("".join(text for text, _ in streamer.calls))
    streamer.end()
    decoded = [tokenizer.decode(row) for row in rows]
    assert "".join(text for text, _ in streamer.calls) == "\n".join(decoded)
    assert streamer.calls[-1][1]
    # While the first row runs only its words are out; when it is done the others' so far follow at once.
    done = max(len(rows[0]), len(rows[1])) - 1
    assert all(decoded[0].startswith(text) for text in printed_after_step[: len(rows[0]) - 1])
    assert printed_after_step[done].startswith(f"{decoded[0]}\n{decoded[1]}\n")


def test_padding_of_prompts_is_not_printed_in_a_batch(shared_data: Path) -> None:
    tokenizer = GPT2Tokenizer.from_pretrained(shared_data / "tokenizers/gpt2", pad_token="<|endoftext|>")
    tokenizer.padding_side = "left"
    prompts = tokenizer(["a much longer prompt", "short"], padding=True)["input_ids"]
    streamer = Recorder(tokenizer)
    feed(streamer, prompts, [[tokenizer.encode(" one")[0], tokenizer.encode(" two")[0]]])
    assert "".join(text for text, _ in streamer.calls) == "a much longer prompt one\nshort two"


def test_several_continuations_of_one_prompt_repeat_it(tokenizer: Any) -> None:
    prompt, [one, *_], [two, *_] = (
        tokenizer.encode(text, add_special_tokens=False) for text in ("Say it", "one", "two")
    )
    streamer = TextIteratorStreamer(tokenizer)
    feed(streamer, [prompt], [[one, two]])
    got = ["".join(column) for column in zip(*streamer)]
    assert got == [tokenizer.decode([*prompt, one]), tokenizer.decode([*prompt, two])]


def test_a_changed_number_of_rows_is_refused(tokenizer: Any) -> None:
    streamer = TextStreamer(tokenizer)
    streamer.put([[1], [2]])
    streamer.put([3, 4])
    with pytest.raises(ArgumentError, match="3 rows, after tokens of 2"):
        streamer.put([3, 4, 5])


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_iterator_hands_text_to_another_thread(tokenizer: Any) -> None:
    ids = tokenizer.encode(TEXT)
    streamer = TextIteratorStreamer(tokenizer, timeout=10)
    thread = in_thread(lambda: feed(streamer, [ids[:2]], [[token] for token in ids[2:]]))
    pieces = list(streamer)
    thread.join(10)
    assert len(pieces) > 3
    assert "".join(pieces) == tokenizer.decode(ids)


def test_iterator_gives_a_piece_a_row(tokenizer: Any) -> None:
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in ("a few words", "and many more of them")]
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=10)
    streamer.put([[1], [1]])
    for number, step in enumerate(columns(rows, pad=0)):
        streamer.put(step)
        for row, ids in enumerate(rows):
            if len(ids) == number + 1:
                streamer.finish(row)
    streamer.end()
    pieces = list(streamer)
    assert all(len(piece) == 2 for piece in pieces)
    assert ["".join(column) for column in zip(*pieces)] == [tokenizer.decode(row) for row in rows]


def test_an_error_reaches_the_iterating_thread_after_the_text_before_it(tokenizer: Any) -> None:
    ids = tokenizer.encode("some words here", add_special_tokens=False)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=10)
    streamer.put([[1]])
    streamer.put([ids])
    streamer.fail(ZeroDivisionError("inside"))
    iterator = iter(streamer)
    assert "some words " in next(iterator)
    with pytest.raises(ZeroDivisionError, match="inside"):
        next(iterator)


def test_waiting_too_long_raises_empty(tokenizer: Any) -> None:
    with pytest.raises(queue.Empty):
        next(TextIteratorStreamer(tokenizer, timeout=0.01))


@pytest.mark.parametrize("leave", ["break", "close", "with"])
def test_leaving_early_stops_the_producer(tokenizer: Any, leave: str) -> None:
    word = tokenizer.encode("word word ", add_special_tokens=False)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=10)
    stopped = threading.Event()

    def produce() -> None:
        streamer.put([[1]])
        try:
            while True:
                streamer.put([word])
        except RequestCancelledError:
            stopped.set()

    thread = in_thread(produce)
    if leave == "break":
        for _ in streamer:
            break
    elif leave == "close":
        next(streamer)
        streamer.close()
    else:
        with streamer:
            next(streamer)
    assert stopped.wait(10)
    thread.join(10)


def test_async_iterator(tokenizer: Any) -> None:
    ids = tokenizer.encode(TEXT)

    async def consume() -> list[Any]:
        streamer = AsyncTextIteratorStreamer(tokenizer, timeout=10)
        in_thread(lambda: feed(streamer, [ids[:2]], [[token] for token in ids[2:]]))
        return [piece async for piece in streamer]

    pieces = asyncio.run(consume())
    assert len(pieces) > 3
    assert "".join(pieces) == tokenizer.decode(ids)


def test_async_error_and_timeout(tokenizer: Any) -> None:
    async def consume() -> None:
        streamer = AsyncTextIteratorStreamer(tokenizer, timeout=0.01)
        with pytest.raises(TimeoutError, match=r"0\.01 seconds"):
            await streamer.__anext__()
        streamer.put([[1]])
        in_thread(lambda: streamer.fail(ZeroDivisionError("inside"))).join(10)
        with pytest.raises(ZeroDivisionError):
            await streamer.__anext__()

    asyncio.run(consume())


def test_an_async_consumer_that_is_cancelled_or_gone_stops_the_producer(tokenizer: Any) -> None:
    word = tokenizer.encode("word word ", add_special_tokens=False)
    kept = []

    async def consume() -> None:
        streamer = AsyncTextIteratorStreamer(tokenizer, skip_prompt=True)
        kept.append(streamer)
        streamer.put([[1]])

        async def read() -> None:
            async for _ in streamer:
                pass

        task = asyncio.create_task(read())
        streamer.put([word])
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(RequestCancelledError, match="consumer"):
            streamer.put([word])
        kept.append(AsyncTextIteratorStreamer(tokenizer))

    asyncio.run(consume())
    kept[1].put([[1]])
    with pytest.raises(RequestCancelledError, match="event loop"):
        kept[1].put([word])


@pytest.mark.parametrize(
    ("text", "words", "rest"),
    [
        ("", "", ""),
        ("abc", "", "abc"),
        ("ab cd", "ab ", "cd"),
        ("a\nb", "a\n", "b"),
        ("x世", "x世", ""),
        ("ไทย", "ไทย", ""),
    ],
)
def test_words(text: str, words: str, rest: str) -> None:
    assert split_words(text) == (words, rest)
