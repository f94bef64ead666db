"""Streamers: what `generate()` hands its new tokens to, printed or iterated over as text; they choose no tokens.

`generate(streamer=...)` takes any object with `put(value)` and `end()`: the first value is the prompts (rows, length),
each later one the next token of every row (rows,), and `end()` follows the last
(https://huggingface.co/docs/transformers/internal/generation_utils#transformers.TextStreamer). A `BaseStreamer` is also
told when a single row ends (`finish`) and when generating fails (`fail`).

Text is handed on word by word, and never taken back: a character of several tokens waits until it is whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from queue import Queue
from threading import Event
from types import TracebackType
from typing import TYPE_CHECKING, Any

from loquent.decoding.row_texts import RowTexts
from loquent.errors import RequestCancelledError

if TYPE_CHECKING:
    import asyncio


class BaseStreamer:
    """What every streamer of this module is; `finish` and `fail` need not be overridden."""

    def put(self, value: Any) -> None:
        """Take the prompts (first call) or the next tokens of all rows: a tensor, an array or a list."""
        raise NotImplementedError

    def end(self) -> None:
        """The last tokens have been put."""
        raise NotImplementedError

    def finish(self, row: int) -> None:
        """Row `row` has had its last token; what later puts hold for it is padding."""

    def fail(self, error: BaseException) -> None:
        """Generating failed, and `error` is about to be raised by `generate()`; `end()` will not be called."""


class TextStreamer(BaseStreamer):
    """Prints the text of `generate()` to stdout, word by word; several rows one after another, a line break between.

    Args:
        tokenizer: decodes the tokens.
        skip_prompt: whether to leave the prompt out.
        decode_kwargs: passed to the tokenizer's `decode`, such as `skip_special_tokens=True`.

    Override `on_finalized_text` to do something else with the text.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.decode_kwargs = decode_kwargs
        self._restart()

    def _restart(self) -> None:
        self._texts = RowTexts(self.tokenizer, self.skip_prompt, **self.decode_kwargs)
        self._waiting: list[str] = []  # per row: text whose turn has not come
        self._turn = 0

    def put(self, value: Any) -> None:
        self._hand_on(self._texts.put(value))

    def finish(self, row: int) -> None:
        self._hand_on(self._texts.finish(row))

    def end(self) -> None:
        pieces = self._texts.end()
        if len(pieces) > 1:
            self.on_finalized_rows(pieces, stream_end=True)
        else:
            self.on_finalized_text("".join(pieces), stream_end=True)
        self._restart()

    def fail(self, error: BaseException) -> None:
        # What is complete is printed, and the line ended before a traceback begins.
        self.end()

    def _hand_on(self, pieces: list[str]) -> None:
        if not any(pieces):
            return
        if len(pieces) > 1:
            self.on_finalized_rows(pieces)
        else:
            self.on_finalized_text(pieces[0])

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print `text`, which is final; at the end of the stream a line break too."""
        print(text, flush=True, end="\n" if stream_end else "")

    def on_finalized_rows(self, pieces: list[str], stream_end: bool = False) -> None:
        """Take a piece of text of each of several rows: the first unfinished row's goes on, the others' wait."""
        self._waiting = [old + new for old, new in zip(self._waiting or [""] * len(pieces), pieces, strict=True)]
        last = len(pieces) - 1
        while self._turn < last and (stream_end or self._texts.is_finished(self._turn)):
            self.on_finalized_text(self._taken(self._turn) + "\n")
            self._turn += 1
        if stream_end or self._waiting[self._turn]:
            self.on_finalized_text(self._taken(self._turn), stream_end)

    def _taken(self, row: int) -> str:
        text, self._waiting[row] = self._waiting[row], ""
        return text


class _Ended:
    """Stands in a queue for the end of the stream."""


_Item = str | list[str] | _Ended | BaseException


class _QueuedStreamer(TextStreamer):
    """What the iterator streamers have in common: pieces go to a queue, whose consumer may leave before the end."""

    def __init__(self, tokenizer: Any, skip_prompt: bool, timeout: float | None, **decode_kwargs: Any) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.timeout = timeout
        self._closed = Event()

    def put(self, value: Any) -> None:
        if self._closed.is_set():
            raise RequestCancelledError("the consumer of the stream has left it")
        super().put(value)

    def fail(self, error: BaseException) -> None:
        self._send(error)
        self._restart()

    def close(self) -> None:
        """Take no more: the generation that feeds this streamer stops at its next token."""
        self._closed.set()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Queue `text`, and the end of the stream after its last piece."""
        if text:
            self._send(text)
        if stream_end:
            self._send(_Ended())

    def on_finalized_rows(self, pieces: list[str], stream_end: bool = False) -> None:
        """Queue a list of one piece a row, and the end of the stream after the last."""
        if any(pieces):
            self._send(pieces)
        if stream_end:
            self._send(_Ended())

    def _send(self, item: _Item) -> None:
        raise NotImplementedError


