"""A process that runs models natively can be forked and can end at any moment, with threads in the middle of a step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from folders import make

from loquent.native import available

pytestmark = pytest.mark.skipif(not available(), reason="the native core was not built")

_GENERATING = """
import os, sys, threading, time
import numpy as np
from loquent.native import core
from loquent.native.loading import load_native

core().set_threads(2)
model = load_native(sys.argv[1], "int8")
prompt = np.arange(40)[None]
expected = model.generate(prompt, max_new_tokens=8).tolist()
stopping = False

def generate():
    while not stopping:
        model.generate(prompt, max_new_tokens=20)

thread = threading.Thread(target=generate, daemon=True)
thread.start()
"""
_END = "time.sleep(0.05); print('the end')"
_FORK = """
for _ in range(10):
    time.sleep(0.01)
    child = os.fork()
    if not child:
        core().set_threads(3)
        os._exit(model.generate(prompt, max_new_tokens=8).tolist() != expected)
    for _ in range(2000):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        sys.exit("the child hangs")
    if status:
        sys.exit(f"the child failed: {status}")
stopping = True
thread.join()
print("the end")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    make("gpt2").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("behind", [_END, _FORK], ids=["ends", "is forked"])
def test_while_a_thread_generates_the_process(behind: str, folder: Path) -> None:
    command = [sys.executable, "-c", _GENERATING + behind, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")
