"""`python -m loquent`: the command line."""

from __future__ import annotations

from loquent.cli import main

if __name__ == "__main__":
    main()
