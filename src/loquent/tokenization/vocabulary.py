"""From ids to tokens and text, and the tokens one may add; it does not encode."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken

from loquent.errors import ArgumentError
from loquent.tokenization.backend import Backend, library_errors
from loquent.tokenization.cleanup import clean_up
from loquent.tokenization.padding import plain
from loquent.tokenization.special_tokens import ADDITIONAL, ROLES, SpecialTokens, Token


class Vocabulary(SpecialTokens):
    """The decoding half of a tokenizer: `decode`, `convert_ids_to_tokens`, `add_tokens`, `get_vocab`."""

    _tokenizer: Backend
    _lock: threading.RLock
    clean_up_tokenization_spaces: bool

    @property
    def backend_tokenizer(self) -> Backend:
        """The `tokenizers.Tokenizer` underneath."""
        return self._tokenizer

    @property
    def decoder(self) -> Any:
        """The backend's decoder."""
        return self._tokenizer.decoder

    @property
    def is_fast(self) -> bool:
        """True: every tokenizer here is backed by the `tokenizers` library."""
        return True

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary without added tokens; `len(tokenizer)` counts them."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def __bool__(self) -> bool:
        return True

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id, added ones too; a new dictionary for each call."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    @property
    def vocab(self) -> dict[str, int]:
        """The same as `get_vocab()`."""
        return self.get_vocab()

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The added tokens by id."""
        return self._tokenizer.get_added_tokens_decoder()

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """The ids of the added tokens, in the order of ids."""
        return {token.content: index for index, token in sorted(self.added_tokens_decoder.items())}

    def get_added_vocab(self) -> dict[str, int]:
        """The same as `added_tokens_encoder`."""
        return self.added_tokens_encoder

    def add_tokens(self, new_tokens: Token | Sequence[Token], special_tokens: bool = False) -> int:
        """Add tokens that are never split; those in the vocabulary already keep their id.

        Returns:
            How many became added tokens. Where `len(tokenizer)` grew, the model's embeddings must be resized to it.
        """
        tokens = [new_tokens] if isinstance(new_tokens, str | AddedToken) else list(new_tokens)
        wrong = next((token for token in tokens if not isinstance(token, str | AddedToken)), None)
        if wrong is not None:
            raise ArgumentError(f"new_tokens: {wrong!r} must be a string or an AddedToken.")
        if not tokens:
            return 0
        with self._lock:
            if special_tokens:
                return self._tokenizer.add_special_tokens(tokens)
            return self._tokenizer.add_tokens(tokens)

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_additional_special_tokens: bool = True
    ) -> int:
        """Give roles to tokens, and add them to the vocabulary where it lacks them.

        Args:
            special_tokens_dict: {"pad_token": "[PAD]", "additional_special_tokens": [...]}.
            replace_additional_special_tokens: replace the list, or extend it.

        Returns:
            How many became added tokens.
        """
        added: list[Token] = []
        for role, value in special_tokens_dict.items():
            if role == ADDITIONAL:
                added += self._add_additional(value, replace_additional_special_tokens)
            elif role in ROLES or role in self.extra_special_tokens:
                setattr(self, role, _special(value))
                added.append(_special(value))
            else:
                raise ArgumentError(f"special_tokens_dict[{role!r}]: the roles are {[*ROLES, ADDITIONAL]}.")
        return self.add_tokens(added, special_tokens=True)

    def _add_additional(self, tokens: Iterable[Token], replace: bool) -> list[Token]:
        given = [_special(token) for token in tokens]
        if replace:
            if given:
                self.additional_special_tokens = given
            return given
        new = [token for token in given if str(token) not in self.additional_special_tokens]
        self._additional.extend(new)
        return new

    def _id_of(self, token: str) -> int | None:
        index = self._tokenizer.token_to_id(token)
        if index is not None:
            return index
        unknown = self.unk_token
        return None if unknown is None else self._tokenizer.token_to_id(unknown)

    def _token_of(self, index: int) -> str | None:
        return self._tokenizer.id_to_token(_index(index))

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of a token, or of each; the unknown token's (or None) for those not in the vocabulary."""
        if isinstance(tokens, str):
            return self._id_of(tokens)
        return [self._id_of(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or of each; None for an id that the vocabulary does not have.

        Args:
            ids: an integer, or a sequence, array or tensor of them.
            skip_special_tokens: leave special tokens out of a sequence.
        """
        listed, _ = plain(ids)
        if isinstance(listed, int):
            return self._token_of(listed)
        skipped = set(self.all_special_ids) if skip_special_tokens else ()
        return [self._token_of(index) for index in listed if index not in skipped]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text that tokens make."""
        decoder = self._tokenizer.decoder
        return str(decoder.decode(list(tokens))) if decoder is not None else " ".join(tokens)

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str:
        """The text of one row of ids.

        Args:
            token_ids: an integer, or a list, array or tensor of shape (length,).
            skip_special_tokens: leave special tokens out.
            clean_up_tokenization_spaces: remove spaces before punctuation; None for the tokenizer's own setting.

        Raises:
            ArgumentError: an id is negative or not an integer, or there is more than one row.
        """
        listed, _ = plain(token_ids)
        ids = [listed] if isinstance(listed, int) else listed
        with library_errors("The ids could not be decoded"):
            try:
                text = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
            except (TypeError, OverflowError, ValueError):
                checked = [_index(one) for one in _row(ids)]
                text = self._tokenizer.decode(checked, skip_special_tokens=skip_special_tokens)
        clean = self.clean_up_tokenization_spaces
        if clean_up_tokenization_spaces is not None:
            clean = clean_up_tokenization_spaces
        return clean_up(text) if clean else text

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """The text of each row: of a list of rows, or an array or tensor (batch, length)."""
        rows, _ = plain(sequences)
        return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in rows]

    @staticmethod
    def clean_up_tokenization(out_string: str) -> str:
        """`out_string` without spaces before punctuation and English contractions."""
        return clean_up(out_string)


def _special(token: Token) -> Token:
    if isinstance(token, str):
        return AddedToken(token, normalized=False, special=True)
    if isinstance(token, AddedToken):
        return token
    raise ArgumentError(f"special_tokens_dict: {token!r} must be a string or an AddedToken.")


def _row(ids: Any) -> Iterable[Any]:
    if not isinstance(ids, Iterable) or isinstance(ids, str):
        raise ArgumentError(f"token_ids={ids!r} must be an integer or a row of integers.")
    return ids


def _index(index: Any) -> int:
    """An id as the backend takes it."""
    if isinstance(index, Sequence) and not isinstance(index, str):
        raise ArgumentError("token_ids holds more than one row; use batch_decode for a batch.")
    try:
        number = int(index)
    except (TypeError, ValueError):
        raise ArgumentError(f"token_ids: {index!r} is not an integer.") from None
    if not 0 <= number < 2**32 or number != index:
        raise ArgumentError(f"token_ids: {index!r} is not an id. Remove fillers such as -100 before decoding.")
    return number
