"""Tokenizers: text to ids and back, chat templates, streaming detokenization; no model and no torch in here."""

from __future__ import annotations

from loquent.tokenization.auto import AutoTokenizer
from loquent.tokenization.batch import BatchEncoding
from loquent.tokenization.detokenizer import IncrementalDetokenizer
from loquent.tokenization.named import (
    CodeLlamaTokenizer,
    CodeLlamaTokenizerFast,
    GPT2Tokenizer,
    GPT2TokenizerFast,
    GPTNeoXTokenizer,
    GPTNeoXTokenizerFast,
    LlamaTokenizer,
    LlamaTokenizerFast,
    OpenAIGPTTokenizer,
    OpenAIGPTTokenizerFast,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Tokenizer,
    T5TokenizerFast,
    TokenizersBackend,
    WhisperTokenizer,
    WhisperTokenizerFast,
)
from loquent.tokenization.tokenizer import PreTrainedTokenizer
from loquent.tokenization.training import train_tokenizer

__all__ = [
    "AutoTokenizer",
    "BatchEncoding",
    "CodeLlamaTokenizer",
    "CodeLlamaTokenizerFast",
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "GPTNeoXTokenizer",
    "GPTNeoXTokenizerFast",
    "IncrementalDetokenizer",
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "OpenAIGPTTokenizer",
    "OpenAIGPTTokenizerFast",
    "PreTrainedTokenizer",
    "PreTrainedTokenizerBase",
    "PreTrainedTokenizerFast",
    "T5Tokenizer",
    "T5TokenizerFast",
    "TokenizersBackend",
    "WhisperTokenizer",
    "WhisperTokenizerFast",
    "train_tokenizer",
]
