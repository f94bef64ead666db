"""From text to ids: the calls of a tokenizer that encode and pad; it owns neither vocabulary nor special tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from loquent.errors import ArgumentError
from loquent.tokenization.arguments import (
    SIDES,
    Fit,
    Padding,
    PaddingStrategy,
    Truncation,
    TruncationStrategy,
    fit,
)
from loquent.tokenization.backend import Backend, Encoding, library_errors
from loquent.tokenization.batch import BatchEncoding
from loquent.tokenization.padding import pad_rows
from loquent.tokenization.vocabulary import Vocabulary

Text = str | Sequence[str] | Sequence[Sequence[str]]


class Encoder(Vocabulary):
    """The encoding half of a tokenizer: `__call__`, `encode`, `tokenize`, `pad`.

    https://huggingface.co/docs/transformers/main_classes/tokenizer#transformers.PreTrainedTokenizer.__call__

    Arguments of a call:
        text: a string, a list of strings (a batch), or with `is_split_into_words` a list of words (a batch: of
            lists of words).
        text_pair: the second text of each, of the same shape.
        text_target, text_pair_target: encoded the same way, into `labels`.
        add_special_tokens: add what the model expects around a text (BOS, EOS, ...).
        padding: True or "longest"; "max_length"; False.
        truncation: True or "longest_first"; "only_first"; "only_second"; False.
        max_length: in tokens; the model's length where unset.
        stride: how many tokens overflowing pieces share with the piece before.
        is_split_into_words: the text comes as words.
        pad_to_multiple_of: round padded lengths up.
        padding_side: "right" or "left" instead of the tokenizer's own.
        return_tensors: "pt", "np" or "jax": tensors (batch, length), a single text as a batch of one.
        return_token_type_ids, return_attention_mask: add them or not; None for what the model takes.
        return_overflowing_tokens: what truncation cut off follows as further rows, with
            `overflow_to_sample_mapping`.
        return_special_tokens_mask: 1 where a token was added.
        return_offsets_mapping: (start, end) in characters for each token.
        return_length: the number of tokens of each row.
        verbose: warn (once) of texts longer than the model takes.
        split_special_tokens: read special tokens in the text as ordinary characters.
    """

    model_input_names: Sequence[str] = ("input_ids", "token_type_ids", "attention_mask")
    # Whether words that come one by one must each bring their space (byte-level schemes join them otherwise).
    words_need_prefix_space: ClassVar[bool] = False

    model_max_length: int
    padding_side: str
    truncation_side: str
    split_special_tokens: bool
    add_prefix_space: bool
    _warned_of_length: bool = False

    def __call__(
        self,
        text: Text | None = None,
        text_pair: Text | None = None,
        text_target: Text | None = None,
        text_pair_target: Text | None = None,
        add_special_tokens: bool = True,
        padding: Padding = False,
        truncation: Truncation = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        split_special_tokens: bool | None = None,
    ) -> BatchEncoding:
        """Encode one text, a pair, or a batch of either; arguments as the class describes them.

        Raises:
            ArgumentError: an argument has the wrong type or an unknown value, or padding lacks a pad token.
        """
        if text is None and text_target is None:
            raise ArgumentError("text=None: pass a string or a list of strings (or text_target=).")
        chosen = self._fit(padding, truncation, max_length, pad_to_multiple_of)
        columns = _Columns(
            token_type_ids=self._takes("token_type_ids", return_token_type_ids),
            attention_mask=self._takes("attention_mask", return_attention_mask),
            special_tokens_mask=return_special_tokens_mask,
            offset_mapping=return_offsets_mapping,
            length=return_length,
        )
        results = []
        for given, pair in ((text, text_pair), (text_target, text_pair_target)):
            if given is None:
                continue
            rows, is_batch = _rows(given, pair, is_split_into_words)
            self._check_words(is_split_into_words)
            split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
            with self._configured(chosen, stride, padding_side or self.padding_side, split) as backend:
                encodings = backend.encode_batch(
                    rows, is_pretokenized=is_split_into_words, add_special_tokens=add_special_tokens
                )
            flat = not is_batch and return_tensors is None and not return_overflowing_tokens
            result = columns.batch(encodings, return_overflowing_tokens, flat)
            if verbose and chosen.truncation is TruncationStrategy.DO_NOT_TRUNCATE:
                self._warn_of_length(result)
            results.append(result.convert_to_tensors(return_tensors))
        if text is not None and text_target is not None:
            results[0]["labels"] = results[1]["input_ids"]
        return results[0]

    def encode(
        self,
        text: Text,
        text_pair: Text | None = None,
        add_special_tokens: bool = True,
        padding: Padding = False,
        truncation: Truncation = None,
        max_length: int | None = None,
        stride: int = 0,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        **options: Any,
    ) -> Any:
        """The ids of one text: a list, or a tensor (1, length) with `return_tensors`. Options as in `__call__`."""
        return self(
            text,
            text_pair,
            add_special_tokens=add_special_tokens,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            stride=stride,
            padding_side=padding_side,
            return_tensors=return_tensors,
            **options,
        )["input_ids"]

    def ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many texts, without special tokens around them and without their places, in half the time.

        Raises:
            TokenizerError: the library cannot encode them.
        """
        backend = self._tokenizer
        with self._lock, library_errors("The texts could not be encoded"):
            backend.encode_special_tokens = self.split_special_tokens
            return [row.ids for row in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_plus(self, text: Text, text_pair: Text | None = None, **options: Any) -> BatchEncoding:
        """The older name of `__call__` for one text."""
        return self(text, text_pair, **options)

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **options: Any) -> BatchEncoding:
        """The older name of `__call__` for a batch; pairs are tuples (text, text_pair)."""
        if batch_text_or_text_pairs and isinstance(batch_text_or_text_pairs[0], tuple):
            texts, pairs = zip(*batch_text_or_text_pairs, strict=True)
            return self(list(texts), list(pairs), **options)
        return self(list(batch_text_or_text_pairs), **options)

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **options: Any
    ) -> list[str]:
        """The tokens of one text as the vocabulary writes them."""
        return self(text, pair, add_special_tokens=add_special_tokens, **options).tokens()

    def pad(
        self,
        encoded_inputs: Any,
        padding: Padding = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Pad what was encoded before: one encoding, a batch, or a list of encodings (a collate function).

        Values may be lists, numpy arrays or torch tensors; without `return_tensors` arrays come back as they came.

        Raises:
            ArgumentError: `input_ids` are missing, or there is no pad token.
        """
        chosen = self._fit(padding, False, max_length, pad_to_multiple_of)
        filling = {
            self.model_input_names[0]: self.pad_token_id,
            "attention_mask": 0,
            "token_type_ids": self.pad_token_type_id,
            "special_tokens_mask": 1,
        }
        with_mask = self._takes("attention_mask", return_attention_mask)
        return pad_rows(encoded_inputs, chosen, self._side(padding_side), filling, with_mask, return_tensors)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many tokens are added around a text, or around a pair."""
        return self._tokenizer.num_special_tokens_to_add(pair)

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for each id that is a special token. Ids must be a whole row, with its special tokens in it."""
        if not already_has_special_tokens or token_ids_1 is not None:
            raise ArgumentError(
                "already_has_special_tokens=False: where special tokens would go is known while encoding only; pass "
                "return_special_tokens_mask=True to the call that encodes."
            )
        special = set(self.all_special_ids)
        return [int(index in special) for index in token_ids_0]

    def _takes(self, name: str, asked: bool | None) -> bool:
        return name in self.model_input_names if asked is None else asked

    def _fit(self, padding: Padding, truncation: Truncation, max_length: int | None, multiple: int | None) -> Fit:
        chosen = fit(padding, truncation, max_length, multiple, self.model_max_length)
        if chosen.padding is not PaddingStrategy.DO_NOT_PAD and self.pad_token_id is None:
            raise ArgumentError(
                f"padding={padding!r}: this tokenizer has no pad token. Choose one, for example "
                "`tokenizer.pad_token = tokenizer.eos_token`."
            )
        return chosen

    def _side(self, padding_side: str | None) -> str:
        side = self.padding_side if padding_side is None else padding_side
        if side not in SIDES:
            raise ArgumentError(f'padding_side={side!r} must be "right" or "left".')
        return side

    def _check_words(self, is_split_into_words: bool) -> None:
        if is_split_into_words and self.words_need_prefix_space and not self.add_prefix_space:
            raise ArgumentError(
                "is_split_into_words=True: words without spaces would run together in this tokenizer. "
                "Load it with add_prefix_space=True."
            )

    @contextmanager
    def _configured(self, chosen: Fit, stride: int, side: str, split_special_tokens: bool) -> Iterator[Backend]:
        """The backend with this call's lengths. They are its state, and it refuses changes while it encodes: so one
        call at a time; within a call the library uses all cores. Decoding needs no lock."""
        backend = self._tokenizer
        with self._lock:
            backend.encode_special_tokens = split_special_tokens
            try:
                with library_errors("The text could not be encoded"):
                    self._set_lengths(chosen, stride, side)
                    yield backend
            finally:
                backend.no_truncation()
                backend.no_padding()

    def _set_lengths(self, chosen: Fit, stride: int, side: str) -> None:
        backend = self._tokenizer
        if chosen.truncation is not TruncationStrategy.DO_NOT_TRUNCATE:
            self._check_room(chosen, stride)
            backend.enable_truncation(
                max_length=chosen.max_length or 0,
                stride=stride,
                strategy=chosen.truncation.value,
                direction=self.truncation_side,
            )
        if chosen.padding is not PaddingStrategy.DO_NOT_PAD:
            backend.enable_padding(
                length=chosen.max_length if chosen.padding is PaddingStrategy.MAX_LENGTH else None,
                direction=self._side(side),
                pad_id=self.pad_token_id,
                pad_token=self.pad_token,
                pad_type_id=self.pad_token_type_id,
                pad_to_multiple_of=chosen.multiple,
            )

    def _check_room(self, chosen: Fit, stride: int) -> None:
        room = (chosen.max_length or 0) - self._tokenizer.num_special_tokens_to_add(False)
        if stride < 0 or (stride and stride >= room):
            raise ArgumentError(
                f"stride={stride} must be less than max_length={chosen.max_length} minus the special tokens."
            )

    def _warn_of_length(self, result: BatchEncoding) -> None:
        rows = result.encodings or []
        longest = max((len(row.ids) for row in rows), default=0)
        if longest > self.model_max_length and not self._warned_of_length:
            self._warned_of_length = True
            import logging  # which few processes need, and every start would wait for

            logging.getLogger(__name__).warning(
                "A text has %d tokens, more than the %d that the model takes (model_max_length). "
                "Pass truncation=True to cut it.",
                longest,
                self.model_max_length,
            )


class _Columns:
    """Which columns a call returns beside `input_ids`."""

    # The attribute of an `Encoding` that each column holds.
    sources: ClassVar[Mapping[str, str]] = {
        "token_type_ids": "type_ids",
        "attention_mask": "attention_mask",
        "special_tokens_mask": "special_tokens_mask",
        "offset_mapping": "offsets",
    }

    def __init__(self, *, length: bool, **wanted: bool) -> None:
        self.length = length
        self.wanted = [name for name in self.sources if wanted[name]]

    def batch(self, encodings: Sequence[Encoding], with_overflow: bool, flat: bool) -> BatchEncoding:
        """Rows as columns; with overflow each row is followed by the pieces cut off it."""
        pieces = [[row, *row.overflowing] if with_overflow else [row] for row in encodings]
        rows = [piece for of_row in pieces for piece in of_row]
        data: dict[str, Any] = {"input_ids": [row.ids for row in rows]}
        for name in self.wanted:
            data[name] = [getattr(row, self.sources[name]) for row in rows]
        if self.length:
            data["length"] = [len(row.ids) for row in rows]
        if with_overflow:
            data["overflow_to_sample_mapping"] = [index for index, of_row in enumerate(pieces) for _ in of_row]
        if flat:
            data = {name: column[0] if isinstance(column[0], list) else column for name, column in data.items()}
        return BatchEncoding(data, rows)


def _rows(text: Text, pair: Text | None, is_split_into_words: bool) -> tuple[list[Any], bool]:
    """The rows as the backend takes them, and whether the caller passed a batch."""
    is_list = isinstance(text, list | tuple)
    is_batch = bool(is_list and text and isinstance(text[0], list | tuple)) if is_split_into_words else is_list
    _check_text("text", text, is_batch, is_split_into_words)
    if pair is None:
        return (list(text), True) if is_batch else ([text], False)
    _check_text("text_pair", pair, is_batch, is_split_into_words)
    if not is_batch:
        return ([(text, pair)] if pair else [text]), False
    if len(text) != len(pair):
        raise ArgumentError(f"text has {len(text)} entries and text_pair {len(pair)}; each text needs its pair.")
    return list(zip(text, pair, strict=True)), True


def _check_text(argument: str, text: Text, is_batch: bool, is_split_into_words: bool) -> None:
    wanted = "a list of words" if is_split_into_words else "a string"
    for entry in text if is_batch else [text]:
        words: Any = entry if is_split_into_words and isinstance(entry, list | tuple) else [entry]
        if is_split_into_words and isinstance(entry, str):
            raise ArgumentError(f"{argument}={entry!r}: is_split_into_words=True needs {wanted}.")
        if isinstance(entry, tuple) and not is_split_into_words and len(entry) == 2:
            words = entry  # transformers takes pairs inside a batch too
        wrong = next((word for word in words if not isinstance(word, str)), None)
        if wrong is not None:
            hint = "" if is_split_into_words else " (for words, pass is_split_into_words=True)"
            raise ArgumentError(f"{argument}={wrong!r} ({type(wrong).__name__}) must be {wanted}{hint}.")
