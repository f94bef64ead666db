"""Coded pages of one layer whose arithmetic is another library's: optimum-quanto, or HQQ. Both are optional.

They are given a page's keys, and its values, as a matrix (tokens, channels of all heads), and what they make of it is
kept as the tensors that it consists of.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any, Protocol

import torch
from torch import Tensor

from loquent import parts
from loquent.cache import Coding
from loquent.errors import MissingExtraError
from loquent.torch.page_memory import PageMemory
from loquent.torch.page_tensors import PageTensors


class _Quantizer(Protocol):
    """Quantizes matrices of one shape."""

    def quantize(self, numbers: Tensor) -> list[Tensor]:
        """What a matrix consists of then: tensors of the same shapes for all matrices."""

    def dequantize(self, tensors: Sequence[Tensor]) -> Tensor:
        """The matrix that such tensors stand for."""


class LibraryPages(PageTensors):
    """Coded by the library that the coding names; dynamic mask values are kept as they are.

    Raises:
        MissingExtraError: the library is not installed.
    """

    def __init__(self, part: parts.Attention, coding: Coding, dtype: torch.dtype, memory: PageMemory) -> None:
        make = _Quanto if coding.library == "quanto" else _Hqq
        sample = torch.zeros(coding.group, part.kv_heads * part.head_dim, dtype=dtype, device=memory.device)
        self._quantizers: list[_Quantizer] = [
            make(coding, axis, sample) for axis in (coding.axis_key, coding.axis_value)
        ]
        made = [quantizer.quantize(sample) for quantizer in self._quantizers]
        self._planes = slice(0, len(made[0])), slice(len(made[0]), len(made[0]) + len(made[1]))
        kinds = [(tensor.shape, tensor.dtype) for tensors in made for tensor in tensors]
        if part.dynamic_mask:
            kinds.append((torch.Size((coding.group, part.kv_heads)), dtype))
        super().__init__([shape for shape, _ in kinds], [dtype for _, dtype in kinds], 1, memory)

    def encode(self, pages: Tensor, planes: Sequence[Tensor]) -> None:
        """Code the planes of whole pages: keys and values (pages, group, kv_heads, head_dim), dynamic mask values."""
        for quantizer, place, plane in zip(self._quantizers, self._planes, planes):
            made = zip(*(quantizer.quantize(matrix) for matrix in plane.flatten(2)))
            for held, tensors in zip(self.tensors[place], made, strict=True):
                held.index_copy_(0, pages, torch.stack(tensors))
        if len(planes) == 3:
            self.tensors[-1].index_copy_(0, pages, planes[2])

    def decode(self, pages: Tensor, plane: int, out: Tensor) -> None:
        """Write a plane of pages (count * pages of each,) to `out`, (count, tokens of each, ...), in any type."""
        if plane == 2:
            out.copy_(self.tensors[-1].index_select(0, pages).view(out.shape))
            return
        held = [tensor.index_select(0, pages) for tensor in self.tensors[self._planes[plane]]]
        matrices = [self._quantizers[plane].dequantize(tensors) for tensors in zip(*held)]
        out.copy_(torch.stack(matrices).view(out.shape))


class _Quanto:
    """As transformers' `QuantoQuantizedCache`: groups of a row's numbers (axis 0), or of a column's (axis -1)."""

    def __init__(self, coding: Coding, axis: int, sample: Tensor) -> None:
        self._library = _load("optimum.quanto", "optimum-quanto", "quanto")
        self._type = {2: self._library.qint2, 4: self._library.qint4}[coding.bits]
        self._optimizer = self._library.MaxOptimizer()
        self._axis, self._group = axis, coding.group
        self._made = self._quantize(sample)

    def quantize(self, numbers: Tensor) -> list[Tensor]:
        """Codes, scales and shifts."""
        return list(_innermost(self._quantize(numbers)))

    def dequantize(self, tensors: Sequence[Tensor]) -> Tensor:
        """The matrix that they stand for."""
        matrix: Tensor = _like(self._made, iter(tensors)).dequantize()[0]
        return matrix

    def _quantize(self, numbers: Tensor) -> Any:
        batch = numbers.unsqueeze(0)  # groups along axis 0 may then go over rows
        scale, shift = self._optimizer(batch, self._type, self._axis, self._group)
        return self._library.quantize_weight(batch, self._type, self._axis, scale, shift, self._group, optimized=False)


class _Hqq:
    """As transformers' `HQQQuantizedCache`: groups of a column's numbers (axis 0), or of a row's (axis 1)."""

    def __init__(self, coding: Coding, axis: int, sample: Tensor) -> None:
        self._quantizer = _load("hqq.core.quantize", "hqq", "hqq").Quantizer
        self._how = {"nbits": coding.bits, "group_size": coding.group, "axis": axis}
        self._dtype, self._device = sample.dtype, sample.device
        self._known = self._quantize(sample)[1]

    def quantize(self, numbers: Tensor) -> list[Tensor]:
        """Codes, scales and zeros."""
        codes, known = self._quantize(numbers)
        return [codes, known["scale"], known["zero"]]

    def dequantize(self, tensors: Sequence[Tensor]) -> Tensor:
        """The matrix that they stand for."""
        codes, scale, zero = tensors
        matrix: Tensor = self._quantizer.dequantize(codes, {**self._known, "scale": scale, "zero": zero})
        return matrix

    def _quantize(self, numbers: Tensor) -> tuple[Tensor, dict[str, Any]]:
        codes, known = self._quantizer.quantize(numbers, device=self._device, compute_dtype=self._dtype, **self._how)
        known["compute_dtype"] = self._dtype
        # It makes scales and zeros of that type, too.
        placed: tuple[Tensor, dict[str, Any]] = self._quantizer.to_inplace(codes, known, self._device)
        return placed


def library_version(coding: Coding) -> str:
    """The version of the library that a coding names: others may lay out their tensors in another way."""
    return version({"quanto": "optimum-quanto", "hqq": "hqq"}[str(coding.library)])


def _load(module: str, library: str, extra: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports what warns of being old
            return import_module(module)
    except ImportError as error:
        raise MissingExtraError(library, extra, f'A quantized cache with backend="{extra}"') from error


def _innermost(tensor: Any) -> Iterator[Tensor]:
    """The plain tensors that a tensor consists of, which may itself consist of such that do."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from _innermost(getattr(tensor, name))


def _like(tensor: Any, innermost: Iterator[Tensor]) -> Any:
    """A tensor that is made as another is, of other plain tensors."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return next(innermost)
    names, known = tensor.__tensor_flatten__()
    inner = {name: _like(getattr(tensor, name), innermost) for name in names}
    return type(tensor).__tensor_unflatten__(inner, known, tensor.size(), tensor.stride())
