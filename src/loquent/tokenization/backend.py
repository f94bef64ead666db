"""What is used of the `tokenizers` library: its types, which it does not state, and its failures; computes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tokenizers import AddedToken, Tokenizer

from loquent.errors import LoquentError, TokenizerError

# The largest published tokenizer.json is under 40 MB.
MAX_FILE_BYTES = 512 << 20


class Encoding(Protocol):
    """A `tokenizers.Encoding`: one row, and where its tokens came from."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def tokens(self) -> list[str]: ...
    @property
    def word_ids(self) -> list[int | None]: ...
    @property
    def sequence_ids(self) -> list[int | None]: ...
    @property
    def n_sequences(self) -> int: ...
    @property
    def overflowing(self) -> list[Encoding]: ...
    def token_to_sequence(self, token: int) -> int | None: ...
    def token_to_word(self, token: int) -> Any: ...
    def token_to_chars(self, token: int) -> Any: ...
    def word_to_tokens(self, word: int, sequence: int) -> tuple[int, int] | None: ...
    def word_to_chars(self, word: int, sequence: int) -> tuple[int, int] | None: ...
    def char_to_token(self, char: int, sequence: int) -> int | None: ...
    def char_to_word(self, char: int, sequence: int) -> int | None: ...


class Backend(Protocol):
    """A `tokenizers.Tokenizer`."""

    model: Any
    normalizer: Any
    pre_tokenizer: Any
    post_processor: Any
    decoder: Any
    encode_special_tokens: bool

    @property
    def truncation(self) -> dict[str, Any] | None: ...
    @property
    def padding(self) -> dict[str, Any] | None: ...
    def enable_truncation(self, max_length: int, *, stride: int, strategy: str, direction: str) -> None: ...
    def no_truncation(self) -> None: ...
    def enable_padding(self, **lengths: Any) -> None: ...
    def no_padding(self) -> None: ...
    def encode_batch(
        self, input: Sequence[Any], *, is_pretokenized: bool, add_special_tokens: bool
    ) -> list[Encoding]: ...
    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...
    def token_to_id(self, token: str) -> int | None: ...
    def id_to_token(self, id: int) -> str | None: ...
    def add_tokens(self, tokens: Sequence[str | AddedToken]) -> int: ...
    def add_special_tokens(self, tokens: Sequence[str | AddedToken]) -> int: ...
    def get_added_tokens_decoder(self) -> dict[int, AddedToken]: ...
    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]: ...
    def get_vocab_size(self, with_added_tokens: bool = True) -> int: ...
    def num_special_tokens_to_add(self, is_pair: bool) -> int: ...
    def save(self, path: str) -> None: ...
    def to_str(self) -> str: ...


@contextmanager
def library_errors(doing: str) -> Iterator[None]:
    """Turn whatever the library raises into a TokenizerError that says what was being done."""
    try:
        yield
    except LoquentError:
        raise
    except BaseException as error:
        # A panic arrives as an exception outside of Python's Exception, of a class that cannot be imported.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise TokenizerError(f"{doing}: {error}") from error
        raise


def read_tokenizer_json(path: Path) -> Backend:
    """The tokenizer that a tokenizer.json describes.

    Raises:
        TokenizerError: the file is missing, damaged, or needs a newer `tokenizers`.
    """
    if not path.is_file():
        raise TokenizerError(f"tokenizer_file={str(path)!r} is not a file.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise TokenizerError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, which no tokenizer is.")
    with library_errors(
        f"{path} is not a tokenizer.json that the installed `tokenizers` can read. Download it again (a file of a few "
        "hundred bytes is a Git LFS pointer), or upgrade `tokenizers`. The library says"
    ):
        tokenizer: Backend = Tokenizer.from_file(str(path))
    return tokenizer
