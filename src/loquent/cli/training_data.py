"""What `loquent train` reads: options for texts and conversations, and the tokenized documents that they become."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from loquent.cli.options import group_option
from loquent.errors import ArgumentError

if TYPE_CHECKING:
    from loquent.tokenization import PreTrainedTokenizer
    from loquent.training.data import DialogueFormat, Examples

_DATA = "Data"
_SHARE = 0.05
_FEWEST = 20
"""Documents of which a share is held out without being asked for."""
T = TypeVar("T")
Watch = Callable[[str, Iterable[T]], Iterable[T]]
"""Shows how many items an iterable has given, under a title."""


class FormatName(str, Enum):
    """What `--dialogue-format` takes."""

    template = "template"
    eos = "eos"


class SpeakerName(str, Enum):
    """What `--speaker` takes."""

    second = "second"
    both = "both"


def _files(help: str) -> Any:
    return group_option(_DATA, metavar="FILE", help=help)


@dataclass(frozen=True)
class DataOptions:
    """Files to learn from, and how they are read."""

    text: Annotated[
        list[Path] | None,
        _files("Texts: .txt with documents between lines <|endoftext|>, or .jsonl; also .gz, .xz, .bz2, folders."),
    ] = None
    dialogues: Annotated[list[Path] | None, _files('Conversations: .jsonl with "turns" or "messages".')] = None
    dialogue_format: Annotated[
        FormatName | None,
        group_option(
            _DATA, help="By the chat template, or turns ended by EOS. (default: template, where the model has one)"
        ),
    ] = None
    all_turns: Annotated[bool, group_option(_DATA, "--all-turns", help="Learn every turn, not the answers only.")] = (
        False
    )
    speaker: Annotated[
        SpeakerName, group_option(_DATA, help='Who answers in "turns"; both: each in turn.', show_default=True)
    ] = SpeakerName.second
    eval_text: Annotated[list[Path] | None, _files("Held-out texts.")] = None
    eval_dialogues: Annotated[list[Path] | None, _files("Held-out conversations.")] = None
    eval_share: Annotated[
        float | None,
        group_option(
            _DATA,
            min=0,
            max=0.99,
            metavar="X",
            help=f"Documents to hold out where no files are. (default: {_SHARE}, of {_FEWEST} or more)",
        ),
    ] = None
    max_length: Annotated[
        int | None, group_option(_DATA, min=2, metavar="N", help="Tokens in a pack. (default: 512, or all positions)")
    ] = None
    packing: Annotated[
        bool, group_option(_DATA, "--packing/--no-packing", help="Several pieces share a pack, or each is padded.")
    ] = True

    def check(self) -> None:
        """Refuse what contradicts itself, before anything is read.

        Raises:
            ArgumentError: no files, or options that say two things.
            DataError: a file is missing, or its name does not say its form.
        """
        from loquent.training.data import read_dialogues, read_texts

        if not self.text and not self.dialogues:
            raise ArgumentError("There is nothing to learn from. Pass --text FILE, --dialogues FILE, or both.")
        if not self.dialogues and not self.eval_dialogues and (self.dialogue_format or self.all_turns):
            raise ArgumentError("--dialogue-format and --all-turns are about conversations. Pass --dialogues FILE.")
        if self.dialogue_format == FormatName.eos and self.all_turns:
            raise ArgumentError("--dialogue-format eos learns every turn as it is. Leave --all-turns out.")
        if self.eval_share is not None and (self.eval_text or self.eval_dialogues):
            raise ArgumentError("--eval-share is for runs without --eval-text and --eval-dialogues. Leave one out.")
        for texts in (self.text, self.eval_text):
            read_texts(texts) if texts else None
        for dialogues in (self.dialogues, self.eval_dialogues):
            read_dialogues(dialogues, speaker=self.speaker.value) if dialogues else None

    def written_as(self, tokenizer: PreTrainedTokenizer) -> DialogueFormat | None:
        """How conversations become text; None where there are none.

        Raises:
            ArgumentError, TemplateError: the tokenizer cannot write them so.
        """
        from loquent.training.data import JoinedByEos, Templated

        if not self.dialogues and not self.eval_dialogues:
            return None
        if self.dialogue_format == FormatName.eos:
            return JoinedByEos.of(tokenizer)
        if self.dialogue_format is None and not tokenizer.chat_template:
            raise ArgumentError(
                "The model has no chat template by which conversations could be written. Pass --dialogue-format eos "
                "(turns ended by EOS, as DialoGPT has them), or a tokenizer with a template."
            )
        return Templated.of(tokenizer, answers_only=not self.all_turns)

    def examples(
        self, tokenizer: PreTrainedTokenizer, seed: int, watch: Watch[Any]
    ) -> tuple[Examples, Examples | None]:
        """The documents to learn from, and those that are held out.

        Raises:
            DataError, TemplateError: a file is damaged, or has another form.
            ArgumentError: too few documents to hold some out.
        """
        written_as = self.written_as(tokenizer)
        learned = _encoded(tokenizer, self.text, self.dialogues, written_as, self.speaker.value, watch)
        if self.eval_text or self.eval_dialogues:
            held_out = _encoded(
                tokenizer, self.eval_text, self.eval_dialogues, written_as, self.speaker.value, watch, "held-out "
            )
            return learned, held_out
        share = self.eval_share
        if share is None:
            share = _SHARE if len(learned) >= _FEWEST else 0
        return learned.split(share, seed) if share else (learned, None)


def _encoded(
    tokenizer: PreTrainedTokenizer,
    texts: Sequence[Path] | None,
    dialogues: Sequence[Path] | None,
    written_as: DialogueFormat | None,
    speaker: Any,
    watch: Watch[Any],
    title: str = "",
) -> Examples:
    from loquent.training.data import Examples, encode_dialogues, encode_texts, read_dialogues, read_texts

    parts = []
    if texts:
        parts.append(encode_texts(tokenizer, watch(f"{title}texts", read_texts(texts))))
    if dialogues and written_as is not None:
        read = watch(f"{title}conversations", read_dialogues(dialogues, speaker=speaker))
        parts.append(encode_dialogues(tokenizer, read, written_as))
    return parts[0] if len(parts) == 1 else Examples.joined(parts)


def unwatched(_: str, items: Iterable[T]) -> Iterator[T]:
    """The items, shown to nobody."""
    return iter(items)
