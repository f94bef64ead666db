"""The engines as the parent sees them: which interpreter runs each, what it can load, which files it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpu.shapes import PRECISIONS, SHAPES, Shape

BENCHMARKS = Path(__file__).parents[1]
CONVERTED = tuple(shape.family for shape in SHAPES if shape.family != "Doge")  # nobody but transformers has Doge


@dataclass(frozen=True)
class Places:
    """Where things are on this machine."""

    peers: Path  # the environments of install_peers.sh
    work: Path  # what is written once and kept: checkpoints, converted files, the program for the limits

    def python(self, environment: str) -> str:
        """The interpreter of a peer; ours is the one that runs this."""
        return sys.executable if not environment else str(self.peers / environment / "bin" / "python")

    def run(self, environment: str, *arguments: str | Path) -> None:
        """Run a module of this folder to its end."""
        command = [self.python(environment), "-m", *map(str, arguments)]
        print("  " + " ".join(command[2:]), file=sys.stderr)
        subprocess.run(command, env=self.environment(1), check=True, stdout=sys.stderr)

    def environment(self, threads: int) -> dict[str, str]:
        """The variables of a child: so many threads for every library, nothing fetched, and modules compiled once.

        Installed packages have their bytecode; a source tree on a machine that writes none would be compiled at every
        start.
        """
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        paths = [str(BENCHMARKS), str(BENCHMARKS.parent / "src"), os.environ.get("PYTHONPATH", "")]
        count = str(threads)
        return {
            **kept,
            "PYTHONPYCACHEPREFIX": str(self.work / "bytecode"),
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "OMP_NUM_THREADS": count,
            "LOQUENT_THREADS": count,
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }

    def made(self, target: Path, make: Callable[[Path], None]) -> Path:
        """`target`, made under another name first, so that what is there is whole."""
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f"draft-{os.getpid()}-{target.name}")
            make(draft)
            draft.rename(target)
        return target

    def checkpoint(self, shape: Shape) -> Path:
        """The shape's folder in the Hugging Face format."""
        return self.made(
            self.work / shape.name / "checkpoint", lambda draft: self.run("", "cpu.checkpoints", shape.name, draft)
        )


Files = Callable[[Places, Shape, str], Path]


def checkpoint(places: Places, shape: Shape, precision: str) -> Path:
    return places.checkpoint(shape)


def quantized(places: Places, shape: Shape, precision: str) -> Path:
    """Our files: the checkpoint, or what `loquent quantize` makes of it."""
    folder = places.checkpoint(shape)
    if precision not in ("int8", "int4"):
        return folder
    return places.made(
        places.work / shape.name / f"loquent-{precision}",
        lambda draft: places.run("", "loquent", "quantize", folder, draft, "--precision", precision),
    )


def gguf(places: Places, shape: Shape, precision: str) -> Path:
    folder = places.checkpoint(shape)
    return places.made(
        places.work / shape.name / f"{precision}.gguf",
        lambda draft: places.run("llama", "cpu.gguf_files", shape.name, folder, precision, draft),
    )


def ctranslate2(places: Places, shape: Shape, precision: str) -> Path:
    folder = places.checkpoint(shape)
    return places.made(
        places.work / shape.name / f"ctranslate2-{precision}",
        lambda draft: places.run("transformers", "cpu.ctranslate2_folders", folder, precision, draft),
    )


@dataclass(frozen=True)
class Engine:
    """One library."""

    name: str
    environment: str  # of install_peers.sh; "": ours
    module: str
    precisions: tuple[str, ...]
    families: tuple[str, ...]
    files: Files
    start_module: str = ""  # what starts cold, where it is another one

    def has(self, shape: Shape, precision: str) -> bool:
        return shape.family in self.families and precision in self.precisions

    def serving(self, places: Places, files: Path, precision: str, threads: int) -> list[str]:
        """The command that serves the files."""
        return [places.python(self.environment), "-m", self.module, str(files), precision, str(threads)]

    def starting(self, places: Places, files: Path | str, precision: str, threads: int, text: str) -> list[str]:
        """The command that writes the token after a text and ends."""
        module = self.start_module or self.module
        return [places.python(self.environment), "-m", module, str(files), precision, str(threads), text]


ALL = tuple(shape.family for shape in SHAPES)
OURS = Engine("ours", "", "cpu.serve_loquent", PRECISIONS, ALL, quantized, "cpu.first_token")
TRANSFORMERS = Engine(
    "transformers", "transformers", "cpu.serve_transformers", ("float32", "bfloat16"), ALL, checkpoint
)
CTRANSLATE2 = Engine("ctranslate2", "ctranslate2", "cpu.serve_ctranslate2", ("float32", "int8"), CONVERTED, ctranslate2)
LLAMA = Engine("llama.cpp", "llama", "cpu.serve_llama", PRECISIONS, CONVERTED, gguf)
ENGINES: Sequence[Engine] = (OURS, TRANSFORMERS, CTRANSLATE2, LLAMA)


def engine_named(name: str) -> Engine:
    """The engine that the command line names."""
    return {engine.name: engine for engine in ENGINES}[name]
