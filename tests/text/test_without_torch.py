"""Everything that text needs, in an environment where torch is not installed: blocked here, really absent when slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loquent.native import why_unavailable

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

# Not sys.modules["torch"] = None, by which other libraries take torch for imported.
BLOCK = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, NoTorch())
"""

WRITE = """
import json, sys
import numpy as np
import loquent

model = loquent.load(sys.argv[1], precision=sys.argv[2])
options = {"max_new_tokens": 12, "do_sample": False}
prompt = "Once upon a time"
text = model.generate(prompt, **options)
assert "".join(model.stream(prompt, **options)) == text
assert model.generate([prompt, "The dog"], **options)[0] == text
drawn = model.generate(prompt, do_sample=True, temperature=0.9, top_p=0.9, seed=3, max_new_tokens=12)
assert model.generate(prompt, num_beams=3, max_new_tokens=12)
assert model.generate(prompt, stop_strings=["a"], tokenizer=model.tokenizer, max_new_tokens=12).count("a") == 0
template = "{% for message in messages %}{{ message.content }} {% endfor %}"
chat = model.chat([{"role": "user", "content": prompt}], chat_template=template, **options)
score = model.score(" there was a cat.", given=prompt)
ids = model.tokenizer(prompt)["input_ids"]
found = model.model.generate([ids], **options)
assert isinstance(found, np.ndarray)
assert model.tokenizer.decode(found[0, len(ids):]).strip() == text.strip()
found = model.model.generate(model.tokenizer([prompt], return_tensors="np"), **options)
assert isinstance(found, np.ndarray)
pipe = loquent.pipeline("text-generation", model=sys.argv[1], dtype=sys.argv[2])
[result] = pipe(prompt, **options)
assert result["generated_text"].startswith(prompt)
loquent.set_seed(1)
try:
    loquent.load(sys.argv[1], device="cuda")
except loquent.MissingExtraError as error:
    assert 'pip install "loquent[torch]"' in str(error)
else:
    raise AssertionError("torch was found")
assert "torch" not in sys.modules
print(json.dumps([text, drawn, chat, score.total, model.describe()]))
"""

COMMANDS = """
from loquent.cli.app import app
from typer.testing import CliRunner

def run(*arguments, stdin=""):
    result = CliRunner().invoke(app, arguments, input=stdin, prog_name="loquent")
    assert result.exit_code == 0, (arguments, result.output)
    return result.stdout

model, out = sys.argv[1:]
text = run("generate", "Once upon a time", "-m", model, "-n", "12", "-q")
assert text == run("generate", "-m", model, "-n", "12", "-q", stdin="Once upon a time")
run("quantize", model, out, "--precision", "int4")
assert run("generate", "Once upon a time", "-m", out, "-n", "12", "-q").startswith("Once upon a time")
assert run("chat", "Once upon a time", "-m", model, "-n", "5", "--raw", "-q")
assert len(run("score", "Once upon a time", "A dog", "-m", model, "--precision", "int8").splitlines()) == 2
assert "native core" in run("doctor")
assert "torch" not in sys.modules
print(text)
"""


def run(python: str, code: str, *arguments: str) -> str:
    """What a program prints in an interpreter of its own."""
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [python, "-c", code, *arguments], capture_output=True, text=True, timeout=120, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> str:
    return str(shared_data / "models/stories260k")


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_text_is_generated_streamed_chatted_and_scored(stories: str, precision: str) -> None:
    import loquent

    text, drawn, chat, total, described = json.loads(run(sys.executable, BLOCK + WRITE, stories, precision))
    model = loquent.load(stories, precision=precision)  # type: ignore[arg-type]
    assert text == model.generate("Once upon a time", max_new_tokens=12, do_sample=False)
    assert drawn == model.generate(
        "Once upon a time", do_sample=True, temperature=0.9, top_p=0.9, seed=3, max_new_tokens=12
    )
    assert chat
    assert total == pytest.approx(model.score(" there was a cat.", given="Once upon a time").total, rel=1e-5)
    assert described.startswith("native (")


def test_the_command_line(stories: str, tmp_path: Path) -> None:
    assert run(sys.executable, BLOCK + COMMANDS, stories, str(tmp_path / "packed")).startswith("Once upon a time, ")


LIGHT = """
import sys
import loquent

model = loquent.load(sys.argv[1])
next(model.stream("Once upon a time", max_new_tokens=2))
heavy = {"asyncio", "huggingface_hub", "jinja2", "rich", "ssl", "torch", "typer", "zipfile"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_a_local_folder_takes_no_library_that_it_does_not_need(stories: str, tmp_path: Path) -> None:
    from loquent.native.loading import quantize

    for folder in (stories, str(quantize(stories, tmp_path / "packed"))):
        found = set(run(sys.executable, LIGHT, folder).split())
        assert found <= ({"zipfile"} if sys.version_info < (3, 11) else set())


def test_torch_steps_in_openly_where_the_core_is_not_there(stories: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import loquent

    expected = loquent.load(stories).generate("Once upon a time", max_new_tokens=12, do_sample=False)
    monkeypatch.setenv("LOQUENT_NATIVE", "0")
    model = loquent.load(stories)
    assert model.obstacle == "LOQUENT_NATIVE=0"
    assert model.describe() == "torch (float32 on cpu; LOQUENT_NATIVE=0)"
    assert model.generate("Once upon a time", max_new_tokens=12, do_sample=False) == expected
    for precision in ("int8", "int4"):
        with pytest.raises(loquent.NativeError, match="Unset LOQUENT_NATIVE"):
            loquent.load(stories, precision=precision)  # type: ignore[arg-type]


def test_without_either_the_error_names_both_ways(stories: str) -> None:
    code = (
        BLOCK
        + """
import os
os.environ["LOQUENT_NATIVE"] = "0"
import loquent
try:
    loquent.load(sys.argv[1])
except loquent.NativeError as error:
    print(error)
"""
    )
    assert "Unset LOQUENT_NATIVE" in run(sys.executable, code, stories)


@pytest.mark.slow
def test_an_environment_without_torch(stories: str, tmp_path: Path) -> None:
    """Installed from this checkout with its pins, as users do."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = str(environment / "bin/python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--constraint", ROOT / "constraints.txt", str(ROOT)], check=True, timeout=900)
    listed = run(python, "import importlib.metadata as m; print(*sorted(d.name for d in m.distributions()))")
    assert "torch" not in listed.split()
    assert json.loads(run(python, WRITE, stories, "int8"))[-1].startswith("native (")
    assert run(python, "import sys\n" + COMMANDS, stories, str(tmp_path / "packed")).startswith("Once upon a time, ")
