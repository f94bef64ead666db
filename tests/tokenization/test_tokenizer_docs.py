"""The examples of docs/tokenizers.md run as they are written, one after another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loquent.tokenization import GPT2Tokenizer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tokenizers.md"


def test_examples(
    small: GPT2Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small.save_pretrained(tmp_path / "path/to/model")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) >= 9
    names: dict[str, object] = {}
    for example in examples:
        # `from loquent import ...` needs every part of the package; the names live here.
        exec(example.replace("from loquent import", "from loquent.tokenization import"), names)
    assert capsys.readouterr().out == "naïve café\n"
    assert (tmp_path / "path/to/copy/tokenizer.json").is_file()
    assert "user: Hello!\nbot:" in str(names["text"])
