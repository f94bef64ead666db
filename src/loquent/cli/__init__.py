"""The command line: `loquent generate`, `chat`, `score`, `train` and others; imported only when it is run."""

from __future__ import annotations


def main() -> None:
    """The entry point of the `loquent` command."""
    try:
        from loquent.cli.app import app

        app(prog_name="loquent")
    except KeyboardInterrupt:
        # Before a command has begun; commands see to it themselves.
        raise SystemExit(130) from None
