"""docs/strategies.md: every command and program prints what the page says, and what it names is there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pages
import pytest

from loquent import GenerationConfig
from loquent.decoding.rules import ORDER
from loquent.generation import generate
from loquent.native import why_unavailable

PAGE = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text("utf-8")


@pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core, and so no int4: {why_unavailable()}")
def test_commands_and_programs_print_what_the_page_says() -> None:
    """Where they do not any more: python tests/examples/pages.py docs/strategies.md"""
    pytest.importorskip("llguidance", reason='structured output needs pip install "loquent[structured]"')
    known: dict[str, Any] = {}
    found = [(example, example.output(known)) for example in pages.examples(PAGE)]
    assert len(found) > 25
    assert [(example.line, printed) for example, printed in found] == [
        (example.line, example.shown) for example, _ in found
    ]
    commands = " ".join(example.source for example, _ in found if not example.is_program)
    for option in (
        "--num-beam-groups",
        "--force-word",
        "--penalty-alpha",
        "--dola-layers",
        "--guidance-scale",
        "--show",
    ):
        assert option in commands


def test_the_rules_are_all_there_with_arguments_that_exist() -> None:
    section = PAGE.split("\n## Rules\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    named = {name.split("=")[0] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    others = {*inspect.signature(generate).parameters, "prefix_allowed_tokens_fn"}
    assert named <= {*GenerationConfig().to_dict(), *others}
    # The two watermarks share a row.
    assert len(rows) == len(ORDER) - 1
    marked = set(re.findall(r"^\| (`.*? \*s\*) \|", section, re.MULTILINE))
    assert len(marked) == 11


def test_links_within_the_page_lead_to_its_headings() -> None:
    headings = {heading.lower().replace(",", "").replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", PAGE, re.M)}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= headings
