"""`--show` and `--html`: what is drawn of how a text came about, where, and what it takes; drawing is `visual`'s."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from loquent.cli.destinations import check_file, write_file
from loquent.cli.options import group_option
from loquent.cli.terminal import Terminal, is_styled
from loquent.errors import ArgumentError

if TYPE_CHECKING:
    from rich.console import Console

    from loquent.decoding.trace import Trace
    from loquent.text import TextModel
    from loquent.visual import View

_LOOKING = "Looking"
_WIDTH_OF_FILES = 120


class ViewName(str, Enum):
    """What `--show` takes."""

    beams = "beams"
    probs = "probs"
    draft = "draft"
    layers = "layers"


_NEEDS = {
    ViewName.beams: "draws a beam search, and one beam is none. Pass --num-beams 4, or --show probs.",
    ViewName.draft: "draws drafts, and nothing drafts. Pass --assistant, --prompt-lookup or --early-exit.",
    ViewName.layers: "draws the layers that DoLa chooses. Pass --dola-layers low.",
}


@dataclass(frozen=True)
class ShowOptions:
    """What is drawn besides the text."""

    show: Annotated[
        list[ViewName] | None,
        group_option(
            _LOOKING,
            "--show",
            help="Draw the beams searched, the probabilities of tokens, the drafts, or DoLa's layers. "
            "May be given several times.",
        ),
    ] = None
    html: Annotated[
        Path | None, group_option(_LOOKING, "--html", metavar="FILE", help="Draw all there is on one page, in FILE.")
    ] = None

    @property
    def any(self) -> bool:
        """Whether anything is to be drawn."""
        return bool(self.show) or self.html is not None

    def check(self, model: TextModel, options: dict[str, Any], as_json: bool) -> None:
        """Refuse what could not be drawn, before any work.

        Raises:
            ArgumentError: a view needs another strategy, or the page cannot be where it should.
        """
        if self.show and as_json:
            raise ArgumentError("--show draws for people, and --json prints for programs. Leave one of them out.")
        for view in self.show or ():
            if not _is_there(view, model, options):
                raise ArgumentError(f"--show {view.value} {_NEEDS[view]}")
        if self.html is not None:
            check_file("--html", self.html, "trace.html")

    def draw(self, model: TextModel, traces: Sequence[Trace], terminal: Terminal) -> None:
        """Draw in the terminal, and write the page."""
        from loquent.visual import TokenTexts

        texts = TokenTexts(model.tokenizer)
        if self.show:
            self._to_terminal(traces, texts)
        if self.html is not None:
            from loquent.visual.html import page

            write_file(self.html, page(traces, texts))
            terminal.notice(f"Drawn in {self.html}.")

    def _to_terminal(self, traces: Sequence[Trace], texts: Any) -> None:
        from loquent.visual.terminal import Canvas, draw

        console = _console()
        canvas = Canvas(texts, console.width, console.color_system is not None, folded=console.is_terminal)
        for number, trace in enumerate(traces, 1):
            for view in dict.fromkeys(self.show or ()):
                console.print()
                if len(traces) > 1:
                    console.rule(f"{number} of {len(traces)}", style="dim")
                name: View = view.value
                console.print(draw(name, trace, canvas))


def _console() -> Console:
    """stdout: in colours on terminals that take them; wide, and without what a terminal alone understands, else."""
    from rich.console import Console

    styled = is_styled(sys.stdout)
    return Console(
        file=sys.stdout,
        width=None if sys.stdout.isatty() else _WIDTH_OF_FILES,
        no_color=not styled,
        color_system="auto" if styled else None,
        force_terminal=sys.stdout.isatty(),
        markup=False,
        emoji=False,
        highlight=False,
    )


def _is_there(view: ViewName, model: TextModel, options: dict[str, Any]) -> bool:
    """Whether what was asked for, over the model's own generation config, has what a view draws."""
    config = model.model.generation_config

    def asked(name: str) -> Any:
        return options[name] if options.get(name) is not None else getattr(config, name)

    if view is ViewName.beams:
        return bool(asked("num_beams") > 1)
    if view is ViewName.draft:
        drafting = options.get("assistant_model"), asked("prompt_lookup_num_tokens"), asked("assistant_early_exit")
        return any(each is not None for each in drafting)
    return view is ViewName.probs or asked("dola_layers") is not None
