"""Guards calls into the `tokenizers` library, which fails with plain exceptions or Rust panics; it computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer

from loquent.errors import LoquentError, TokenizerError

# The largest published tokenizer.json is under 40 MB.
MAX_FILE_BYTES = 512 << 20


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


def read_tokenizer_json(path: Path) -> Tokenizer:
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
        return Tokenizer.from_file(str(path))
