"""Reads a SentencePiece model file: its pieces and how it was trained; it does not tokenize.

The file is one protocol buffer message, `ModelProto`, of which a tokenizer needs a dozen fields:
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
The wire format is https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from loquent.errors import TokenizerError

# The largest published models are under 20 MB; what is far larger is something else.
MAX_FILE_BYTES = 256 << 20
# Every way to split a piece is tried, so that a huge one would take forever; trainers stop at 16 characters.
MAX_PIECE_CHARS = 1024

Field = int | float | bytes


class PieceType(IntEnum):
    """What a piece stands for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Algorithm(IntEnum):
    """How the model splits text."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; `score` orders merges (BPE) or is a log-probability (Unigram)."""

    text: str
    score: float
    type: PieceType


@dataclass(frozen=True)
class SentencePieceModel:
    """The part of a SentencePiece model that a tokenizer is built from; a piece's id is its index."""

    pieces: tuple[Piece, ...]
    algorithm: Algorithm
    unk_id: int
    unk_piece: str
    byte_fallback: bool
    precompiled_charsmap: bytes


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Parse a `tokenizer.model` or `spiece.model`.

    Raises:
        TokenizerError: the file is not a SentencePiece model, is truncated, or contradicts itself.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise TokenizerError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, which no SentencePiece model is.")
    try:
        return _model(path.read_bytes())
    except (ValueError, struct.error, UnicodeDecodeError) as error:
        raise TokenizerError(
            f"{path} is not a SentencePiece model, or it is damaged ({error}). Download it again; a file that is a "
            "few hundred bytes long is often a Git LFS pointer in place of the file."
        ) from error


def _model(data: bytes) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer: dict[int, Field] = {}
    normalizer: dict[int, Field] = {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(_bytes(value)))
        elif number == 2:
            trainer.update(_fields(_bytes(value)))
        elif number == 3:
            normalizer.update(_fields(_bytes(value)))
    if not pieces:
        raise ValueError("it has no pieces")
    unk_id = int(trainer.get(40, 0))
    if not 0 <= unk_id < len(pieces):
        raise ValueError(f"unk_id {unk_id} is not one of its {len(pieces)} pieces")
    return SentencePieceModel(
        pieces=tuple(pieces),
        algorithm=Algorithm(int(trainer.get(3, Algorithm.UNIGRAM))),
        unk_id=unk_id,
        unk_piece=_bytes(trainer.get(45, b"<unk>")).decode(),
        byte_fallback=bool(trainer.get(35, 0)),
        precompiled_charsmap=_bytes(normalizer.get(2, b"")),
    )


def _piece(data: bytes) -> Piece:
    fields = dict(_fields(data))
    text = _bytes(fields.get(1, b"")).decode()
    if len(text) > MAX_PIECE_CHARS:
        raise ValueError(f"a piece has {len(text)} characters")
    return Piece(
        text=text,
        score=float(fields.get(2, 0.0)),
        type=PieceType(int(fields.get(3, PieceType.NORMAL))),
    )


def _bytes(value: Field) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"found {value!r} where text was expected")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, Field]]:
    """The fields of a message in order: (number, value)."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        length, position = (8, position) if wire == 1 else (4, position) if wire == 5 else _length(data, position, wire)
        end = position + length
        if end > len(data):
            raise ValueError(f"field {number} ends {end - len(data)} bytes past the end")
        chunk = data[position:end]
        yield number, struct.unpack("<f", chunk)[0] if wire == 5 else chunk
        position = end


def _length(data: bytes, position: int, wire: int) -> tuple[int, int]:
    if wire != 2:
        raise ValueError(f"wire type {wire} at byte {position} is not used by this format")
    return _varint(data, position)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A base-128 number and the position after it."""
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("it is truncated")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise ValueError(f"the number at byte {position} is too long")
