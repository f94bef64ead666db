"""Pages in a file: the same results as in memory, anonymous memory that stays flat, and disks, folders and forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.cache import PLAIN, StoreKind
from loquent.engine.backend import Segment
from loquent.errors import ArgumentError
from loquent.native import why_unavailable
from native.folders import make
from properties.models import EVERY, VOCABULARY, tiny

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

PAGE = 4
PROGRAM = Path(__file__).with_name("growing.py")


@cache
def backend_of(name: str, key_values: str | None = None) -> Any:
    from loquent.native.backend import NativeBackend
    from loquent.native.lent import LentWeights

    loan = tiny(name).lend_weights()
    return NativeBackend(loan.decoder, LentWeights(loan), key_values=key_values)


def logits(backend: Any, kind: StoreKind, tokens: np.ndarray, pieces: list[int], seed: int = 0) -> np.ndarray:
    """The rows of a text that is read in pieces, into a store that grows page by page and is half of others' pages."""
    store = backend.open_store(PAGE, kind)
    random = np.random.default_rng(seed)
    pages = -(-len(tokens) // PAGE)
    numbers = random.permutation(2 * pages)[:pages]
    rows, start = [], 0
    for length in [*pieces, len(tokens)]:
        stop = min(start + length, len(tokens))
        if start == stop:
            break
        table = numbers[: -(-stop // PAGE)]
        for group in range(len(store.groups)):
            store.resize(group, int(table.max()) + 1)
        segment = Segment(tokens[start:stop], start, (table,) * len(store.groups), stop - start, 60)
        rows.append(np.array(backend.run(store, [segment]).logits))
        start = stop
    return np.concatenate(rows).view(np.uint32)


@pytest.mark.parametrize("key_values", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=8, deadline=None)
@given(pieces=st.lists(st.integers(1, 30), max_size=8), length=st.integers(1, 60), seed=st.integers(0, 99))
def test_the_bits_are_those_of_the_plain_store(
    name: str, key_values: str, pieces: list[int], length: int, seed: int
) -> None:
    backend = backend_of(name, key_values)
    tokens = np.random.default_rng(seed).integers(0, VOCABULARY, length)
    plain = logits(backend, PLAIN, tokens, pieces, seed)
    assert np.array_equal(plain, logits(backend, StoreKind(offloaded=True), tokens, pieces, seed))


@pytest.mark.parametrize("name", ["llama", "gpt_neo"])
def test_pages_go_from_one_kind_to_the_other(name: str) -> None:
    backend = backend_of(name)
    stores = [backend.open_store(PAGE, kind) for kind in (PLAIN, StoreKind(offloaded=True))]
    assert [store.place for store in stores] == ["memory", "file"]
    assert stores[0].format == stores[1].format
    for group, shape in enumerate(stores[0].groups):
        for store in stores:
            store.resize(group, 9)
        content = np.random.default_rng(1).integers(0, 256, (9, shape.bytes_per_page), np.uint8)
        stores[0].write_pages(group, range(9), content)
        kept = stores[0].read_pages(group, range(9))
        stores[1].write_pages(group, range(9), kept)
        stores[1].copy(group, [1], [7])
        stores[1].clear(group, [2])
        found = stores[1].read_pages(group, range(9))
        assert np.array_equal(found[7], kept[1])
        assert not found[2].any()
        assert np.array_equal(np.delete(found, [2, 7], 0), np.delete(kept, [2, 7], 0))


def test_the_file_has_no_name_and_gives_its_blocks_back(tmp_path: Path) -> None:
    store = backend_of("llama").open_store(PAGE, StoreKind(offloaded=True, folder=str(tmp_path)))
    store.resize(0, 3000)
    [number] = [int(name) for name in os.listdir("/proc/self/fd") if _leads_to(name, tmp_path)]
    assert os.listdir(tmp_path) == []
    opened = os.fstat(number)
    assert opened.st_mode & 0o777 == 0o600
    assert opened.st_blocks * 512 >= 3000 * store.groups[0].bytes_per_page
    store.write_pages(0, [2999], np.ones((1, store.groups[0].bytes_per_page), np.uint8))
    store.resize(0, 0)
    assert os.fstat(number).st_blocks == 0
    store.resize(0, 3000)
    assert not store.read_pages(0, [2999]).any()
    del store
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def _leads_to(descriptor: str, folder: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(folder))
    except OSError:
        return False


@pytest.mark.parametrize("folder", ["none", "file", "/proc"])
def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    asked = str(tmp_path / folder)
    with pytest.raises(ArgumentError, match=r"offload_folder='.*' cannot hold keys and values .*Name a folder"):
        backend_of("llama").open_store(PAGE, StoreKind(offloaded=True, folder=asked))


_FULL = """
import resource, sys
from growing import random_backend
from loquent.cache import StoreKind
from loquent.errors import CapacityError

store = random_backend().open_store(16, StoreKind(offloaded=True, folder=sys.argv[1]))
store.resize(0, 64)
resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, resource.RLIM_INFINITY))
try:
    store.resize(0, 6400)
except CapacityError as error:
    print(error)
assert store.pages(0) == 64
assert not store.read_pages(0, range(64)).any()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.resize(0, 640)
assert store.pages(0) == 640
"""


def test_a_full_disk_is_said_and_changes_nothing(tmp_path: Path) -> None:
    said = run(_FULL, tmp_path)
    assert said.startswith(f"offload_folder='{tmp_path}' has no room for 8.0 MiB more (")
    assert said.endswith("are free. Free some, name a folder on a larger disk, or ask for a shorter context.\n")


_FORK = """
import os, sys
import numpy as np
from growing import random_backend
from loquent.cache import StoreKind

store = random_backend().open_store(16, StoreKind(offloaded=True, folder=sys.argv[1]))
store.resize(0, 100)
content = np.random.default_rng(3).integers(0, 256, (100, store.groups[0].bytes_per_page), np.uint8)
store.write_pages(0, range(100), content)
kept = store.read_pages(0, range(100))
child = os.fork()
if not child:
    refused = 0
    for change in (lambda: store.resize(0, 1), lambda: store.resize(0, 900), lambda: store.clear(0, [3]),
                   lambda: store.copy(0, [4], [5]), lambda: store.write_pages(0, [6], content[:1]),
                   lambda: store.read_pages(0, [6])):
        try:
            change()
        except RuntimeError as error:
            refused += "belongs to the process that opened it" in str(error)
    own = random_backend().open_store(16, StoreKind(offloaded=True, folder=sys.argv[1]))
    own.resize(0, 100)
    own.write_pages(0, range(100), content[::-1].copy())
    del store, own
    os._exit(refused)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), np.array_equal(store.read_pages(0, range(100)), kept))
"""


def test_a_forked_process_changes_nothing_of_its_parents_pages(tmp_path: Path) -> None:
    assert run(_FORK, tmp_path) == "6 True\n"


def run(program: str, *arguments: object) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(PROGRAM.parent)])}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


