"""Where the extension is missing, broken or turned off, models run in torch, and whoever insists is told what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from loquent.errors import ArgumentError, NativeError
from loquent.native import available, core

_WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "loquent.native._core":
            raise {error}
sys.meta_path.insert(0, Missing())
"""
_GENERATE = """
import torch
from loquent import LlamaConfig, LlamaForCausalLM
shape = dict(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
model.generate(torch.arange(4)[None], max_new_tokens=2)
print(model.describe_backend())
"""
_INSIST = """
from loquent.native import available, core
print(available())
try:
    core()
except RuntimeError as error:
    print(type(error).__name__, error)
"""


def printed(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("ModuleNotFoundError(name)", "it was not built when Loquent was installed"),
        ("ImportError('undefined symbol: x')", "it does not load (undefined symbol: x)"),
    ],
)
def test_without_the_extension(error: str, reason: str) -> None:
    [description, there, said] = printed(_WITHOUT.format(error=error) + _GENERATE + _INSIST)
    assert description == f"torch (float32 on cpu; {reason})"
    assert there == "False"
    assert said == (
        f"NativeError The native core cannot be used: {reason}. Install a C++ compiler and reinstall Loquent, or run "
        'models on PyTorch: pip install "loquent[torch]".'
    )


def test_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUENT_NATIVE", "0")
    assert not available()
    with pytest.raises(NativeError, match=r"cannot be used: LOQUENT_NATIVE=0\. Unset LOQUENT_NATIVE to use it\."):
        core()
    monkeypatch.setenv("LOQUENT_NATIVE", "off")
    with pytest.raises(ArgumentError, match="LOQUENT_NATIVE='off' must be 0"):
        available()


@pytest.mark.skipif(not available(), reason="the native core was not built")
@pytest.mark.parametrize(("variable", "value"), [("LOQUENT_THREADS", "some"), ("LOQUENT_ISA", "mmx")])
def test_a_setting_that_makes_no_sense_is_an_error_of_the_user(variable: str, value: str) -> None:
    code = f"import os; os.environ[{variable!r}] = {value!r}\n{_INSIST.replace('RuntimeError', 'Exception')}"
    code = code.replace("print(available())", "")
    [said] = printed(code)
    assert said.startswith(f"ArgumentError {variable}={value} ")
