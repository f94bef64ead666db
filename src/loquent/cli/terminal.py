"""What the commands print: text to stdout as it is made, everything else to stderr, styled on terminals only."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

# Whatever a model writes, it may not steer the terminal; line breaks and tabs may stay.
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t"}
_CONTROLS[ord("\r")] = ""
# JSON escapes the first half of them by itself.
_ESCAPED = {code: f"\\u{code:04x}" for code in range(127, 160)}


def is_styled(stream: TextIO) -> bool:
    """Whether a stream takes colours: a terminal, unless NO_COLOR (https://no-color.org) or TERM=dumb says no."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _shown(text: str, stream: TextIO) -> str:
    return text.translate(_CONTROLS) if stream.isatty() else text


class Terminal:
    """The two streams of a command."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def text(self, text: str) -> None:
        """A piece of what was written, at once."""
        if text:
            sys.stdout.write(_shown(text, sys.stdout))
            sys.stdout.flush()

    def prompt(self, text: str) -> None:
        """The text that is continued, set off from what follows it."""
        shown = _shown(text, sys.stdout)
        sys.stdout.write(f"\x1b[2m{shown}\x1b[0m" if is_styled(sys.stdout) and shown else shown)
        sys.stdout.flush()

    def line(self, value: dict[str, Any]) -> None:
        """A JSON object, on a line of its own."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False).translate(_ESCAPED) + "\n")
        sys.stdout.flush()

    def notice(self, text: str) -> None:
        """A remark that is not part of the result; `quiet` leaves it out."""
        if not self.quiet:
            self._to_stderr(text, "2")

    def error(self, text: str) -> None:
        """Why there is no result, on one line."""
        self._to_stderr(" ".join(f"error: {text}".split()), "31")

    def _to_stderr(self, text: str, style: str) -> None:
        sys.stdout.flush()
        shown = _shown(text, sys.stderr)
        sys.stderr.write(f"\x1b[{style}m{shown}\x1b[0m\n" if is_styled(sys.stderr) else f"{shown}\n")
        sys.stderr.flush()
