"""SentencePiece model files: read as their format says, refused when damaged."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loquent.errors import TokenizerError
from loquent.tokenization import LlamaTokenizer, T5Tokenizer
from loquent.tokenization.construction import merges_by_score
from loquent.tokenization.sentencepiece import Algorithm, PieceType, read_sentencepiece


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def chunk(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def piece(text: str, score: float, kind: int = 1) -> bytes:
    body = chunk(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
    return chunk(1, body + (varint(3 << 3) + varint(kind) if kind != 1 else b""))


def model(algorithm: int, *further: bytes) -> bytes:
    """A small model by hand: three special pieces, bytes, letters and two merges."""
    pieces = [piece("<unk>", 0, 2), piece("<s>", 0, 3), piece("</s>", 0, 3)]
    pieces += [piece(f"<0x{byte:02X}>", 0, 6) for byte in range(256)]
    pieces += [piece("ab", -1), piece("▁ab", -2), piece("▁", -3), piece("a", -4), piece("b", -5), piece("[X]", 0, 4)]
    trainer = varint(3 << 3) + varint(algorithm) + varint(35 << 3) + varint(1)
    unknown = varint(90 << 3 | 1) + bytes(8) + chunk(91, b"a field from a later version")
    return b"".join(pieces) + chunk(2, trainer) + chunk(3, unknown) + b"".join(further)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "tokenizer.model"
    target.write_bytes(model(2))
    return target


def test_fields(path: Path) -> None:
    read = read_sentencepiece(path)
    assert (read.algorithm, read.byte_fallback, read.unk_id, read.unk_piece) == (Algorithm.BPE, True, 0, "<unk>")
    assert [one.type for one in read.pieces[:4]] == [
        PieceType.UNKNOWN,
        PieceType.CONTROL,
        PieceType.CONTROL,
        PieceType.BYTE,
    ]
    assert (read.pieces[259].text, read.pieces[259].score) == ("ab", -1.0)
    assert read.pieces[-1].type is PieceType.USER_DEFINED


def test_bpe(path: Path) -> None:
    tokenizer = LlamaTokenizer(path)
    assert tokenizer.tokenize("ab abé[X]") == ["▁ab", "▁ab", "<0xC3>", "<0xA9>", "[X]"]
    assert tokenizer("a").input_ids == [1, 261, 262]
    assert tokenizer.decode(tokenizer("ab abé[X]").input_ids, skip_special_tokens=True) == "ab abé[X]"
    plain = LlamaTokenizer(path, add_prefix_space=False, add_bos_token=False, add_eos_token=True)
    assert plain("ab").input_ids == [259, 2]
    exact = LlamaTokenizer(path, legacy=False)
    assert exact.tokenize("ab[X]ab") == ["▁ab", "[X]", "ab"]
    assert tokenizer.tokenize("ab[X]ab") == ["▁ab", "[X]", "▁ab"]


def test_unigram(path: Path) -> None:
    path.write_bytes(model(1))
    tokenizer = T5Tokenizer(path, extra_ids=2)
    assert tokenizer.tokenize("ab  ab<extra_id_1>") == ["▁ab", "▁ab", "<extra_id_1>"]
    assert tokenizer("ab").input_ids == [260, tokenizer.eos_token_id]
    assert len(tokenizer) == len(read_sentencepiece(path).pieces) + 3
    assert tokenizer.get_sentinel_tokens() == ["<extra_id_0>", "<extra_id_1>"]
    assert tokenizer.get_sentinel_token_ids() == [266, 265]


def test_the_model_is_saved_with_the_tokenizer(path: Path, tmp_path: Path) -> None:
    tokenizer = LlamaTokenizer(path)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.model").read_bytes() == path.read_bytes()
    (tmp_path / "saved" / "tokenizer.json").unlink()
    assert LlamaTokenizer.from_pretrained(tmp_path / "saved")("ab é").input_ids == tokenizer("ab é").input_ids
    tokenizer.save_pretrained(path.parent)
    assert path.read_bytes() == model(2)


def test_prefix_space_of_a_tokenizer_json(path: Path, tmp_path: Path) -> None:
    LlamaTokenizer(path).save_pretrained(tmp_path / "saved", legacy_format=False)
    for wanted in (True, False):
        changed = LlamaTokenizer.from_pretrained(tmp_path / "saved", add_prefix_space=wanted)
        built = LlamaTokenizer(path, add_prefix_space=wanted)
        for text in ("ab", " ab", "a  b", ""):
            assert changed(text).input_ids == built(text).input_ids
            assert changed.decode(changed(text).input_ids) == built.decode(built(text).input_ids)


def test_merges_follow_the_scores() -> None:
    vocab = {"a": 0, "b": 1, "ab": 2, "aba": 3, "ba": 4}
    scores = {"a": 0.0, "b": 0.0, "ab": -1.0, "aba": -0.5, "ba": -2.0}
    assert merges_by_score(vocab, scores) == [("ab", "a"), ("a", "ba"), ("a", "b"), ("b", "a")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 499723\n",
        model(2)[:-3],
        model(2)[: 3 * len(model(2)) // 4],
        model(7),
        model(3),
        model(2, chunk(2, varint(40 << 3) + varint(10**6))),
        model(2, piece("a" * 5000, 0)),
        chunk(1, varint(1 << 3) + varint(5)),
        b"\x0a" + varint(1 << 40),
        b"\xff" * 30,
        piece("\u20ac", 0).replace("\u20ac".encode(), b"\xff\xff\xff"),
    ],
    ids=lambda data: repr(data[-12:]),
)
def test_damaged_files_are_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(TokenizerError):
        LlamaTokenizer(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damage_is_an_error_or_a_tokenizer(path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(model(2))
    for place, byte in changes:
        data[place % len(data)] = byte
    path.write_bytes(data)
    # Any other exception fails this.
    with contextlib.suppress(TokenizerError):
        assert LlamaTokenizer(path)("ab").tokens()
