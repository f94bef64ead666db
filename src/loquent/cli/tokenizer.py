"""`loquent tokenizer train`: a tokenizer of one's own from texts, in a folder; how one is learned is not known here."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from loquent.cli.destinations import check_folder
from loquent.cli.failures import reported
from loquent.cli.groups import command_group
from loquent.cli.terminal import Terminal
from loquent.errors import ArgumentError

EPILOG = """[bold]Examples[/bold]

loquent tokenizer train --text stories.txt --vocab-size 8192 --out my-tokenizer

loquent tokenizer train --text a.txt.xz --text b.jsonl --dialogues talks.jsonl --special "<|user|>" --pad "<|pad|>"
--chat-template chat.jinja --out my-tokenizer

[bold]Exit codes[/bold]: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

tokenizer = command_group("tokenizer", "Make tokenizers.")
# How many characters are read between two remarks.
_TOLD_EVERY = 1_000_000


def _files(about: str) -> Any:
    return typer.Option(metavar="FILE", help=f"{about} May be given several times.", show_default=False)


def _token(about: str) -> Any:
    return typer.Option(metavar="TOKEN", help=about)


@tokenizer.command("train", epilog=EPILOG)
def train(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write, made if need be.")],
    text: Annotated[
        list[Path] | None,
        _files("Text: .txt with documents separated by a line <|endoftext|>, or .jsonl; also .xz, .gz."),
    ] = None,
    dialogues: Annotated[list[Path] | None, _files('Conversations: .jsonl with "turns" or "messages".')] = None,
    vocab_size: Annotated[int, typer.Option(metavar="N", help="Tokens, with the bytes and the special ones.")] = 8192,
    special: Annotated[
        list[str] | None, _token("A token that the text never makes. May be given several times.")
    ] = None,
    bos: Annotated[str, _token('Begins a text; "" for none.')] = "<|endoftext|>",
    eos: Annotated[str, _token('Ends a text; "" for none.')] = "<|endoftext|>",
    pad: Annotated[str | None, _token("Fills rows up.")] = None,
    unk: Annotated[str | None, _token("For programs that ask for one; nothing is unknown.")] = None,
    min_frequency: Annotated[int, typer.Option(metavar="N", help="How often a pair must stand in the text.")] = 2,
    digits: Annotated[bool, typer.Option("--digits", help="Make every digit a token of its own.")] = False,
    add_prefix_space: Annotated[
        bool, typer.Option("--add-prefix-space", help="Read a text as if a space were before it.")
    ] = False,
    add_bos: Annotated[bool, typer.Option("--add-bos", help="Put the token of --bos before every text.")] = False,
    chat_template: Annotated[
        Path | None, typer.Option(metavar="FILE", help="How a conversation is written, in Jinja.")
    ] = None,
    model_max_length: Annotated[
        int | None, typer.Option(metavar="N", help="The positions that the model will have.", show_default=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Learn a byte-level BPE tokenizer from text and conversations.

    The folder holds tokenizer.json, tokenizer_config.json, special_tokens_map.json and the chat template: what Loquent
    and transformers load. The same files give the same tokenizer.
    """
    terminal = Terminal(quiet)
    with reported(terminal, debug):
        from loquent.tokenization.training import train_tokenizer

        check_folder("--out", out)
        _check_new(out)
        progress = _Progress(terminal)
        made = train_tokenizer(
            _texts(text or [], dialogues or []),
            vocab_size,
            special_tokens=special or [],
            bos_token=bos or None,
            eos_token=eos or None,
            pad_token=pad,
            unk_token=unk,
            min_frequency=min_frequency,
            split_digits=digits,
            add_prefix_space=add_prefix_space,
            add_bos_token=add_bos,
            chat_template=None if chat_template is None else _source(chat_template),
            model_max_length=model_max_length,
            on_read=progress.read,
        )
        made.save_pretrained(out)
        terminal.notice(f"{out}: {len(made):,} tokens")


def _texts(text: Sequence[Path], dialogues: Sequence[Path]) -> Iterator[str]:
    """Every document of the text files, then every turn of the conversations; missing files are found at once."""
    from loquent.training.data import read_dialogues, read_texts

    if not [*text, *dialogues]:
        raise ArgumentError("There is nothing to read. Pass files: --text, --dialogues, or both.")
    documents = read_texts(text) if text else iter(())
    spoken = read_dialogues(dialogues) if dialogues else iter(())
    turns = (message["content"] or "" for dialogue in spoken for message in dialogue.messages)
    return chain(documents, turns)


class _Progress:
    """How much has been read, on one line of a terminal; what follows the reading tells nothing before its end."""

    def __init__(self, terminal: Terminal) -> None:
        self._live = sys.stderr.isatty() and not terminal.quiet
        self._told = 0

    def read(self, texts: int, characters: int) -> None:
        """Called after each text."""
        if self._live and characters - self._told >= _TOLD_EVERY:
            self._told = characters
            sys.stderr.write(f"\r{texts:,} texts, {characters / 1e6:,.0f} M characters")
            sys.stderr.flush()


def _check_new(folder: Path) -> None:
    """Refuse a folder with a tokenizer in it: what it has of other formats would be found beside the new files."""
    from loquent.tokenization.loading import CONFIG, TEMPLATE, VOCABULARY

    there = next((name for name in (*VOCABULARY, CONFIG, TEMPLATE) if (folder / name).exists()), None)
    if there is not None:
        raise ArgumentError(f"--out {folder} holds a tokenizer already ({there}). Remove it, or name another folder.")


def _source(template: Path) -> str:
    try:
        return template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"--chat-template {template} cannot be read: {error}.") from error
