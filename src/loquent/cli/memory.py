"""The options that say how keys and values are kept, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from loquent.cli.options import group_option
from loquent.errors import ArgumentError

_MEMORY = "Memory"


class CacheName(str, Enum):
    """What `--cache` takes."""

    dynamic = "dynamic"
    static = "static"
    paged = "paged"
    sliding_window = "sliding_window"
    quantized = "quantized"
    offloaded = "offloaded"
    offloaded_static = "offloaded_static"


@dataclass(frozen=True)
class MemoryOptions:
    """How keys and values are kept; what is left out is as the model's own generation config says."""

    cache: Annotated[
        CacheName | None,
        group_option(_MEMORY, "--cache", help="How keys and values are kept: in full, in a few bits, in a file."),
    ] = None
    kv_bits: Annotated[
        int | None,
        group_option(_MEMORY, "--kv-bits", min=1, max=8, metavar="N", help="Keep them in 1, 2, 4 or 8 bits."),
    ] = None
    kv_group: Annotated[
        int | None,
        group_option(_MEMORY, "--kv-group", metavar="N", help="With few bits: how many share a scale. (default: 64)"),
    ] = None
    kv_residual: Annotated[
        int | None,
        group_option(
            _MEMORY, "--kv-residual", metavar="N", help="With few bits: last tokens kept in full. (default: 128)"
        ),
    ] = None
    offload_folder: Annotated[
        str | None,
        group_option(_MEMORY, "--offload-folder", metavar="FOLDER", help="Keep them in a file in this folder."),
    ] = None
    kv_memory: Annotated[
        str | None,
        group_option(
            _MEMORY,
            "--kv-memory",
            metavar="SIZE",
            help="The most memory that they may take, such as 512MB or 2GiB. (default: 90% of what is free)",
        ),
    ] = None

    def for_generation(self, strategy: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of `generate()` that these options mean; only what was given.

        Fewer bits ask for a quantized cache, a folder for an offloaded one.

        Raises:
            ArgumentError: they contradict one another, or what `strategy` sets says the same.
        """
        coding = {"nbits": self.kv_bits, "q_group_size": self.kv_group, "residual_length": self.kv_residual}
        coding = {name: value for name, value in coding.items() if value is not None}
        found: dict[str, Any] = {} if self.cache is None else {"cache_implementation": self.cache.value}
        if coding:
            found = {**_asking("--kv-bits, --kv-group, --kv-residual", "quantized", found), "cache_config": coding}
        if self.offload_folder is not None:
            found = _asking("--offload-folder", "offloaded", found) | {"offload_folder": self.offload_folder}
        if twice := sorted(found.keys() & strategy.keys()):
            raise ArgumentError(f"--set {twice[0]} says again what another option says. Leave one of them out.")
        return found


def _asking(flags: str, kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """What was found, with the kind of cache that some options are about."""
    name = found.get("cache_implementation", kind)
    if not name.startswith(kind):
        raise ArgumentError(f"{flags}: for --cache {kind}, and not for {name}. Leave one of them out.")
    return {**found, "cache_implementation": name}
