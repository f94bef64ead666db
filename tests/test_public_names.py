"""The public names: all there, quick to import, and no torch where none is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import loquent

# Also what a program written for transformers imports for text generation, by the documentation of the model families.
DOCUMENTED = """
load pipeline set_seed AutoConfig AutoModel AutoModelForCausalLM AutoTokenizer GenerationConfig PretrainedConfig
LlamaConfig LlamaModel LlamaForCausalLM LlamaTokenizer LlamaTokenizerFast GPT2Config GPT2Model GPT2LMHeadModel
GPT2Tokenizer GPT2TokenizerFast GPTNeoConfig GPTNeoModel GPTNeoForCausalLM GPTBigCodeConfig GPTBigCodeModel
GPTBigCodeForCausalLM GPTNeoXConfig GPTNeoXModel GPTNeoXForCausalLM GPTNeoXTokenizerFast DogeConfig DogeModel
DogeForCausalLM PreTrainedTokenizerFast BatchEncoding TextStreamer TextIteratorStreamer AsyncTextIteratorStreamer
StoppingCriteria StoppingCriteriaList MaxLengthCriteria MaxTimeCriteria LogitsProcessor LogitsProcessorList
Constraint DisjunctiveConstraint PhrasalConstraint
"""


# Training is torch's, but for what is about its files, its arguments and its reports.
NEED_TORCH = re.compile(r"loquent\.(torch|training\.(?!data|arguments|events|reports))\b")


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", loquent.__all__)
def test_every_name_resolves(name: str) -> None:
    value = getattr(loquent, name)
    assert name == "__version__" or value.__name__ in (name, name.removesuffix("Fast"), "PreTrainedTokenizer")


def test_what_is_documented_is_public() -> None:
    assert set(DOCUMENTED.split()) <= set(loquent.__all__)
    assert sorted(loquent.__all__) == dir(loquent)
    with pytest.raises(AttributeError, match="has no attribute 'AutoModelForTelepathy'"):
        loquent.AutoModelForTelepathy  # noqa: B018


def test_importing_loquent_imports_neither_torch_nor_numpy() -> None:
    done = in_a_process(
        "import loquent, sys; print(*sorted({'torch', 'numpy', 'tokenizers', 'rich'} & set(sys.modules)))"
    )
    assert (done.stdout, done.stderr) == ("\n", "")


def test_nothing_outside_the_torch_backend_needs_torch_to_be_imported() -> None:
    folder = Path(loquent.__file__).parent
    paths = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py")]
    names = {".".join(["loquent", *path.parts]).removesuffix(".__init__") for path in paths}
    modules = sorted(name for name in names if not name.endswith("__main__") and not NEED_TORCH.match(name))
    assert len(modules) > 50
    blocked = "import sys, importlib; sys.modules['torch'] = None; [importlib.import_module(name) for name in %r]"
    done = in_a_process(blocked % modules)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_that_need_torch_say_how_to_get_it() -> None:
    code = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, NoTorch())
import loquent
try:
    loquent.AutoModelForCausalLM
except loquent.MissingExtraError as error:
    print(error)
"""
    done = in_a_process(code)
    assert done.stdout == (
        'loquent.AutoModelForCausalLM needs torch, which is not installed. Run: pip install "loquent[torch]"\n'
    )
