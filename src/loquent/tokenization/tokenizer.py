"""The tokenizer class over the `tokenizers` library: vocabulary, special tokens, decoding; named classes add data only.

API: https://huggingface.co/docs/transformers/main_classes/tokenizer
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from tokenizers import AddedToken, Tokenizer, processors

from loquent.errors import ArgumentError, TokenizerError
from loquent.tokenization.arguments import SIDES, UNLIMITED
from loquent.tokenization.backend import read_tokenizer_json
from loquent.tokenization.construction import Files, Options, Scheme, with_prefix_space
from loquent.tokenization.options import checked_options, special_tokens_in
from loquent.tokenization.pretrained import Pretrained
from loquent.tokenization.special_tokens import SpecialTokens, Token

_Self = TypeVar("_Self", bound="PreTrainedTokenizer")


class PreTrainedTokenizer(Pretrained):
    """Text to ids and back, with everything that a model's folder says about its tokenizer.

    Build one with `from_pretrained`, with `AutoTokenizer`, from a file (`tokenizer_file=`), from a
    `tokenizers.Tokenizer` (`tokenizer_object=`), or with a named class from its vocabulary files.
    Encoding calls may come from several threads; they run one at a time. Decoding needs no waiting.

    Args:
        files: the files of a named class in order, e.g. `GPT2Tokenizer(vocab_file, merges_file)`.
        tokenizer_object: a `tokenizers.Tokenizer`, which is copied.
        tokenizer_file: a tokenizer.json.
        added_tokens_decoder: {id: AddedToken} of tokens beyond the vocabulary.
        options: special tokens by role, `model_max_length`, `padding_side`, `truncation_side`, `model_input_names`,
            `clean_up_tokenization_spaces`, `split_special_tokens`, `chat_template`, `extra_special_tokens`,
            `add_prefix_space`, and for some classes `add_bos_token`, `add_eos_token`, `legacy`.

    Raises:
        ArgumentError: an option is unknown or has the wrong type.
        TokenizerError: files are missing or damaged.
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {"tokenizer_file": "tokenizer.json"}
    # What a named class consists of: how to build the backend from its files, and its options where none are given.
    scheme: ClassVar[Scheme | None] = None
    defaults: ClassVar[Options] = {}
    # The name that other programs know the class by, where it is another.
    class_name_to_save: ClassVar[str | None] = None
    # Whether add_bos_token and add_eos_token decide what is put around a text.
    adds_bos_and_eos: ClassVar[bool] = False

    padding_side: str = "right"
    truncation_side: str = "right"
    saved_class_name: str

    def __init__(
        self,
        *files: str | Path,
        tokenizer_object: Tokenizer | None = None,
        tokenizer_file: str | Path | None = None,
        added_tokens_decoder: Mapping[int, AddedToken] | None = None,
        _stored: Options | None = None,
        **options: Any,
    ) -> None:
        named = self._named_files(files, options)
        given = {**self.defaults, **checked_options(type(self).__name__, options, self.defaults.keys())}
        given = self.prepare(given)
        self._stored = dict(_stored or {})
        self.saved_class_name = self.class_name_to_save or type(self).__name__
        self._lock = threading.RLock()
        self._vocab_files = named
        self._built = tokenizer_object is None and self._must_build(tokenizer_file, named, given)
        if tokenizer_object is not None:
            self._tokenizer = copy.deepcopy(tokenizer_object)
        elif self._built:
            self._tokenizer = self._from_vocabulary(named, given)
        else:
            self._tokenizer = read_tokenizer_json(Path(cast(str, tokenizer_file)))
        given = {**self._lengths_in_backend(), **given}
        self._set_options(given)
        SpecialTokens.__init__(self, special_tokens_in(given), given.get("extra_special_tokens") or {})
        self._tokenizer.encode_special_tokens = self.split_special_tokens
        self._add_missing_tokens(added_tokens_decoder or {})
        self._apply_prefix_space(given)
        self._apply_bos_and_eos(given)

    @classmethod
    def _made(cls: type[_Self], options: dict[str, Any], stored: dict[str, Any]) -> _Self:
        return cls(**options, _stored=stored)

    @classmethod
    def prepare(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Options that follow from others; named classes say which."""
        return options

    def _named_files(self, files: Sequence[str | Path], options: dict[str, Any]) -> dict[str, Path]:
        """The vocabulary files by their argument names, taken out of the options."""
        names = [name for name in self.vocab_files_names if name != "tokenizer_file"]
        if len(files) > len(names):
            raise ArgumentError(
                f"{type(self).__name__} takes {names} in this order and the rest by name; {len(files)} were given."
            )
        by_name = {**dict(zip(names, files)), **{name: options.pop(name) for name in names if name in options}}
        return {name: Path(path) for name, path in by_name.items() if path is not None}

    def _must_build(self, tokenizer_file: object, named: Mapping[str, Path], options: Options) -> bool:
        """Whether the backend comes from the vocabulary files: always where there is no tokenizer.json, and where a
        SentencePiece tokenizer is asked for another treatment of the space before the text."""
        if tokenizer_file is None:
            return True
        rebuilt = options.get("from_slow") or (self._is_sentencepiece() and options.get("add_prefix_space") is not None)
        return bool(rebuilt) and "vocab_file" in named

    def _is_sentencepiece(self) -> bool:
        return self.vocab_files_names.get("vocab_file", "").endswith(".model")

    def _from_vocabulary(self, named: Mapping[str, Path], options: Options) -> Tokenizer:
        scheme = type(self).scheme
        if scheme is None:
            raise TokenizerError(
                f"{type(self).__name__} needs tokenizer_file= (a tokenizer.json) or tokenizer_object=; vocabulary "
                "files say how to split text only together with a named class such as GPT2Tokenizer."
            )
        return scheme.build(Files(named.get("vocab_file"), named.get("merges_file")), options)

    def _lengths_in_backend(self) -> dict[str, Any]:
        """Padding and truncation that a tokenizer.json carries: its sides and pad token are kept, the rest is the
        call's to say."""
        found: dict[str, Any] = {}
        if self._tokenizer.truncation:
            found["truncation_side"] = self._tokenizer.truncation["direction"]
            self._tokenizer.no_truncation()
        if self._tokenizer.padding:
            found["pad_token"] = self._tokenizer.padding["pad_token"]
            found["padding_side"] = self._tokenizer.padding["direction"]
            self._tokenizer.no_padding()
        return found

    def _set_options(self, options: dict[str, Any]) -> None:
        self.init_kwargs = options
        self.name_or_path: str = str(options.get("name_or_path", ""))
        self.model_max_length = _length(options.get("model_max_length"))
        self.padding_side = _side("padding_side", options.get("padding_side") or self.padding_side)
        self.truncation_side = _side("truncation_side", options.get("truncation_side") or self.truncation_side)
        self.model_input_names = list(options.get("model_input_names") or self.model_input_names)
        self.clean_up_tokenization_spaces = bool(options.get("clean_up_tokenization_spaces", False))
        self.split_special_tokens = bool(options.get("split_special_tokens", False))
        self.pad_token_type_id = int(options.get("pad_token_type_id", 0))
        self.add_prefix_space = bool(options.get("add_prefix_space", False))
        self.chat_template = self.stored_template(options.get("chat_template"))
        self._add_bos_token = bool(options.get("add_bos_token", False))
        self._add_eos_token = bool(options.get("add_eos_token", False))

    def _add_missing_tokens(self, added: Mapping[int, AddedToken]) -> None:
        """Register what the options name and the backend does not know yet, in the order of their ids."""
        known = self._tokenizer.get_added_tokens_decoder()
        # AddedToken compares by its text alone, and its flags matter here.
        as_known = {repr(token) for token in known.values()}
        tokens: list[Token] = [token for _, token in sorted(added.items()) if repr(token) not in as_known]
        contents = {str(token) for token in [*known.values(), *tokens]}
        tokens += [token for token in self.all_special_tokens_extended if str(token) not in contents]
        special = set(self.all_special_tokens)
        self.add_tokens([_added(token, special) for token in tokens])

    def _apply_prefix_space(self, options: Options) -> None:
        wanted = options.get("add_prefix_space")
        step = self._tokenizer.pre_tokenizer
        # A SentencePiece tokenizer that was not built anew a moment ago is changed in place.
        if self._is_sentencepiece():
            if wanted is not None and not self._built:
                with_prefix_space(self._tokenizer, bool(wanted))
        elif step is not None and hasattr(step, "add_prefix_space"):
            step.add_prefix_space = self.add_prefix_space
            self._tokenizer.pre_tokenizer = step

    def _apply_bos_and_eos(self, options: Options) -> None:
        if self.adds_bos_and_eos:
            self.update_post_processor()

    def update_post_processor(self) -> None:
        """Put BOS and EOS around texts as `add_bos_token` and `add_eos_token` say, with the tokens of this moment."""
        around: dict[str, tuple[str, int]] = {}
        for role, wanted in (("bos_token", self._add_bos_token), ("eos_token", self._add_eos_token)):
            if wanted:
                token, index = getattr(self, role), getattr(self, f"{role}_id")
                if token is None or index is None:
                    raise ArgumentError(f"add_{role}=True, but {role} is {token!r}. Set {role} first.")
                around[role] = (token, index)
        first = self._template("A", 0, around)
        self._tokenizer.post_processor = processors.TemplateProcessing(
            single=first, pair=first + self._template("B", 1, around), special_tokens=list(around.values())
        )

    @staticmethod
    def _template(text: str, type_id: int, around: Mapping[str, tuple[str, int]]) -> list[str]:
        before = [f"{around['bos_token'][0]}:{type_id}"] if "bos_token" in around else []
        after = [f"{around['eos_token'][0]}:{type_id}"] if "eos_token" in around else []
        return [*before, f"${text}:{type_id}", *after]

    def _put_around(self, flag: str, wanted: bool) -> None:
        with self._lock:
            before = getattr(self, f"_{flag}")
            setattr(self, f"_{flag}", bool(wanted))
            try:
                self.update_post_processor()
            except ArgumentError:
                setattr(self, f"_{flag}", before)
                raise
            self.init_kwargs[flag] = bool(wanted)

    @property
    def add_bos_token(self) -> bool:
        """Whether texts begin with BOS; setting it changes what is put around a text."""
        return self._add_bos_token

    @add_bos_token.setter
    def add_bos_token(self, wanted: bool) -> None:
        self._put_around("add_bos_token", wanted)

    @property
    def add_eos_token(self) -> bool:
        """Whether texts end with EOS; setting it changes what is put around a text."""
        return self._add_eos_token

    @add_eos_token.setter
    def add_eos_token(self, wanted: bool) -> None:
        self._put_around("add_eos_token", wanted)

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Rows of ids with BOS and EOS around each as `add_bos_token` and `add_eos_token` say."""
        before = [cast(int, self.bos_token_id)] if self._add_bos_token else []
        after = [cast(int, self.eos_token_id)] if self._add_eos_token else []
        rows = [token_ids_0] if token_ids_1 is None else [token_ids_0, token_ids_1]
        return [index for row in rows for index in [*before, *row, *after]]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"added_tokens={len(self.added_tokens_decoder)}, model_max_length={self.model_max_length}, "
            f"padding_side={self.padding_side!r}, special_tokens={self.special_tokens_map})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())


def _length(length: float | None) -> int:
    if length is None or length >= UNLIMITED:
        return UNLIMITED
    if not length > -UNLIMITED:
        raise ArgumentError(f"model_max_length={length!r} is no number of tokens.")
    return int(length)


def _side(name: str, side: object) -> str:
    if side not in SIDES:
        raise ArgumentError(f'{name}={side!r} must be "right" or "left".')
    return str(side)


def _added(token: Token, special: set[str]) -> AddedToken:
    """A token with its flag: special where a role names it."""
    if isinstance(token, str):
        return AddedToken(token, special=token in special)
    token.special = token.special or token.content in special
    return token
