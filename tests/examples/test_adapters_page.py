"""docs/adapters.md: every program prints what the page says, and the table has the fields that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pages
import pytest

from loquent import LoraConfig
from loquent.native import why_unavailable

PAGE = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text("utf-8")


@pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core to run what is merged: {why_unavailable()}")
def test_programs_print_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they do not any more: python tests/examples/pages.py docs/adapters.md, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    found = [(example, example.output(known)) for example in pages.examples(PAGE)]
    assert len(found) == 4
    assert [(example.line, printed) for example, printed in found] == [
        (example.line, example.shown) for example, _ in found
    ]


def test_every_field_is_in_the_table_with_its_default() -> None:
    table = PAGE.split("| field | default | meaning |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| *(\S*?) *\|", table, re.MULTILINE)
    told = {name: default.strip('"') for names, default in rows for name in re.findall(r"\w+", names)}
    defaults = {name: str(value) for name, value in LoraConfig().to_dict().items() if name != "peft_type"}
    assert told.keys() == defaults.keys()
    assert {name: value for name, value in told.items() if value} == {
        name: defaults[name] for name, value in told.items() if value
    }
