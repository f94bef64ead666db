"""`loquent chat`: a conversation in the terminal, or over a pipe with a turn a line."""

from __future__ import annotations

import contextlib
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from loquent.cli.failures import reported
from loquent.cli.loading import load_model
from loquent.cli.memory import MemoryOptions
from loquent.cli.options import ModelOptions, OutputOptions, WritingOptions
from loquent.cli.session import Session
from loquent.cli.statistics import Statistics
from loquent.cli.strategies import StrategyOptions
from loquent.cli.terminal import Terminal
from loquent.errors import ArgumentError, LoquentError, TemplateError

RAW = "{% for message in messages %}{{ message.content }}\n{% endfor %}"

EPILOG = """[bold]Examples[/bold]

loquent chat --model SmallDoge/Doge-20M-Instruct

loquent chat --model microsoft/DialoGPT-small --turns-joined-by-eos --sample --seed 1

echo "What is the capital of France?" | loquent chat --model SmallDoge/Doge-20M-Instruct --quiet

[bold]While it runs[/bold]: Ctrl-C stops an answer, Ctrl-D leaves. /help lists the commands.

[bold]Exit codes[/bold]: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

HELP = """/reset      forget the conversation
/undo       take the last question and its answer back
/retry      answer the last question again
/save FILE  write the conversation to a file, as JSON
/quit       leave (or Ctrl-D)"""


def chat(
    model: ModelOptions,
    writing: WritingOptions,
    strategy: StrategyOptions,
    memory: MemoryOptions,
    output: OutputOptions,
    message: Annotated[str | None, typer.Argument(help="The first thing to say.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="What the model is told beforehand.")] = None,
    turns_joined_by_eos: Annotated[
        bool, typer.Option("--turns-joined-by-eos", help="Write the conversation as DialoGPT was trained on it.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="No chat template: the model continues the lines so far.")] = False,
) -> None:
    """Talk with a model.

    The conversation is written by the model's own chat template. When it no longer fits into the model's positions,
    the oldest turns are forgotten, with a notice. Lines from a pipe are answered one after another. With --json each
    answer is a line with "content", "tokens" and "finish_reason".
    """
    terminal = Terminal(output.quiet)
    with reported(terminal, output.debug):
        if raw and turns_joined_by_eos:
            raise ArgumentError("--raw and --turns-joined-by-eos are two ways to write a conversation. Pass one.")
        loaded = load_model(model, terminal, memory.kv_memory)
        chosen = strategy.for_generation(loaded, lambda name: load_model(replace(model, model=name), terminal))
        chosen |= memory.for_generation(chosen)
        session = Session(loaded, writing.for_generation(loaded, chosen), system)
        if turns_joined_by_eos:
            from loquent.tokenization.templates import TURNS_JOINED_BY_EOS

            session.chat_template = TURNS_JOINED_BY_EOS
        elif raw:
            session.chat_template = RAW
        if session.chat_template is None and loaded.tokenizer.chat_template is None:
            raise TemplateError(
                "the model has no chat template, so it does not say how a conversation is written. Pass "
                "--turns-joined-by-eos for DialoGPT and its like, or --raw to have it continue plain lines."
            )
        Conversation(session, terminal, output.json).run(message)


class Conversation:
    """The loop of reading a line and answering it."""

    def __init__(self, session: Session, terminal: Terminal, as_json: bool) -> None:
        self.session = session
        self.terminal = terminal
        self.as_json = as_json
        self.interactive = sys.stdin.isatty()

    def run(self, message: str | None) -> None:
        """Answer `message`, if there is one, and then line after line; on its own it is all where there is no pipe."""
        if self.interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 (makes input() editable)
            self.terminal.notice("Ctrl-C stops an answer, Ctrl-D leaves, /help lists the commands.")
        if message is not None:
            self._ask(message)
        while (line := self._read()) is not None:
            if line.startswith("/"):
                if not self._command(*line.split(maxsplit=1)):
                    return
            elif line.strip():
                self._ask(line)

    def _read(self) -> str | None:
        """The next line; None at the end."""
        if not self.interactive:
            line = sys.stdin.readline()
            return line.rstrip("\n") if line else None
        while True:
            try:
                return input("> ")
            except EOFError:
                self.terminal.text("\n")
                return None
            except KeyboardInterrupt:
                self.terminal.text("\n")
                self.terminal.notice("Ctrl-D or /quit leaves.")

    def _command(self, name: str, argument: str = "") -> bool:
        """Carry a command out; whether the conversation goes on."""
        session, notice = self.session, self.terminal.notice
        if name in ("/quit", "/exit"):
            return False
        if name == "/reset":
            session.turns.clear()
            notice("The conversation is forgotten.")
        elif name == "/undo":
            notice("The last question is taken back." if session.undo() else "There is nothing to take back.")
        elif name == "/retry":
            if session.take_answer_back():
                self._answer()
            else:
                notice("There is nothing to answer again.")
        elif name == "/save":
            self._save(argument.strip())
        else:
            notice(HELP if name == "/help" else f"{name} is no command.\n{HELP}")
        return True

    def _save(self, name: str) -> None:
        if not name:
            self.terminal.notice("Name a file: /save conversation.json")
            return
        try:
            self.session.save(Path(name).expanduser())
        except OSError as error:
            self.terminal.error(f"could not write {name}: {error.strerror}")
        else:
            self.terminal.notice(f"Saved to {name}.")

    def _ask(self, text: str) -> None:
        self.session.say(text)
        dropped = self.session.fit()
        if dropped:
            self.terminal.notice(
                f"The conversation is too long for the model: its oldest {dropped} turns are forgotten."
            )
        self._answer()

    def _answer(self) -> None:
        statistics, pieces, finished = Statistics(), [], "cancelled"
        try:
            with closing(self.session.answer()) as events:
                for event in events:
                    statistics.count(event.tokens)
                    pieces.append(event.text)
                    finished = event.finished or finished
                    if not self.as_json:
                        self.terminal.text(event.text)
        except LoquentError as error:
            if not self.interactive:
                raise
            self.terminal.error(str(error))
            return
        except KeyboardInterrupt:
            if not self.interactive:
                raise
        if self.as_json:
            content = {"role": "assistant", "content": "".join(pieces)}
            self.terminal.line({**content, "tokens": statistics.tokens, "finish_reason": finished})
        else:
            self.terminal.text("\n")
        self.terminal.notice(str(statistics))
