"""`NativeModel`: a causal language model that the native core holds and runs; it generates, and computes nothing else.

It needs no torch. Ids that come as lists or arrays are continued as arrays, tensors as tensors.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from loquent.config.json_file import saving_folder
from loquent.config.packing import FIELD, packing
from loquent.errors import ArgumentError, NativeError
from loquent.native.backend import KEY_VALUE_KINDS, NativeBackend
from loquent.native.checkpoint import is_matrix
from loquent.native.weights import Weights
from loquent.weights import Shapes, sampled_rows

if TYPE_CHECKING:
    from loquent.config import GenerationConfig, PretrainedConfig
    from loquent.engine.backend import Backend
    from loquent.native._core import Matrix
    from loquent.parts import Decoder

M = TypeVar("M", bound="NativeModel")

_WITHOUT_PARAMETERS = ("It has no parameters", "one that has")
_REFUSED = {
    "cuda": ("It cannot become 'cuda'", "one that can"),
    "half": ("It cannot become 'float16'", "one that can"),
    "bfloat16": ("It cannot become 'bfloat16'", "one that can"),
    "float": ("It cannot become 'float32'", "one that can"),
    "double": ("It cannot become 'float64'", "one that can"),
    "parameters": _WITHOUT_PARAMETERS,
    "named_parameters": _WITHOUT_PARAMETERS,
    "state_dict": _WITHOUT_PARAMETERS,
    "load_state_dict": _WITHOUT_PARAMETERS,
}
"""Methods of torch models that a native one answers with a `NativeError`: what it says, and what the remedy gives."""


class Source(Weights, Protocol):
    """Weights to hold: a checkpoint's, packed as they are asked for, or a packed folder's."""

    decoder: Decoder
    shapes: Shapes
    precision: str


class HeldWeights:
    """The `loquent.native.weights.Weights` of a model, all of them taken from their source at once."""

    def __init__(self, source: Source) -> None:
        self._matrices: dict[str, Matrix] = {}
        self._vectors: dict[str, NDArray[np.float32]] = {}
        for name, shape in source.shapes.items():
            if is_matrix(name, shape):
                self._matrices[name] = source.matrix(name)
            else:
                self._vectors[name] = source.vector(name)

    def matrix(self, name: str) -> Matrix:
        """The matrix."""
        return self._matrices[name]

    def vector(self, name: str) -> NDArray[np.float32]:
        """The numbers."""
        return self._vectors[name]

    def __deepcopy__(self, memo: dict[int, Any]) -> HeldWeights:
        return self  # nothing changes them

    def __reduce__(self) -> NoReturn:
        raise NativeError(
            "The packed weights of a native model cannot be pickled. Write the model with save_pretrained(folder), and "
            "load it from there: all processes that do share its memory."
        )

    @property
    def nbytes(self) -> int:
        """What they take, in memory or in the mapped files."""
        matrices = sum(matrix.nbytes for matrix in self._matrices.values())
        return matrices + sum(vector.nbytes for vector in self._vectors.values())


class NativeModel:
    """A causal language model on the CPU, as `loquent.load` and `quantization=` give it.

    It has the methods of the torch classes that generating takes: `generate`, `stream`, `config`, `generation_config`,
    `eval`, `save_pretrained`. It has no parameters, so it cannot be trained, and no `forward`.

    Args:
        config: the model's config.
        source: its weights; they are taken when the model is made.
        generation_config: how it generates unless told otherwise.
        key_values: how keys and values are stored: "float32", "bfloat16" or "int8"; None: float32 where the weights
            are, else bfloat16.

    Raises:
        ArgumentError: `key_values` is none of these.
        CheckpointError: weights that the precision cannot hold.
        NativeError: the native core is not there.
    """

    gives_tensors = False
    """Whether the continuation of ids that came as lists is a tensor."""

    def __init__(
        self,
        config: PretrainedConfig,
        source: Source,
        generation_config: GenerationConfig,
        key_values: str | None = None,
    ) -> None:
        if key_values not in (None, *KEY_VALUE_KINDS):
            known = ", ".join(map(repr, KEY_VALUE_KINDS))
            raise ArgumentError(f"key_values={key_values!r} is unknown. Use one of {known}, or leave it out.")
        self.config = config
        self.key_values = key_values
        self.generation_config = generation_config
        self.decoder = source.decoder
        self.precision = source.precision
        self._shapes = source.shapes
        self._weights = HeldWeights(source)

    @property
    def name_or_path(self) -> str:
        """The folder or repository that it was loaded from."""
        return self.config.name_or_path

    @property
    def device(self) -> str:
        """Where it runs: "cpu"."""
        return "cpu"

    @property
    def dtype(self) -> str:
        """How its matrices are held: "float32", "bfloat16", "float16", "int8" or "int4"."""
        return self.precision

    @property
    def training(self) -> bool:
        """Whether it is being trained: never."""
        return False

    def can_generate(self) -> bool:
        """Whether it has a language-model head: yes."""
        return True

    def num_parameters(self) -> int:
        """How many numbers the weights are, tied ones once."""
        return sum(int(np.prod(shape)) for shape in self._shapes.values())

    def get_memory_footprint(self) -> int:
        """The bytes of its weights; those of a packed folder are in its files, and shared with other processes."""
        return self._weights.nbytes

    # --- generating --------------------------------------------------------------------------------------------------

    def open_backend(self) -> Backend:
        """A backend that runs the model."""
        return NativeBackend(self.decoder, self._weights, key_values=self.key_values)

    def backend_key(self) -> Hashable:
        """What a backend is made for."""
        return "native", self.key_values

    def sampled_weights(self) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
        """Each weight's canonical name, its type, and some of its rows, by which the model is told from another."""
        for name, shape in self._shapes.items():
            if is_matrix(name, shape):
                matrix = self._weights.matrix(name)
                yield name, matrix.kind, np.stack([matrix.row(index) for index in sampled_rows(shape[0])])
            else:
                numbers = self._weights.vector(name).reshape(shape)
                yield name, "float32", numbers[sampled_rows(shape[0])] if len(shape) == 2 else numbers

    def describe_backend(self) -> str:
        """What `generate` runs on, such as "native (avx512, int8, 2 threads)"."""
        from loquent.generation import engine_of

        return engine_of(self).backend.describe()

    def generate(self, inputs: Any = None, generation_config: Any = None, **kwargs: Any) -> Any:
        """Continue token sequences; see `loquent.generation.generate` for the arguments and what is returned."""
        from loquent.generation import generate

        return generate(self, inputs, generation_config, **kwargs)

    def stream(self, inputs: Any = None, generation_config: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Continue token sequences, yielding events as they happen; see `loquent.generation.stream`."""
        from loquent.generation import stream

        events: Iterator[Any] = stream(self, inputs, generation_config, **kwargs)
        return events

    def compute_transition_scores(
        self, sequences: Any, scores: Any, beam_indices: Any = None, normalize_logits: bool = False
    ) -> Any:
        """The scores of an output's tokens; see `loquent.generation.compute_transition_scores`."""
        from loquent.generation import compute_transition_scores

        return compute_transition_scores(sequences, scores, beam_indices, normalize_logits)

    # --- what programs for torch models call -------------------------------------------------------------------------

    def eval(self: M) -> M:
        """The model itself, which is never in training."""
        return self

    def to(self: M, *places: Any, **named: Any) -> M:
        """The model itself, where it is asked to stay on the CPU.

        Raises:
            NativeError: it is asked to go elsewhere, or to become of another type.
        """
        for place in (*places, *named.values()):
            if str(place) not in ("cpu", "cpu:0"):
                self._refuse(f"It cannot become {place!r}", "one that can")
        return self

    def train(self: M, mode: bool = True) -> M:
        """Refused, but for `mode=False`.

        Raises:
            NativeError: it cannot be trained.
        """
        if mode:
            self._refuse("It cannot be trained", "one that can")
        return self

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused.

        Raises:
            NativeError: there is no forward pass to call.
        """
        self._refuse("It generates (generate, stream) and has no forward pass, logits or loss to give", "one that has")

    __call__ = forward

    def _refuse(self, what: str, one: str) -> NoReturn:
        raise NativeError(
            f"{what}: this model is held in {self.precision} by Loquent's native core. "
            f"AutoModelForCausalLM.from_pretrained(name) without quantization loads {one}, on PyTorch."
        )

    # --- saving ------------------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | os.PathLike[str], max_shard_size: int | str = "5GB") -> None:
        """Write a packed folder (see `loquent.native.mapping`), which loads without a copy.

        Args:
            save_directory: the folder, made if need be.
            max_shard_size: bytes, or such as "5GB"; a larger model is cut into several files.

        Raises:
            ArgumentError: the folder is a file or the one that the model is mapped from, or the size is none.
        """
        from loquent.native.packing import write_packed

        folder = saving_folder(save_directory)
        if os.path.isdir(self.name_or_path) and os.path.samefile(folder, self.name_or_path):
            raise ArgumentError(
                f"save_directory={str(save_directory)!r} is where the model was loaded from. Name another folder."
            )
        self.generation_config.save_pretrained(folder)
        write_packed(folder, self._weights, self.decoder, self.precision, max_shard_size)
        packed_config(self.config, self.precision).save_pretrained(folder)


def _refusal(what: str, one: str) -> Callable[..., NoReturn]:
    def refuse(self: NativeModel, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse(what, one)

    return refuse


for _name, _words in _REFUSED.items():
    setattr(NativeModel, _name, _refusal(*_words))


def packed_config(config: PretrainedConfig, precision: str) -> PretrainedConfig:
    """The config of a packed folder: the model's, and how its weights are packed."""
    packed = copy.deepcopy(config)
    packed.update({FIELD: packing(precision)})
    return packed
