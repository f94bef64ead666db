"""What benchmarks/kv.py is made of: its figures, its texts, its processes and its tables."""

from __future__ import annotations

import io
import mmap
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="module")
def on_the_path() -> Iterator[None]:
    """The folder of the benchmarks is none of the package: it is imported from where it lies."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))
    for name in [name for name in sys.modules if name.split(".")[0] in ("cpu", "kv")]:
        del sys.modules[name]


def test_bytes_of_a_coded_token_are_codes_and_a_level_and_a_step_for_each_group() -> None:
    from kv.stores import Shape

    # 40 numbers: groups of 32 and 8; keys share theirs with 31 other tokens
    assert Shape(3, 4, 10).coded(2, group=32) == 3 * ((40 / 4 + 40 * 4 / 32) + (40 / 4 + 2 * 4))
    assert Shape(1, 4, 64).coded(2, group=64) * 8 / (2 * 256) == 2.5  # bits a number
    assert Shape(1, 4, 16, masked=True).coded(8, group=16) == 2 * (64 + 64 * 4 / 16) + 4 * 4


def test_bytes_of_an_exact_token_are_those_of_its_vectors() -> None:
    from kv.stores import Shape

    assert Shape(2, 4, 64).exact("float32") == 2 * 2 * 256 * 4
    assert Shape(2, 4, 64).exact("bfloat16") == 2 * 2 * 256 * 2
    assert Shape(2, 4, 64).exact("int8") == 2 * 2 * (256 + 4 * 4)
    assert Shape(1, 4, 8, masked=True).exact("float32") == 4 * (8 + 16) * 4 + 4 * 4  # values fill whole vectors


@pytest.mark.parametrize("window", [None, 40, 100])
@pytest.mark.parametrize("name", ["float32", "8 bits", "2 bits"])
def test_expected_bytes_are_those_that_an_engine_tells_of(
    tmp_path_factory: pytest.TempPathFactory, name: str, window: int | None
) -> None:
    from kv.ours import Ours
    from kv.stores import PLAIN, Shape, coded, expected_bytes

    store = PLAIN if name == "float32" else coded(int(name[0]), group=32, residual=48)
    shape = Shape(2, 2, 16, masked=window is not None, window=window)
    ours = Ours(str(written(tmp_path_factory.mktemp("kv") / "model", window)), "float32", None)
    for length in (20, 150, 257, 300):
        found = ours.held([list(range(5, 5 + length))], dict(store.options))
        assert sum(found["parts"].values()) == expected_bytes(store, shape, *found["read"])


def test_beginnings_are_those_of_tales_that_are_long_enough() -> None:
    from kv.texts import beginnings

    def letters(text: str, **options: Any) -> dict[str, Any]:
        return {"input_ids": list(map(ord, text)), "offset_mapping": [(at, at + 1) for at in range(len(text))]}

    assert beginnings(["abcde", "abc", "fghij", "klmno"], letters, 3, 2) == ["abc", "fgh"]


def test_memory_of_its_own_and_of_files_are_told_apart(tmp_path: Path) -> None:
    from kv.resident import resident

    size = 32 << 20
    before = resident()
    own = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    own.write(b"x" * size)
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        file.truncate(size)
        mapped = mmap.mmap(file.fileno(), size)
        for page in range(0, size, mmap.PAGESIZE):
            mapped[page] = 1
        after = resident()
        mapped.close()
    own.close()
    assert after.own - before.own == pytest.approx(size, rel=0.1)
    assert after.mapped - before.mapped == pytest.approx(size, rel=0.1)


def written(folder: Path, window: int | None = None) -> Path:
    """A model of the benchmark's kinds in no time."""
    import torch

    import loquent
    from cpu.checkpoints import write_tokenizer

    torch.manual_seed(0)
    family, further = ("Llama", {}) if window is None else ("Doge", {"sliding_window": window})
    sizes = {"vocab_size": 600, "hidden_size": 64, "intermediate_size": 64, "max_position_embeddings": 1024}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    config = getattr(loquent, f"{family}Config")(**sizes, **heads, bos_token_id=599, eos_token_id=None, **further)
    getattr(loquent, f"{family}ForCausalLM")(config).save_pretrained(folder)
    write_tokenizer(600, folder)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("kv") / "small")


def test_both_libraries_make_the_same_of_a_text(small: Path) -> None:
    from kv.ours import Ours
    from kv.peer import Peer

    text = "It was a bright cold day in April, and the clocks were striking thirteen."
    ours, theirs = Ours(str(small), "float32", None), Peer(str(small), 1)
    assert theirs.perplexity([text, text], {}) == pytest.approx([2 * x for x in ours.perplexity([text], {})], rel=1e-4)


def test_a_process_answers_and_says_what_it_refuses(small: Path, tmp_path: Path) -> None:
    from cpu.engines import Places
    from cpu.processes import Child

    places = Places(tmp_path, tmp_path)
    serving = [sys.executable, "-m", "kv.serve", "loquent", str(small), "float32", "-", "1"]
    child = Child(serving, places.environment(1))
    try:
        assert child.ready().startswith("Loquent ")
        rows = [list(range(5, 55))]
        speed = child.ask(task="decode", arguments={"rows": rows, "new": 8, "options": {}})["found"]
        assert speed > 0
        failed = child.ask(task="decode", arguments={"rows": rows, "new": 8, "options": {"temprature": 1}})["failed"]
        assert "temprature" in failed
        assert child.ask(task="resident", arguments={})["found"]["own"] > 0
    finally:
        child.close()


def test_tables_compare_with_the_plain_store_of_the_same_library() -> None:
    from rich.console import Console

    from kv.stores import PERPLEXITY, PLAIN, THEIR_PLAIN, coded, theirs
    from kv.tables import Reader, Results, perplexity_table, speed_table

    results = Results()
    for store, perplexity in ((PLAIN, 10.0), (coded(2), 11.0), (THEIR_PLAIN, 20.0), (theirs(2, "quanto"), 30.0)):
        assert store.name in [other.name for other in PERPLEXITY]
        results.perplexity["tales", store.name] = {"perplexity": perplexity, "further": 8.0, "whole": 9.5}
    results.speed[PLAIN.name, 512] = [90.0, 100.0, 110.0]
    results.speed[coded(2, group=64).name, 512] = [50.0]
    console = Console(width=150, file=io.StringIO(), record=True)
    console.print(perplexity_table(results, [Reader("tales", Path(), 512, None, 4, True)]))
    console.print(speed_table(results))
    lines = {line.split("│")[1].strip(): line for line in console.export_text().splitlines() if "│" in line}
    assert "+10.00%" in lines[coded(2).name]
    assert "+50.00%" in lines[theirs(2, "quanto").name]
    assert "0.50x" in lines[coded(2, group=64).name]
