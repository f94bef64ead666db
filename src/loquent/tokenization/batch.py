"""What a tokenizer returns: named lists or tensors with the encodings they came from; it computes no ids itself."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loquent.errors import ArgumentError, MissingExtraError

if TYPE_CHECKING:
    from loquent.tokenization.backend import Encoding


class BatchEncoding(UserDict[str, Any]):
    """A dictionary of `input_ids`, `attention_mask`, ... whose entries are attributes too.

    Values are lists (one sequence), lists of lists (a batch), or tensors of shape (batch, length).
    API: https://huggingface.co/docs/transformers/main_classes/tokenizer#transformers.BatchEncoding

    Args:
        data: the named lists.
        encoding: the `tokenizers.Encoding` of each row, which answers questions about characters and words.
        tensor_type: "pt", "np" or "jax" turns the lists into tensors; None leaves them.
        prepend_batch_axis: with a tensor type, wraps each value as a batch of one.
        n_sequences: how many texts each row was made of, where no encoding tells.

    Raises:
        ArgumentError: rows of different lengths cannot become a tensor, or the tensor type is unknown.
        MissingExtraError: the tensor library is not installed.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encoding: Encoding | Sequence[Encoding] | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
        n_sequences: int | None = None,
    ) -> None:
        super().__init__(data or {})
        if encoding is not None and not isinstance(encoding, Sequence):
            encoding = [encoding]
        self._encodings: list[Encoding] | None = None if encoding is None else list(encoding)
        self._n_sequences = n_sequences
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getitem__(self, key: Any) -> Any:
        """The named value; the encoding of a row for an integer; every value sliced for a slice."""
        if isinstance(key, str):
            return self.data[key]
        if self._encodings is not None:
            return self._encodings[key]
        if isinstance(key, slice):
            return {name: value[key] for name, value in self.data.items()}
        raise KeyError(f"{key!r}: a batch without encodings has the keys {sorted(self.data)}")

    def __getattr__(self, name: str) -> Any:
        # `data` itself is absent while an instance is being unpickled.
        data = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        raise AttributeError(f"this batch has no {name!r}; it has {sorted(data)}")

    def __getstate__(self) -> dict[str, Any]:
        return {"data": self.data, "_encodings": self._encodings, "_n_sequences": self._n_sequences}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def encodings(self) -> list[Encoding] | None:
        """The `tokenizers.Encoding` of each row, or None for a batch that was not made from text."""
        return self._encodings

    @property
    def n_sequences(self) -> int | None:
        """How many texts a row holds: 1, 2 for pairs, None if unknown."""
        if self._n_sequences is None and self._encodings:
            return self._encodings[0].n_sequences
        return self._n_sequences

    @property
    def is_fast(self) -> bool:
        """Whether the encodings are known, so that the methods about words and characters answer."""
        return self._encodings is not None

    def _row(self, index: int, asked: str) -> Encoding:
        if not self._encodings:
            raise ArgumentError(f"{asked}() needs the encodings of a text, which this batch was not made from.")
        return self._encodings[index]

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row."""
        return self._row(batch_index, "tokens").tokens

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row the text it came from: 0, 1, or None for a special token."""
        return self._row(batch_index, "sequence_ids").sequence_ids

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row the index of its word, None for a special token."""
        return self._row(batch_index, "word_ids").word_ids

    def words(self, batch_index: int = 0) -> list[int | None]:
        """The older name of `word_ids`."""
        return self.word_ids(batch_index)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The text that a token came from."""
        row, token = _row_and(batch_or_token_index, token_index)
        return self._row(row, "token_to_sequence").token_to_sequence(token)

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The word that a token is part of."""
        row, token = _row_and(batch_or_token_index, token_index)
        found: tuple[int, int] | int | None = self._row(row, "token_to_word").token_to_word(token)
        return found[1] if isinstance(found, tuple) else found

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> tuple[int, int] | None:
        """The first token of a word and the one after its last."""
        row, word = _row_and(batch_or_word_index, word_index)
        return self._row(row, "word_to_tokens").word_to_tokens(word, sequence_index)

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> tuple[int, int] | None:
        """The characters of the text that a token covers: start and end."""
        row, token = _row_and(batch_or_token_index, token_index)
        found: Any = self._row(row, "token_to_chars").token_to_chars(token)
        # The library answers (sequence, (start, end)) in some versions and (start, end) in others.
        return found[1] if found is not None and isinstance(found[1], tuple) else found

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The token that covers a character, None for a space that belongs to none."""
        row, char = _row_and(batch_or_char_index, char_index)
        return self._row(row, "char_to_token").char_to_token(char, sequence_index)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> tuple[int, int] | None:
        """The characters of a word: start and end."""
        row, word = _row_and(batch_or_word_index, word_index)
        return self._row(row, "word_to_chars").word_to_chars(word, sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The word that covers a character."""
        row, char = _row_and(batch_or_char_index, char_index)
        return self._row(row, "char_to_word").char_to_word(char, sequence_index)

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Turn every list into a tensor of the given library, in place; tensors of it stay as they are."""
        if tensor_type is None:
            return self
        is_tensor, as_tensor = _tensor_library(tensor_type)
        for name, value in self.data.items():
            wrapped = [value] if prepend_batch_axis else value
            if not is_tensor(wrapped):
                self.data[name] = _converted(name, wrapped, as_tensor)
        return self

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Move every torch tensor to a device ("cuda", 0, torch.device(...)), in place; other values stay."""
        if not isinstance(device, str | int) and type(device).__name__ != "device":
            raise ArgumentError(f"to({device!r}): ids keep their dtype; pass a device such as 'cuda' or 'cpu'.")
        for name, value in self.data.items():
            if hasattr(value, "to"):
                self.data[name] = value.to(device=device, non_blocking=non_blocking)
        return self


def _row_and(first: int, second: int | None) -> tuple[int, int]:
    """The documented overload: (row, index), or an index alone for the first row."""
    return (0, first) if second is None else (first, second)


def _converted(name: str, value: Any, as_tensor: Callable[[Any], Any]) -> Any:
    try:
        return as_tensor(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ArgumentError(
            f"return_tensors: the rows of {name!r} differ in length (or are nested too deep) and cannot become one "
            "tensor. Pass padding=True, and truncation=True with max_length= where texts are long."
        ) from error


def _tensor_library(tensor_type: str) -> tuple[Callable[[Any], bool], Callable[[Any], Any]]:
    """How to recognise and how to make a tensor."""
    name = str(getattr(tensor_type, "value", tensor_type))
    if name == "np":
        import numpy as np

        return lambda value: isinstance(value, np.ndarray), _rectangular
    if name == "pt":
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("torch", "torch", 'return_tensors="pt"') from error
        return torch.is_tensor, lambda value: torch.from_numpy(_rectangular(value))
    if name == "jax":
        try:
            import jax.numpy as jnp
        except ImportError as error:
            raise MissingExtraError("jax", "jax", 'return_tensors="jax"') from error
        return lambda value: isinstance(value, jnp.ndarray), lambda value: jnp.asarray(_rectangular(value))
    raise ArgumentError(f'return_tensors={name!r} is not known. Use "pt" (PyTorch), "np" (numpy) or "jax".')


def _rectangular(value: Any) -> Any:
    import numpy as np

    array = np.asarray(value)
    if array.dtype == object:
        raise ValueError("rows differ in length")
    # A batch of empty texts would become floats, and ids are integers.
    return array.astype(np.int64) if array.size == 0 else array
