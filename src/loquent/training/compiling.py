"""Compiling the blocks of a model for a run, and taking it back; what compiles is torch's."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import torch

from loquent.errors import ArgumentError

if TYPE_CHECKING:
    from loquent.torch.causal import CausalLM


def check_compiler(device: str) -> None:
    """Refuse to compile where torch would find out in the first step that it cannot.

    Args:
        device: where the model will be. On a GPU torch brings its own compiler.

    Raises:
        ArgumentError: it is a CPU, and there is no C++ compiler.
    """
    if torch.device(device).type != "cpu":
        return
    named = _compilers()
    if not any(map(shutil.which, named)):
        raise ArgumentError(
            f"torch_compile=True needs a C++ compiler on a CPU, and {' or '.join(named)} is not on the PATH. Install "
            "one, name it in the environment as CXX, or leave torch_compile out."
        )


def _compilers() -> list[str]:
    """The compilers that torch would call."""
    if sys.platform == "win32":
        return [os.environ.get("CXX", "cl")]
    from torch._inductor import config

    named: Any = config.cpp.cxx
    # None among them stands for one that torch would install, which it does only where that is asked for.
    return [named] if isinstance(named, str) else [name for name in named if name is not None]


def compile_blocks(model: CausalLM) -> None:
    """Let each block be compiled when it is called next; each by itself, since each is told its number."""
    limit = max(torch._dynamo.config.recompile_limit, 4 * len(model.stack.blocks))
    torch._dynamo.config.recompile_limit = limit
    for block in model.stack.blocks:
        block.compile(dynamic=False)


def release_blocks(model: CausalLM) -> None:
    """Let the blocks run as they are written."""
    for block in model.stack.blocks:
        block._compiled_call_impl = None  # what `compile` sets, and nothing takes back