_FORK_OF_AN_ENGINE = """
import os, sys
from loquent.native.loading import load_native

model = load_native(sys.argv[1], "int8")
options = {"max_new_tokens": 20, "do_sample": False, "cache_implementation": "offloaded"}
prompts = [[5, 9, 2, 33, 7] * 7, [8, 1, 1, 4, 60] * 7]
expected = [model.generate([prompt], **options).tolist() for prompt in prompts]
child = os.fork()
if not child:
    found = [model.generate([prompt], **options).tolist() for prompt in reversed(prompts)]
    os._exit(found != expected[::-1])
ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(ended, [model.generate([prompt], **options).tolist() for prompt in prompts] == expected)
"""


def test_a_forked_process_generates_with_a_file_of_its_own(tmp_path: Path) -> None:
    make("llama").save_pretrained(tmp_path)
    assert run(_FORK_OF_AN_ENGINE, tmp_path) == "0 True\n"


# --- memory ----------------------------------------------------------------------------------------------------------

BYTES_PER_TOKEN = 4 * 2 * 4 * 64 * 4  # layers, keys and values, heads, numbers of a head, bytes


def grown(kind: str, folder: Path, lengths: list[int]) -> list[int]:
    """The process's anonymous bytes once a context of each of these lengths has been read."""
    command = [sys.executable, str(PROGRAM), kind, str(folder), *map(str, lengths)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    found: list[int] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell what memory is anonymous")
@pytest.mark.parametrize(
    "lengths", [[1024, 5120], pytest.param([4096, 16384, 65536], marks=pytest.mark.slow)], ids=["5 K", "64 K"]
)
def test_anonymous_memory_stays_flat_while_the_context_grows(tmp_path: Path, lengths: list[int]) -> None:
    before, *_, after = grown("file", tmp_path, lengths)
    assert after - before < 4 << 20
    if len(lengths) == 2:
        before, after = grown("memory", tmp_path, lengths)
        assert after - before > 0.95 * BYTES_PER_TOKEN * (lengths[1] - lengths[0])


_LIMITED = """
import resource, sys
import numpy as np
from growing import anonymous_bytes, random_backend
from loquent.cache import PLAIN, StoreKind
from loquent.engine.backend import Segment

pages = 3200  # 400 MiB
limit = anonymous_bytes() + (200 << 20)
backend = random_backend()
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for kind in (StoreKind(offloaded=True, folder=sys.argv[1]), PLAIN):
    store = backend.open_store(16, kind)
    try:
        store.resize(0, pages)
        table = np.arange(pages)
        backend.run(store, [Segment(np.full(16, 7), 16 * (pages - 1), (table,), 1, 16 * pages)])
        print("runs")
    except MemoryError:
        print("does not fit")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not limit anonymous memory by itself")
def test_a_context_beyond_the_memory_that_a_process_may_have_runs(tmp_path: Path) -> None:
    assert run(_LIMITED, tmp_path) == "runs\ndoes not fit\n"
