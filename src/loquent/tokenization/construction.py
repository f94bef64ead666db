"""Builds a `tokenizers.Tokenizer` from the older file formats: vocab.json + merges.txt, and SentencePiece models.

Each builder is a function of the files and the options; special tokens are added by the tokenizer class.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from loquent.errors import TokenizerError
from loquent.tokenization.backend import MAX_FILE_BYTES
from loquent.tokenization.sentencepiece import Algorithm, PieceType, SentencePieceModel, read_sentencepiece

Options = Mapping[str, Any]
SPACE = "▁"


@dataclass(frozen=True)
class Files:
    """Where the parts of a vocabulary are; a builder says which it needs."""

    vocab_file: Path | None = None
    merges_file: Path | None = None

    def need(self, name: str) -> Path:
        """One of the files.

        Raises:
            TokenizerError: it was not given, is not there, or is too large.
        """
        path: Path | None = getattr(self, name)
        if path is None:
            raise TokenizerError(f"{name} is missing: pass {name}=, or tokenizer_file= with a tokenizer.json.")
        if not path.is_file():
            raise TokenizerError(f"{name}={str(path)!r} is not a file.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TokenizerError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, which no vocabulary is.")
        return path


@dataclass(frozen=True)
class Scheme:
    """How text is split: `build` makes a backend from the vocabulary files and the options."""

    build: Callable[[Files, Options], Tokenizer]


def byte_level_bpe(files: Files, options: Options) -> Tokenizer:
    """GPT-2's scheme: byte-pair merges over bytes written as printable characters.

    Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
    """
    tokenizer = Tokenizer(_bpe(files, continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(options.get("add_prefix_space")))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    bos_token = str(options.get("bos_token"))
    if options.get("add_bos_token"):
        tokenizer.add_special_tokens([bos_token])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[bos_token, "$A"],
            pair=[bos_token, "$A", "$B:1"],
            special_tokens=[(bos_token, tokenizer.token_to_id(bos_token))],
        )
    return tokenizer


def composed_byte_level_bpe(files: Files, options: Options) -> Tokenizer:
    """GPT-NeoX's: GPT-2's after composing accents (NFC), with offsets that leave out the leading space."""
    tokenizer = byte_level_bpe(files, options)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def lowercase_bpe(files: Files, options: Options) -> Tokenizer:
    """OpenAI GPT's: lower-cased words and punctuation, merges that end in `</w>` at the end of a word."""
    unk_token = str(options["unk_token"])
    tokenizer = Tokenizer(_bpe(files, unk_token=unk_token, end_of_word_suffix="</w>"))
    if tokenizer.token_to_id(unk_token) is not None:
        tokenizer.add_special_tokens([unk_token])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return tokenizer


def sentencepiece_bpe(files: Files, options: Options) -> Tokenizer:
    """Llama's: SentencePiece merges, with bytes for characters that the vocabulary lacks."""
    model = read_sentencepiece(files.need("vocab_file"))
    tokenizer = _pieces(model, byte_fallback=True, extra=())
    prefix = options.get("add_prefix_space") is not False
    legacy = options.get("legacy") is not False
    if legacy:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend(SPACE)] * prefix + [normalizers.Replace(" ", SPACE)]
        )
    else:
        scheme = "first" if prefix else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *[decoders.Strip(" ", left=1)] * prefix])
    return tokenizer


