"""docs/memory.md: every command and program prints what the page says, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pages
import pytest

from loquent import GenerationConfig, QuantizedCacheConfig
from loquent.config.generation_checks import _CACHES
from loquent.native import why_unavailable

PAGE = (Path(__file__).parents[2] / "docs" / "memory.md").read_text("utf-8")


@pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core, and so no int4: {why_unavailable()}")
def test_commands_and_programs_print_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they do not any more: python tests/examples/pages.py docs/memory.md"""
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    found = [(example, example.output(known)) for example in pages.examples(PAGE)]
    assert len(found) >= 5
    assert [(example.line, printed) for example, printed in found] == [
        (example.line, example.shown) for example, _ in found
    ]
    assert list(tmp_path.iterdir()) == []


def test_every_cache_implementation_is_named_and_is_one() -> None:
    beginning = PAGE.split("\n## ")[0]
    assert set(re.findall(r'`"(\w+)"`', beginning)) | {"offloaded_hybrid_chunked"} == set(_CACHES)
    for name in _CACHES:
        GenerationConfig(cache_implementation=name)


def test_every_field_is_in_the_table_with_its_default() -> None:
    table = PAGE.split("| field | default | meaning |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| *(\S*?) *\|", table, re.MULTILINE))
    told = {name: default.strip('`"') for names, default in rows.items() for name in re.findall(r"\w+", names)}
    defaults = {name: "" if value is None else str(value) for name, value in vars(QuantizedCacheConfig()).items()}
    assert told == defaults


def test_links_within_the_page_lead_to_its_headings() -> None:
    headings = {heading.lower().replace(",", "").replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", PAGE, re.M)}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= headings
