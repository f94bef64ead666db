"""The tokenizers of named model families; each is data over the one class: its files, its tokens, how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tokenizers import normalizers, processors

from loquent.errors import ArgumentError
from loquent.tokenization import construction
from loquent.tokenization.batch import BatchEncoding
from loquent.tokenization.tokenizer import PreTrainedTokenizer

_BYTE_LEVEL_FILES = {"vocab_file": "vocab.json", "merges_file": "merges.txt", "tokenizer_file": "tokenizer.json"}
_TEXT_INPUTS = ("input_ids", "attention_mask")
_END_OF_TEXT = {"unk_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}

# A folder says how many; models have a hundred to a few hundred.
_MOST_SENTINELS = 100_000


class TokenizersBackend(PreTrainedTokenizer):
    """The generic tokenizer as transformers 5 saves it: without token types, and heeding `add_bos_token`."""

    class_name_to_save = "PreTrainedTokenizerFast"
    model_input_names = _TEXT_INPUTS

    def _apply_bos_and_eos(self, options: Mapping[str, Any]) -> None:
        stated = {**self._stored, **options}
        if "add_bos_token" in stated or "add_eos_token" in stated:
            self.update_post_processor()


class GPT2Tokenizer(PreTrainedTokenizer):
    """GPT-2's byte-level BPE; also DialoGPT's, GPT-Neo's and GPTBigCode's (StarCoder's)."""

    vocab_files_names = _BYTE_LEVEL_FILES
    model_input_names = _TEXT_INPUTS
    words_need_prefix_space = True
    scheme = construction.Scheme(construction.byte_level_bpe)
    defaults: ClassVar[Mapping[str, Any]] = {**_END_OF_TEXT, "add_prefix_space": False}


class GPTNeoXTokenizer(PreTrainedTokenizer):
    """GPT-NeoX's byte-level BPE, which is Pythia's."""

    vocab_files_names = _BYTE_LEVEL_FILES
    model_input_names = _TEXT_INPUTS
    adds_bos_and_eos = True
    scheme = construction.Scheme(construction.composed_byte_level_bpe)
    defaults: ClassVar[Mapping[str, Any]] = {**_END_OF_TEXT, "add_prefix_space": False}


class LlamaTokenizer(PreTrainedTokenizer):
    """Llama's SentencePiece BPE with bytes for what the vocabulary lacks.

    `legacy=False` reads spaces after special tokens as written; `add_prefix_space` says whether a space is put before
    the text.
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {
        "vocab_file": "tokenizer.model",
        "tokenizer_file": "tokenizer.json",
    }
    model_input_names = _TEXT_INPUTS
    padding_side = "left"
    adds_bos_and_eos = True
    scheme = construction.Scheme(construction.sentencepiece_bpe)
    defaults: ClassVar[Mapping[str, Any]] = {
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "add_bos_token": True,
        "add_eos_token": False,
        "use_default_system_prompt": False,
    }


class CodeLlamaTokenizer(LlamaTokenizer):
    """Llama's with the tokens that ask to fill in the middle of code."""

    defaults: ClassVar[Mapping[str, Any]] = {
        **LlamaTokenizer.defaults,
        "prefix_token": "▁<PRE>",
        "middle_token": "▁<MID>",
        "suffix_token": "▁<SUF>",
        "eot_token": "▁<EOT>",
        "fill_token": "<FILL_ME>",
    }

    @classmethod
    def prepare(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The infilling tokens are special."""
        given = list(options.get("additional_special_tokens") or [])
        infilling = [options[name] for name in ("prefix_token", "middle_token", "suffix_token", "eot_token")]
        missing = [token for token in infilling if token is not None and str(token) not in map(str, given)]
        return {**options, "additional_special_tokens": [*given, *missing]}

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        *further: Any,
        suffix: str | None = None,
        suffix_first: bool = False,
        add_special_tokens: bool = True,
        **options: Any,
    ) -> BatchEncoding:
        """As the other tokenizers; a text with `fill_token` in it, or with a `suffix`, asks to fill the gap.

        Args:
            suffix: what comes after the gap, where the text holds no `fill_token`.
            suffix_first: put the suffix before the prefix, as some models were trained.
        """
        fill = self.init_kwargs["fill_token"]
        if isinstance(text, str):
            text_pair = text_pair if suffix is None else suffix
            if fill is not None and text_pair is None and str(fill) in text:
                text, _, text_pair = text.partition(str(fill))
        if not isinstance(text, str) or not text_pair or further:
            options["add_special_tokens"] = add_special_tokens
            return super().__call__(text, text_pair, *further, **options)
        backend = self.backend_tokenizer
        with self._lock:
            before = backend.normalizer, backend.post_processor
            infilling = self._infilling(suffix_first, add_special_tokens)
            backend.normalizer = normalizers.Replace(" ", construction.SPACE)
            backend.post_processor = infilling
            try:
                return super().__call__(f" {text}", text_pair, **{**options, "add_special_tokens": True})
            finally:
                # The library cannot unset a step to None.
                backend.normalizer = before[0] or normalizers.Sequence([])
                backend.post_processor = before[1]

    def _infilling(self, suffix_first: bool, add_special_tokens: bool) -> processors.TemplateProcessing:
        """`<PRE> prefix <SUF>suffix <MID>`, or with the suffix first (arXiv:2308.12950, section 2.3)."""
        prefix, middle, suffix = (str(self.init_kwargs[f"{name}_token"]) for name in ("prefix", "middle", "suffix"))
        around = [prefix, suffix, "$B", middle, "$A"] if suffix_first else [prefix, "$A", suffix, "$B", middle]
        if add_special_tokens and self.add_bos_token:
            around.insert(0, str(self.bos_token))
        if add_special_tokens and self.add_eos_token:
            around.append(str(self.eos_token))
        special = [token for token in around if not token.startswith("$")]
        return processors.TemplateProcessing(
            single="$A", pair=around, special_tokens=[(token, self._id_of(token)) for token in special]
        )


class T5Tokenizer(PreTrainedTokenizer):
    """T5's SentencePiece Unigram model, with `extra_ids` sentinels `<extra_id_0>`, ..."""

    vocab_files_names: ClassVar[Mapping[str, str]] = {
        "vocab_file": "spiece.model",
        "tokenizer_file": "tokenizer.json",
    }
    model_input_names = _TEXT_INPUTS
    scheme = construction.Scheme(construction.sentencepiece_unigram)
    defaults: ClassVar[Mapping[str, Any]] = {
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "extra_ids": 100,
    }

    @classmethod
    def prepare(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The sentinels are special tokens."""
        count = options["extra_ids"] or 0
        if not 0 <= count <= _MOST_SENTINELS:
            raise ArgumentError(f"extra_ids={count} is no number of sentinels. Pass one from 0 to {_MOST_SENTINELS:,}.")
        given = list(options.get("additional_special_tokens") or [])
        sentinels = [token for token in given if "<extra_id_" in str(token)]
        if not sentinels:
            given += [f"<extra_id_{index}>" for index in range(count)]
        elif count > 0 and count != len(sentinels):
            raise ArgumentError(
                f"extra_ids={count}, but additional_special_tokens holds {len(sentinels)} sentinels <extra_id_...>."
            )
        return {**options, "additional_special_tokens": given}

    def get_sentinel_tokens(self) -> list[str]:
        """The sentinels."""
        return [token for token in self.additional_special_tokens if token.startswith("<extra_id_")]

    def get_sentinel_token_ids(self) -> list[int | None]:
        """The ids of the sentinels."""
        return [self._id_of(token) for token in self.get_sentinel_tokens()]


class WhisperTokenizer(PreTrainedTokenizer):
    """Whisper's byte-level BPE. `language`, `task` and `predict_timestamps` are kept and saved, and change nothing yet:
    what is put around a text is what its tokenizer.json says."""

    vocab_files_names = _BYTE_LEVEL_FILES
    model_input_names = _TEXT_INPUTS
    words_need_prefix_space = True
    scheme = construction.Scheme(construction.byte_level_bpe)
    defaults: ClassVar[Mapping[str, Any]] = {
        **_END_OF_TEXT,
        "add_prefix_space": False,
        "language": None,
        "task": None,
        "predict_timestamps": False,
    }


class OpenAIGPTTokenizer(PreTrainedTokenizer):
    """OpenAI GPT's lower-cased BPE."""

    vocab_files_names = _BYTE_LEVEL_FILES
    model_input_names = _TEXT_INPUTS
    scheme = construction.Scheme(construction.lowercase_bpe)
    defaults: ClassVar[Mapping[str, Any]] = {"unk_token": "<unk>"}


# There is one kind of tokenizer here, so that the fast names are the same classes.
PreTrainedTokenizerFast = PreTrainedTokenizerBase = PreTrainedTokenizer
GPT2TokenizerFast = GPT2Tokenizer
GPTNeoXTokenizerFast = GPTNeoXTokenizer
LlamaTokenizerFast = LlamaTokenizer
CodeLlamaTokenizerFast = CodeLlamaTokenizer
T5TokenizerFast = T5Tokenizer
WhisperTokenizerFast = WhisperTokenizer
OpenAIGPTTokenizerFast = OpenAIGPTTokenizer

# By the names that tokenizer_config.json uses, without "Fast".
CLASSES: Mapping[str, type[PreTrainedTokenizer]] = {
    "PreTrainedTokenizer": PreTrainedTokenizer,
    "PreTrainedTokenizerBase": PreTrainedTokenizer,
    **{
        named.__name__: named
        for named in (
            TokenizersBackend,
            GPT2Tokenizer,
            GPTNeoXTokenizer,
            LlamaTokenizer,
            CodeLlamaTokenizer,
            T5Tokenizer,
            WhisperTokenizer,
            OpenAIGPTTokenizer,
        )
    },
}

# By the `model_type` of config.json, for folders whose tokenizer does not say its class.
CLASSES_OF_MODELS: Mapping[str, type[PreTrainedTokenizer]] = {
    **dict.fromkeys(("gpt2", "gpt_neo", "gpt_bigcode", "gptj", "opt"), GPT2Tokenizer),
    **dict.fromkeys(("gpt_neox", "stablelm", "mamba", "olmo", "rwkv"), GPTNeoXTokenizer),
    **dict.fromkeys(("llama", "mistral", "mixtral", "phi3", "phimoe"), LlamaTokenizer),
    **dict.fromkeys(("t5", "mt5", "umt5", "switch_transformers", "longt5"), T5Tokenizer),
    "code_llama": CodeLlamaTokenizer,
    "whisper": WhisperTokenizer,
    "openai-gpt": OpenAIGPTTokenizer,
}