def sentencepiece_unigram(files: Files, options: Options) -> Tokenizer:
    """T5's: the most probable segmentation, `</s>` at the end, and `extra_ids` sentinels after the pieces."""
    model = read_sentencepiece(files.need("vocab_file"))
    extra = tuple(f"<extra_id_{index}>" for index in reversed(range(int(options.get("extra_ids", 0)))))
    tokenizer = _pieces(model, byte_fallback=False, extra=extra)
    tidy = [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), SPACE)]
    charsmap = [normalizers.Precompiled(model.precompiled_charsmap)] if model.precompiled_charsmap else []
    tokenizer.normalizer = normalizers.Sequence([*charsmap, *tidy])
    scheme = "never" if options.get("add_prefix_space") is False else "always"
    if scheme == "always" and options.get("legacy") is False:
        scheme = "first"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme=scheme)
    end = str(options["eos_token"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", end], pair=["$A", end, "$B", end], special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return tokenizer


def with_prefix_space(tokenizer: Tokenizer, wanted: bool) -> None:
    """Make a SentencePiece tokenizer that came as tokenizer.json add a space before the text, or not; in place."""
    described = json.loads(tokenizer.to_str())
    normalizer = described.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    kept = [step for step in steps if step["type"] != "Prepend"]
    replaces = any(step["type"] == "Replace" and step["content"] == SPACE for step in kept)
    described["normalizer"] = None
    if kept:
        prepend = [{"type": "Prepend", "prepend": SPACE}] if wanted and replaces else []
        described["normalizer"] = {"type": "Sequence", "normalizers": prepend + kept}
    for part in _metaspaces(described.get("pre_tokenizer")) + _metaspaces(described.get("decoder")):
        part["prepend_scheme"] = "always" if wanted else "never"
    decoder = described.get("decoder") or {}
    if decoder.get("type") == "Sequence":
        strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if wanted else []
        decoder["decoders"] = [step for step in decoder["decoders"] if step["type"] != "Strip"] + strip
    changed = Tokenizer.from_str(json.dumps(described, ensure_ascii=False))
    tokenizer.decoder = changed.decoder
    tokenizer.normalizer = changed.normalizer
    tokenizer.pre_tokenizer = changed.pre_tokenizer


def _metaspaces(part: Any) -> list[dict[str, Any]]:
    """Every Metaspace inside a described pre-tokenizer or decoder."""
    if not isinstance(part, dict):
        return []
    inside = [step for name in ("pretokenizers", "decoders") for step in part.get(name, [])]
    return [step for step in [part, *inside] if step["type"] == "Metaspace"]


def _bpe(files: Files, **options: Any) -> models.BPE:
    vocab_file, merges_file = files.need("vocab_file"), files.need("merges_file")
    try:
        vocab = json.loads(vocab_file.read_text(encoding="utf-8"))
        lines = merges_file.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{vocab_file} and {merges_file} cannot be read as a vocabulary: {error}") from error
    if not isinstance(vocab, dict) or not all(isinstance(index, int) for index in vocab.values()):
        raise TokenizerError(f"{vocab_file} must be a JSON object that gives each token its id.")
    merges = _merges(lines, merges_file)
    try:
        return models.BPE(vocab=vocab, merges=merges, fuse_unk=False, **options)
    except Exception as error:  # the library raises plain Exception
        raise TokenizerError(f"{vocab_file} and {merges_file} do not fit together: {error}") from error


def _merges(lines: list[str], merges_file: Path) -> list[tuple[str, str]]:
    """The merge rules in order, without the version line at the top."""
    # A rule may begin with "#" too: only the version line is not one.
    rules = [line.rstrip("\r") for line in lines if not line.startswith("#version")]
    pairs = [tuple(rule.split(" ")) for rule in rules if rule]
    wrong = next((pair for pair in pairs if len(pair) != 2), None)
    if wrong is not None:
        raise TokenizerError(f"{merges_file} has the line {' '.join(wrong)!r} where two tokens were expected.")
    return [(pair[0], pair[1]) for pair in pairs]


def _pieces(model: SentencePieceModel, byte_fallback: bool, extra: tuple[str, ...]) -> Tokenizer:
    """The model of a SentencePiece vocabulary, with its control and user-defined pieces as added tokens."""
    scored = [(piece.text, piece.score) for piece in model.pieces] + [(token, 0.0) for token in extra]
    try:
        if model.algorithm == Algorithm.UNIGRAM:
            tokenizer = Tokenizer(models.Unigram(scored, unk_id=model.unk_id, byte_fallback=byte_fallback))
        elif model.algorithm == Algorithm.BPE:
            vocab = {text: index for index, (text, _) in enumerate(scored)}
            tokenizer = Tokenizer(
                models.BPE(
                    vocab,
                    merges_by_score(vocab, dict(scored)),
                    unk_token=model.unk_piece,
                    fuse_unk=True,
                    byte_fallback=byte_fallback,
                )
            )
        else:
            raise TokenizerError(
                f"SentencePiece models of type {model.algorithm.name} are not supported; BPE and UNIGRAM are."
            )
    except TokenizerError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise TokenizerError(f"The SentencePiece vocabulary is inconsistent: {error}") from error
    tokenizer.add_tokens(
        [
            AddedToken(piece.text, normalized=False, special=piece.type == PieceType.CONTROL)
            for piece in model.pieces
            if piece.type in (PieceType.CONTROL, PieceType.USER_DEFINED)
        ]
    )
    return tokenizer


def merges_by_score(vocab: Mapping[str, int], scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """The merge rules that SentencePiece's scores imply: every split of a piece into two others, best piece first.

    Ties are ordered as transformers orders them, so that the ids are the same.
    """
    rules: list[tuple[str, str, float]] = []
    for piece, score in scores.items():
        splits = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        known = [(left, right) for left, right in splits if left in vocab and right in vocab]
        known.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        rules.extend((left, right, score) for left, right in known)
    rules.sort(key=lambda rule: (rule[2], len(rule[0]), len(rule[1])), reverse=True)
    return [(left, right) for left, right, _ in rules]
