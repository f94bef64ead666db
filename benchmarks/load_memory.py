"""How much memory loading takes: anonymous memory above the level before it, beside the weights in the target type.

Makes a sharded folder of random Llama weights (some bfloat16, some float32) of at least 1 GB, loads it in a fresh
process for each target type, and prints the peak of anonymous memory as a ratio to the weights. Pages of mapped files
are not counted: the system drops them when it needs the memory.

    python benchmarks/load_memory.py [--gigabytes 1.0] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from loquent import LlamaConfig
from loquent.hub.tensors import DTYPE_SIZES
from loquent.hub.writing import TensorToWrite, write_checkpoint

LIMIT = 1.15


def make_folder(folder: Path, gigabytes: float) -> None:
    """Writes a Llama of at least `gigabytes` of weights in shards of 200 MB, every other layer in float32."""
    config = LlamaConfig(
        vocab_size=16000, hidden_size=2048, intermediate_size=5632, num_attention_heads=16, num_key_value_heads=4
    )
    tensors: list[TensorToWrite] = []
    layers = 0
    width, inner, keys = config.hidden_size, config.intermediate_size, config.hidden_size // 4
    add(tensors, "model.embed_tokens.weight", "BF16", config.vocab_size, width)
    add(tensors, "lm_head.weight", "F32", config.vocab_size, width)
    add(tensors, "model.norm.weight", "F32", width)
    while sum(tensor.nbytes for tensor in tensors) < gigabytes * 1e9:
        name, dtype = f"model.layers.{layers}", "F32" if layers % 2 else "BF16"
        for projection, rows in (("q", width), ("k", keys), ("v", keys), ("o", width)):
            add(tensors, f"{name}.self_attn.{projection}_proj.weight", dtype, rows, width)
        add(tensors, f"{name}.mlp.gate_proj.weight", dtype, inner, width)
        add(tensors, f"{name}.mlp.up_proj.weight", dtype, inner, width)
        add(tensors, f"{name}.mlp.down_proj.weight", dtype, width, inner)
        add(tensors, f"{name}.input_layernorm.weight", dtype, width)
        add(tensors, f"{name}.post_attention_layernorm.weight", dtype, width)
        layers += 1
    config.num_hidden_layers = layers
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    write_checkpoint(folder, tensors, max_shard_size="200MB")


def add(tensors: list[TensorToWrite], name: str, dtype: str, *shape: int) -> None:
    """Appends a tensor of small random numbers, which are made when it is written."""
    tensors.append(TensorToWrite(name, dtype, shape, lambda: random_bytes(dtype, shape, seed=len(name))))


def random_bytes(dtype: str, shape: tuple[int, ...], seed: int) -> bytes:
    """Finite numbers between -1 and 1, as float32 or as its upper half, which is bfloat16."""
    numbers = np.random.default_rng(seed).random(shape, dtype=np.float32) - 0.5
    data = numbers if dtype == "F32" else (numbers.view(np.uint32) >> 16).astype(np.uint16)
    assert data.itemsize == DTYPE_SIZES[dtype]
    return data.tobytes()


def anonymous_bytes() -> int:
    """The process's anonymous memory now, from the kernel's own account."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not report RssAnon; the benchmark needs Linux 4.5 or newer")


class Peak(threading.Thread):
    """Samples the anonymous memory every two milliseconds until stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.highest = anonymous_bytes()
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(0.002):
            self.highest = max(self.highest, anonymous_bytes())

    def stop(self) -> int:
        """The most memory seen above the level at the start."""
        self._stop_asked.set()
        self.join()
        return max(self.highest, anonymous_bytes()) - self.before


def measure(folder: Path, dtype: str) -> dict[str, float]:
    """Loads the folder in this process and says what it took."""
    import torch

    from loquent import AutoModelForCausalLM, LlamaForCausalLM

    # What the first model of any size costs once is not what loading costs.
    LlamaForCausalLM(LlamaConfig(64, 32, 64, 1, 2))
    torch.zeros(1).to(torch.bfloat16)
    peak = Peak()
    peak.start()
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    seconds = time.perf_counter() - start
    above = peak.stop()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return {"weights": weights, "peak": above, "seconds": seconds}


def main() -> int:
    """Prints the table; 1 where a ratio exceeds the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the folder's weights (default 1.0)")
    parser.add_argument("--folder", type=Path, help="where to make the folder and leave it (default: a temporary one)")
    parser.add_argument("--measure", metavar="DTYPE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.folder, arguments.measure)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "config.json").exists():
            make_folder(folder, arguments.gigabytes)
        return report(folder)


def report(folder: Path) -> int:
    """Measures each target type in a process of its own and prints a line for it."""
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    print(f"{stored / 1e9:.2f} GB in {len(list(folder.glob('*.safetensors')))} files\n")
    print("dtype      weights GB   peak GB   ratio   seconds")
    worst = 0.0
    for dtype in ("bfloat16", "float32", "float16", "auto"):
        command = [sys.executable, __file__, "--folder", str(folder), "--measure", dtype]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        ratio = found["peak"] / found["weights"]
        worst = max(worst, ratio)
        print(
            f"{dtype:<10} {found['weights'] / 1e9:>10.2f} {found['peak'] / 1e9:>9.2f} {ratio:>7.3f} "
            f"{found['seconds']:>9.1f}"
        )
    print(f"\nworst ratio {worst:.3f}, limit {LIMIT}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
