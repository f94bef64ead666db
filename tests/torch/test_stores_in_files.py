"""Pages of torch models in files: what is read is what it is in memory, to the bit; disks, folders, forks, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import pieces_of, rows_of
from tiny_models import ALL, tiny

from loquent.cache import PLAIN, Coding, StoreKind
from loquent.errors import ArgumentError
from loquent.torch.runner import TorchBackend

IN_FILES = StoreKind(offloaded=True)
CODING = Coding(2, group=16, residual=5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=6, deadline=None)
@given(st.data())
def test_the_bits_are_those_of_the_plain_store(name: str, dtype: torch.dtype, data: st.DataObject) -> None:
    backend, pieces, seed = TorchBackend(tiny(name).to(dtype)), data.draw(pieces_of(60)), data.draw(st.integers(0, 99))
    assert torch.equal(rows_of(backend, PLAIN, pieces, seed), rows_of(backend, IN_FILES, pieces, seed))


@pytest.mark.parametrize("name", ["llama", "doge-keep"])
def test_coded_pages_lie_in_files_too(name: str) -> None:
    backend = TorchBackend(tiny(name))
    pieces = [[20, 1, 1, 30], [3, 40]]
    coded = [rows_of(backend, StoreKind(CODING, offloaded), pieces, 1) for offloaded in (False, True)]
    assert torch.equal(*coded)
    assert not torch.equal(coded[0], rows_of(backend, PLAIN, pieces, 1))


def test_pages_go_from_one_kind_to_the_other() -> None:
    backend = TorchBackend(tiny("gpt_neo"))
    stores = [backend.open_store(4, kind) for kind in (PLAIN, IN_FILES)]
    assert [store.place for store in stores] == ["memory", "file"]
    assert stores[0].format == stores[1].format
    for group, shape in enumerate(stores[0].groups):
        for store in stores:
            store.resize(group, 9)
        kept = np.random.default_rng(1).integers(0, 256, (9, shape.bytes_per_page), np.uint8)
        stores[1].write_pages(group, range(9), kept)
        stores[1].copy(group, [1], [7])
        stores[1].clear(group, [2])
        stores[1].resize(group, 8)
        stores[1].resize(group, 10)
        found = stores[1].read_pages(group, range(10))
        assert np.array_equal(found[7], kept[1])
        assert not found[[2, 8, 9]].any()
        assert np.array_equal(np.delete(found[:8], [2, 7], 0), np.delete(kept[:8], [2, 7], 0))


def test_files_have_no_name_and_give_their_blocks_back(tmp_path: Path) -> None:
    store = TorchBackend(tiny("llama")).open_store(4, StoreKind(offloaded=True, folder=str(tmp_path)))
    store.resize(0, 3000)
    files = [int(name) for name in os.listdir("/proc/self/fd") if _leads_to(name, tmp_path)]
    assert os.listdir(tmp_path) == []
    assert all(os.fstat(file).st_mode & 0o777 == 0o600 for file in files)
    assert sum(os.fstat(file).st_blocks for file in files) * 512 >= 3000 * store.groups[0].bytes_per_page
    store.resize(0, 0)
    assert sum(os.fstat(file).st_blocks for file in files) == 0
    del store
    assert not [name for name in os.listdir("/proc/self/fd") if _leads_to(name, tmp_path)]


def _leads_to(descriptor: str, folder: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(folder))
    except OSError:
        return False


@pytest.mark.parametrize("folder", ["none", "file", "/proc"])
def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match=r"offload_folder='.*' cannot hold keys and values .*Name a folder"):
        TorchBackend(tiny("llama")).open_store(4, StoreKind(offloaded=True, folder=str(tmp_path / folder)))


# --- programs of their own -------------------------------------------------------------------------------------------

_FULL = """
import resource, sys
from growing_in_torch import backend
from loquent.cache import StoreKind
from loquent.errors import CapacityError

store = backend().open_store(16, StoreKind(offloaded=True, folder=sys.argv[1]))
store.resize(0, 64)
resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, resource.RLIM_INFINITY))
try:
    store.resize(0, 6400)
except CapacityError as error:
    print(error)
assert store.pages(0) == 64
assert not store.read_pages(0, range(64)).any()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.resize(0, 640)
assert store.pages(0) == 640 and not store.read_pages(0, [639]).any()
"""


def test_a_full_disk_is_said_and_changes_nothing(tmp_path: Path) -> None:
    said = run("-c", _FULL, tmp_path)
    assert said.startswith(f"offload_folder='{tmp_path}' has no room for 99 MiB more (")
    assert said.endswith("are free. Free some, name a folder on a larger disk, or ask for a shorter context.\n")


_FORK = """
import os, sys
from growing_in_torch import backend
from loquent.cache import StoreKind

store = backend().open_store(16, StoreKind(offloaded=True, folder=sys.argv[1]))
store.resize(0, 100)
child = os.fork()
if not child:
    refused = 0
    for change in (lambda: store.resize(0, 1), lambda: store.clear(0, [3]), lambda: store.copy(0, [4], [5]),
                   lambda: store.read_pages(0, [6]), lambda: store.planes(0)):
        try:
            change()
        except RuntimeError as error:
            refused += "belongs to the process that opened it" in str(error)
    del store
    os._exit(refused)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), store.read_pages(0, range(100)).any())
"""


def test_a_forked_process_changes_nothing_of_its_parents_pages(tmp_path: Path) -> None:
    assert run("-c", _FORK, tmp_path) == "5 False\n"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell what memory is anonymous")
def test_anonymous_memory_stays_flat_while_the_context_grows(tmp_path: Path) -> None:
    program = Path(__file__).with_name("growing_in_torch.py")
    before, after = json.loads(run(program, "file", tmp_path, 2048, 8192))
    in_memory = json.loads(run(program, "memory", tmp_path, 2048, 8192))
    kept = 2 * 2 * 4 * 64 * 4 * (8192 - 2048)  # layers, keys and values, heads, numbers of a head, bytes
    assert after - before < 0.2 * kept
    assert in_memory[1] - in_memory[0] > 0.9 * kept


def run(*command: object) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    done = subprocess.run([sys.executable, *map(str, command)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
