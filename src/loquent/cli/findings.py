"""What `loquent doctor` finds: facts of this machine and installation; prints nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loquent.errors import ArgumentError, CheckpointError
from loquent.sizes import shown_size
from loquent.version import __version__

_LIBRARIES = ("numpy", "tokenizers", "safetensors", "huggingface_hub", "jinja2", "array-api-compat", "array-api-extra")
_CPU_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "i8mm",
    "sve",
)


@dataclass(frozen=True)
class Finding:
    """One fact; a `remedy` where something needed is missing."""

    name: str
    value: str
    remedy: str | None = None


def findings() -> list[Finding]:
    """Everything, in the order in which it is shown."""
    return [
        Finding("loquent", __version__),
        Finding("python", f"{platform.python_version()} ({sys.executable})"),
        Finding("system", platform.platform()),
        *_libraries(),
        _native(),
        _torch(),
        _cpu(),
        _memory(),
        _gpu(),
        *_hub(),
        _default_model(),
    ]


def _libraries() -> Iterator[Finding]:
    for name in _LIBRARIES:
        version = _version(name)
        remedy = None if version else f'needed and not installed. Run: pip install "{name}"'
        yield Finding(name, version or "missing", remedy)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _native() -> Finding:
    """The native core; needed where there is no torch either."""
    from loquent.native import core, why_unavailable
    from loquent.text.loading import has_torch

    try:
        why = why_unavailable()
    except ArgumentError as error:
        return Finding("native core", "unknown", str(error))
    if why:
        remedy = "nothing else can run models here. Install a C++ compiler, and Loquent again"
        return Finding("native core", f"missing: {why}", None if has_torch() else remedy)
    native = core()
    try:
        used, threads = native.instruction_set(), native.threads()
    except ValueError as error:
        return Finding("native core", "unknown", str(error))
    others = ", ".join(name for name in native.instruction_sets() if name != used)
    also = f" (also {others})" if others else ""
    return Finding("native core", f"{used}{also}, {threads} thread{'s' * (threads > 1)}")


def _torch() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("torch backend", 'not installed (training, GPUs: pip install "loquent[torch]")')
    return Finding("torch backend", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _cpu() -> Finding:
    name, flags = platform.processor() or platform.machine(), set[str]()
    information = Path("/proc/cpuinfo")
    if information.exists():
        fields = [line.partition(":") for line in information.read_text().splitlines()]
        values = {key.strip(): value.strip() for key, _, value in reversed(fields)}
        name = values.get("model name", name)
        flags = set((values.get("flags") or values.get("Features") or "").split())
    features = [feature for feature in _CPU_FEATURES if feature in flags]
    return Finding("cpu", f"{name}, {os.cpu_count()} cores" + (f" ({', '.join(features)})" if features else ""))


def _memory() -> Finding:
    from loquent.engine.host_memory import free_host_memory

    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return Finding("memory", "unknown")
    free = free_host_memory()
    left = "" if free is None else f"{shown_size(free)} available to this process, "
    return Finding("memory", f"{shown_size(total)}, {left}{_huge_pages()}")


def _huge_pages() -> str:
    """Whether Linux backs weights with large pages, which the native core asks for."""
    try:
        setting = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return "huge pages unknown"
    return "no huge pages" if "[never]" in setting else "huge pages"


def _gpu() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("gpu", "unknown without torch")
    if not torch.cuda.is_available():
        return Finding("gpu", "none that torch can use")
    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return Finding("gpu", "; ".join(f"{device.name}, {shown_size(device.total_memory)}" for device in devices))


def _hub() -> Iterator[Finding]:
    from loquent.hub.resolve import is_offline

    cache = _cache_folder()
    size = sum(path.lstat().st_size for path in cache.rglob("*") if path.is_file() and not path.is_symlink())
    yield Finding("cache of the hub", f"{cache} ({shown_size(size)})" if cache.exists() else f"{cache} (not there yet)")
    yield Finding("offline mode", "on (HF_HUB_OFFLINE)" if is_offline({}) else "off")
    if os.environ.get("HF_ENDPOINT"):
        yield Finding("hub", os.environ["HF_ENDPOINT"])


def _cache_folder() -> Path:
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return Path.home() / ".cache/huggingface/hub"
    return Path(HF_HUB_CACHE)


def _default_model() -> Finding:
    from loquent.text.loading import default_model

    try:
        folder = default_model()
    except CheckpointError:
        remedy = "not in this installation. Install Loquent again, or name a model with --model"
        return Finding("default model", "missing", remedy)
    return Finding("default model", str(folder))
