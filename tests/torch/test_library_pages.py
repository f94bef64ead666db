"""Pages that other libraries quantize: what they read as is what the library makes of each page, asked for itself."""

from __future__ import annotations

import sys
import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from kivi import Kivi
from tiny_models import VOCABULARY, tiny

from loquent.cache import Coding, StoreKind
from loquent.engine.backend import Segment
from loquent.errors import ArgumentError, MissingExtraError
from loquent.parts import Attention, DynamicMask
from loquent.torch import attention
from loquent.torch.library_pages import LibraryPages
from loquent.torch.page_memory import DeviceMemory
from loquent.torch.runner import TorchBackend

NAMES = {"quanto": "optimum-quanto", "hqq": "hqq"}
CODINGS = [
    *(Coding(bits, 16, 20, "quanto", key, value) for bits in (2, 4) for key, value in ((0, 0), (-1, 0), (0, -1))),
    *(Coding(bits, 16, 20, "hqq", key, value) for bits in (1, 2, 3, 4, 8) for key, value in ((0, 0), (0, 1), (1, 0))),
]


def name(coding: Coding) -> str:
    return f"{coding.library}-{coding.bits}-{coding.axis_key}-{coding.axis_value}"


def needs(library: str) -> None:
    if find_spec({"quanto": "optimum", "hqq": "hqq"}[library]) is None:
        pytest.skip(f"{NAMES[library]} is not installed")


def asked_for_itself(matrix: torch.Tensor, coding: Coding, axis: int) -> torch.Tensor:
    """A matrix (tokens, channels) through the library, as transformers calls it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if coding.library == "quanto":
            from optimum.quanto import MaxOptimizer, qint2, qint4, quantize_weight

            kind, batch = {2: qint2, 4: qint4}[coding.bits], matrix[None]
            scale, shift = MaxOptimizer()(batch, kind, axis, coding.group)
            return quantize_weight(batch, kind, axis, scale, shift, coding.group).dequantize()[0]
        from hqq.core.quantize import Quantizer
    codes, known = Quantizer.quantize(
        matrix, axis=axis, device="cpu", compute_dtype=matrix.dtype, nbits=coding.bits, group_size=coding.group
    )
    known["compute_dtype"] = matrix.dtype
    Quantizer.cuda(codes, meta=known, device="cpu")
    return Quantizer.dequantize(codes, known)


def page_through_library(keys: np.ndarray, values: np.ndarray, coding: Coding) -> tuple[np.ndarray, np.ndarray]:
    read = [
        asked_for_itself(torch.from_numpy(plane.reshape(len(plane), -1)), coding, axis).numpy().reshape(plane.shape)
        for plane, axis in ((keys, coding.axis_key), (values, coding.axis_value))
    ]
    return read[0], read[1]


def read_pages(pages: LibraryPages, numbers: list[int], planes: list[torch.Tensor], plane: int) -> torch.Tensor:
    read = planes[plane].new_empty(len(numbers), *planes[plane].shape[1:])
    pages.decode(torch.tensor(numbers), plane, read.view(1, -1, *read.shape[2:]))
    return read


@pytest.mark.parametrize("coding", CODINGS, ids=name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pages_read_as_the_library_reads_them(coding: Coding, dtype: torch.dtype) -> None:
    needs(str(coding.library))
    part = Attention(2, 2, 8, 1.0, False, False, dynamic_mask=DynamicMask(5, False))
    pages = LibraryPages(part, coding, dtype, DeviceMemory(torch.device("cpu")))
    pages.resize(4)
    generator = torch.Generator().manual_seed(coding.bits)
    planes = [torch.randn(2, 16, 2, 8, generator=generator).to(dtype) * 3 for _ in range(2)]
    planes.append(torch.rand(2, 16, 2, generator=generator).to(dtype))
    with torch.inference_mode():
        pages.encode(torch.tensor([3, 1]), planes)
        pages.copy(torch.tensor([3]), torch.tensor([0]))
        pages.write(torch.tensor([2]), pages.read(torch.tensor([1])))
        pages.resize(6)
        for plane, axis in enumerate((coding.axis_key, coding.axis_value)):
            read = read_pages(pages, [0, 1, 2, 3], planes, plane)
            expected = [asked_for_itself(planes[plane][index].flatten(1), coding, axis) for index in (0, 1, 1, 0)]
            assert torch.equal(read.flatten(2), torch.stack(expected).to(dtype))
        assert torch.equal(read_pages(pages, [3, 1], planes, 2), planes[2])
        pages.clear(torch.tensor([3]))
        assert not read_pages(pages, [3], planes, 0).any()
    # Of a number of two bits, what groups of 16 have for their range comes on top.
    assert pages.bytes_per_page < (2 * 16 * 16 + 16 * 2) * dtype.itemsize


@pytest.mark.parametrize("coding", [Coding(4, 16, 20, "quanto", 0, -1), Coding(2, 16, 20, "hqq", 0, 1)], ids=name)
@pytest.mark.parametrize("family", ["gpt2", "doge"])
def test_models_read_what_kivi_reads_with_that_library(family: str, coding: Coding) -> None:
    needs(str(coding.library))
    model = tiny(family)
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 80)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(attention, "attend", Kivi(coding, page_through_library).attend)
        expected = model(torch.from_numpy(tokens)[None], use_cache=False).logits[0]
    backend = TorchBackend(model)
    store, found = backend.open_store(16, StoreKind(coding)), []
    for group in range(len(store.groups)):
        store.resize(group, 5)
    for start, stop in ((0, 50), (50, 51), (51, 80)):
        stops = [group.stop(stop, 16) for group in store.groups]
        known = tuple(group.stop(start, 16) for group in store.groups)
        tables = tuple(np.arange(5)[::-1][:count].copy() for count in stops)
        found.append(backend.run(store, [Segment(tokens[start:stop], start, tables, stop - start, 80, coded=known)]))
    logits = torch.cat([forward.logits for forward in found])
    # Rounding before the codes changes one of them now and then.
    assert (logits - expected).abs().median() < 1e-5
    torch.testing.assert_close(logits, expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("library", "module"), [("quanto", "optimum.quanto"), ("hqq", "hqq.core.quantize")])
def test_a_missing_library_is_named_with_its_pip_command(
    library: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=f'{NAMES[library]}, which .* pip install "loquent.{library}."'):
        TorchBackend(tiny("llama")).open_store(16, StoreKind(Coding(4, 16, 20, library)))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"library": "quanto", "bits": 8}, "bits=8"),
        ({"library": "hqq", "bits": 5}, "bits=5"),
        ({"library": "quanto", "axis_key": 1}, "axis_key=1"),
        ({"library": "hqq", "axis_value": -1}, "axis_value=-1"),
        ({"axis_key": -1}, "axis_key=-1"),
        ({"library": "bitsandbytes"}, "library='bitsandbytes'"),
    ],
    ids=str,
)
def test_what_a_library_cannot_do_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        TorchBackend(tiny("llama")).open_store(16, StoreKind(Coding(**({"bits": 4, "group": 16} | fields))))
