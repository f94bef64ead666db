"""The compiled extension `loquent.native._core`: whether it is there, and what to do where it is not."""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import Any

from loquent.errors import ArgumentError, NativeError

_REMEDY = 'Install a C++ compiler and reinstall Loquent, or run models on PyTorch: pip install "loquent[torch]"'


def why_unavailable() -> str | None:
    """Why nothing can run natively in this process, in a few words; None where it can.

    The environment variable LOQUENT_NATIVE=0 turns the native core off.

    Raises:
        ArgumentError: LOQUENT_NATIVE is neither 0 nor 1, or LOQUENT_THREADS or LOQUENT_ISA make no sense.
    """
    switch = os.environ.get("LOQUENT_NATIVE", "1")
    if switch not in ("0", "1", ""):
        raise ArgumentError(f"LOQUENT_NATIVE={switch!r} must be 0 (the native core is not used) or 1, the default.")
    return "LOQUENT_NATIVE=0" if switch == "0" else _load()[1]


def available() -> bool:
    """Whether models can run natively in this process."""
    return why_unavailable() is None


def core() -> Any:
    """The module `loquent.native._core`.

    Raises:
        NativeError: it is turned off, was not built, or does not load.
    """
    why = why_unavailable()
    if why:
        remedy = "Unset LOQUENT_NATIVE to use it." if why.startswith("LOQUENT_NATIVE") else f"{_REMEDY}."
        raise NativeError(f"The native core cannot be used: {why}. {remedy}")
    return _load()[0]


@cache
def _load() -> tuple[Any, str | None]:
    """The extension, or why there is none; where LOQUENT_THREADS or LOQUENT_ISA make no sense, that is an error."""
    try:
        module = importlib.import_module("loquent.native._core")
    except ModuleNotFoundError:
        return None, "it was not built when Loquent was installed"
    except ImportError as error:
        return None, f"it does not load ({error})"
    try:
        module.instruction_set(), module.threads()
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    return module, None