class TextIteratorStreamer(_QueuedStreamer):
    """Hands the text of `generate()`, which runs in another thread, to the thread that iterates over the streamer.

    One row gives strings; several give lists of strings, one a row. An exception in `generate()` is raised in the
    iterating thread. Leaving the loop early, `close()`, or leaving a `with` block cancels the generation: its next
    `put` raises RequestCancelledError.

    Args:
        tokenizer, skip_prompt, decode_kwargs: as for `TextStreamer`.
        timeout: the longest wait for the next piece in seconds, after which `queue.Empty` is raised; None: no limit.
    """

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, timeout, **decode_kwargs)
        self._queue: Queue[_Item] = Queue()

    def _send(self, item: _Item) -> None:
        self._queue.put(item)

    def __iter__(self) -> Iterator[str | list[str]]:
        try:
            while True:
                try:
                    piece = next(self)
                except StopIteration:
                    return
                yield piece
        except GeneratorExit:
            self.close()
            raise

    def __next__(self) -> str | list[str]:
        return _piece(self._queue.get(timeout=self.timeout), StopIteration)

    def __enter__(self) -> TextIteratorStreamer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncTextIteratorStreamer(_QueuedStreamer):
    """Hands the text of `generate()`, which runs in another thread, to the coroutine that iterates over the streamer.

    As `TextIteratorStreamer`, with `async for` and `async with`. It is made inside a coroutine, whose event loop it
    belongs to.

    Args:
        tokenizer, skip_prompt, decode_kwargs: as for `TextStreamer`.
        timeout: the longest wait for the next piece in seconds, after which TimeoutError is raised; None: no limit.

    Raises:
        RuntimeError: it is made where no event loop runs.
    """

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        import asyncio  # costs more than the rest of this package's imports, and few programs need it

        super().__init__(tokenizer, skip_prompt, timeout, **decode_kwargs)
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[_Item] = asyncio.Queue()

    def _send(self, item: _Item) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError as error:
            raise RequestCancelledError("the event loop of the stream's consumer has been closed") from error

    async def __aiter__(self) -> AsyncIterator[str | list[str]]:
        import asyncio

        try:
            while True:
                try:
                    piece = await self.__anext__()
                except StopAsyncIteration:
                    return
                yield piece
        except (GeneratorExit, asyncio.CancelledError):
            self.close()
            raise

    async def __anext__(self) -> str | list[str]:
        import asyncio

        try:
            item = await asyncio.wait_for(self._queue.get(), self.timeout)
        except asyncio.TimeoutError as error:
            raise TimeoutError(f"no text for {self.timeout} seconds") from error
        return _piece(item, StopAsyncIteration)

    async def __aenter__(self) -> AsyncTextIteratorStreamer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _piece(item: _Item, stop: type[Exception]) -> str | list[str]:
    """What a queue gave, if it is text; otherwise it is raised: `stop` for the end of the stream."""
    if isinstance(item, _Ended):
        raise stop
    if isinstance(item, BaseException):
        raise item
    return item
