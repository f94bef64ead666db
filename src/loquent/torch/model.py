"""`PreTrainedModel`: what every torch model can do besides computing: load, save, resize, count, report.

The public names follow https://huggingface.co/docs/transformers/main_classes/model. What a model computes is in
`torch.base` and `torch.causal`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from loquent import families
from loquent.errors import ArgumentError
from loquent.torch.adapters.methods import AdapterMethods
from loquent.torch.decoder import DecoderStack, checkpointed

if TYPE_CHECKING:
    from loquent.config import GenerationConfig, PretrainedConfig
    from loquent.parts import Decoder

M = TypeVar("M", bound="PreTrainedModel")

_NORMS = ("norm.weight",)
_ONES = ("attention_residual", "mlp_residual")
_ZEROS = (".bias", "dynamic_mask.decay")


class PreTrainedModel(AdapterMethods, nn.Module):
    """The base of all models; a subclass names its family and builds its modules.

    A model is made from a config with random weights, which follow torch's generator (`torch.manual_seed`), or loaded
    by `from_pretrained`. Parameters are named in one way for all families (`blocks.0.attention.qkv.weight`);
    checkpoints keep the names of their own families.

    Attributes:
        config: the config that it was made from.
        decoder: what the config composes to (`loquent.parts`).
        base_model_prefix: the attribute under which a model with a head holds the one without.
    """

    model_type: ClassVar[str]
    main_input_name: ClassVar[str] = "input_ids"
    supports_gradient_checkpointing: ClassVar[bool] = True
    gives_tensors: bool = True  # what ids that came as lists are continued as
    scaled_residual_init: ClassVar[bool] = False  # GPT-2's smaller weights where blocks add to the residual

    config: PretrainedConfig
    decoder: Decoder

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        if not isinstance(config, self.config_class):
            raise ArgumentError(
                f"{type(self).__name__} needs a {self.config_class.__name__}, not a {type(config).__name__}. "
                "AutoModel and AutoModelForCausalLM choose the class by the config."
            )
        self.config = config
        self.family = families.family_of(config)
        self.decoder = self.family.compose(config)
        self._generation_config: GenerationConfig | None = None
        device = torch.get_default_device()
        with torch.device("meta"):
            self._build()
        if device.type != "meta":
            self.allocate(device)
            self.initialize()

    def _build(self) -> None:
        """Make the modules; their memory is allocated elsewhere."""
        raise NotImplementedError

    @classmethod
    def family_config(cls) -> type[PretrainedConfig]:
        """The config class of the family."""
        return families.family(cls.model_type).config

    @property
    def config_class(self) -> type[PretrainedConfig]:
        """The config class of the family."""
        return self.family_config()

    @property
    def base_model_prefix(self) -> str:
        """The name of the base model's attribute, and what checkpoints put before its names."""
        return self.family.prefix

    @property
    def base_model(self) -> PreTrainedModel:
        """The model without its head; itself if it has none."""
        return self

    @property
    def stack(self) -> DecoderStack:
        """The modules that read tokens."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.stack.tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.stack.tokens.weight.dtype

    @property
    def generation_config(self) -> GenerationConfig:
        """How it generates unless told otherwise: from its folder, or derived from its config."""
        if self._generation_config is None:
            from loquent.config import GenerationConfig

            self._generation_config = GenerationConfig.from_model_config(self.config)
        return self._generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig) -> None:
        self._generation_config = value

    @property
    def name_or_path(self) -> str:
        """The folder or repository that it was loaded from; empty for a model made from a config."""
        return self.config.name_or_path

    def can_generate(self) -> bool:
        """Whether it has a language-model head."""
        return False

    # --- weights -----------------------------------------------------------------------------------------------------

    def allocate(self, device: torch.device) -> None:
        """Give the parameters of a model made on the meta device memory, without content."""
        # Not nn.Module.to_empty, which imports much of torch and forgets what is tied.
        for module in self.modules():
            for name, parameter in module.named_parameters(recurse=False):
                memory = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                setattr(module, name, nn.Parameter(memory, requires_grad=parameter.requires_grad))
        self.tie_weights()

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw all weights anew, as checkpoints of the family were before training (`initializer_range`)."""
        deviation = float(self.config.initializer_range)
        small = deviation / math.sqrt(2 * len(self.decoder.blocks))
        for name, parameter in self.named_parameters():
            if name.endswith(_NORMS + _ONES):
                parameter.fill_(1.0)
            elif name.endswith(_ZEROS):
                parameter.zero_()
            elif name.endswith("mlp.activation.weight"):
                parameter.fill_(0.25)
            else:
                is_last = name.endswith(("attention.output.weight", "mlp.down.weight"))
                parameter.normal_(0.0, small if is_last and self.scaled_residual_init else deviation)

    def tie_weights(self) -> None:
        """Make the head use the token embedding's memory where the config says so."""

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.stack.tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.stack.tokens = value  # type: ignore[assignment]  # any module that maps ids to vectors
        self.tie_weights()

    def get_output_embeddings(self) -> nn.Module | None:
        """The head's linear layer, None for a model without one."""
        return None

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the parameters hold, tied ones once."""
        embeddings = {id(module.weight) for module in self.modules() if isinstance(module, nn.Embedding)}
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if (parameter.requires_grad or not only_trainable)
            and not (exclude_embeddings and id(parameter) in embeddings)
        )

    def get_memory_footprint(self) -> int:
        """The bytes of the parameters."""
        return sum(parameter.numel() * parameter.element_size() for parameter in self.parameters())

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Give the vocabulary another size, of embedding and head; returns the embedding.

        Args:
            new_num_tokens: the size; None leaves it but for `pad_to_multiple_of`.
            pad_to_multiple_of: round the size up to a multiple of it.
            mean_resizing: new rows are the mean of the old ones; otherwise drawn as for a new model.

        Raises:
            ArgumentError: a size below 1, or an adapter was made for the size as it is.
        """
        size = self.decoder.vocabulary if new_num_tokens is None else new_num_tokens
        if not isinstance(size, int):
            raise ArgumentError(f"new_num_tokens is a {type(size).__name__}. Pass a number, such as len(tokenizer).")
        if size < 1 or (pad_to_multiple_of is not None and pad_to_multiple_of < 1):
            raise ArgumentError(f"{new_num_tokens=} and {pad_to_multiple_of=} must be at least 1, or None.")
        if pad_to_multiple_of:
            size = -(-size // pad_to_multiple_of) * pad_to_multiple_of
        if size != self.decoder.vocabulary:
            self._check_resizable()
            self._resize_vocabulary(size, lambda old: self._resized(old, size, mean_resizing))
        return self.get_input_embeddings()

    def _resize_vocabulary(self, size: int, resized: Callable[[Tensor], Tensor]) -> None:
        embedding = self.stack.tokens
        embedding.weight = nn.Parameter(resized(embedding.weight), requires_grad=embedding.weight.requires_grad)
        embedding.num_embeddings = size
        self.config.vocab_size = size
        self.decoder = dataclasses.replace(self.decoder, vocabulary=size)
        self.stack.decoder = self.decoder

    def _resized(self, old: Tensor, size: int, mean_resizing: bool) -> Tensor:
        kept = old.detach()[:size]
        new = kept.new_empty(size - len(kept), *kept.shape[1:])
        if mean_resizing:
            new[:] = kept.float().mean(0).to(kept.dtype)
        elif kept.dim() == 2:
            new.normal_(0.0, float(self.config.initializer_range))
        else:
            new.zero_()
        return torch.cat([kept, new])

    # --- training ----------------------------------------------------------------------------------------------------

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Compute blocks again when going backward in training instead of keeping their results: less memory.

        Raises:
            ArgumentError: a setting other than `use_reentrant`, which is accepted and has no effect.
        """
        unknown = sorted(set(gradient_checkpointing_kwargs or {}) - {"use_reentrant"})
        if unknown:
            raise ArgumentError(f"gradient_checkpointing_kwargs has {unknown}; only 'use_reentrant' is known.")
        self.stack.checkpointing = checkpointed

    def gradient_checkpointing_disable(self) -> None:
        """Keep the results of all blocks again."""
        self.stack.checkpointing = None

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is on."""
        return self.stack.checkpointing is not None

    def enable_input_require_grads(self) -> None:
        """Let gradients reach the embeddings' output, which adapters on a frozen model may need."""
        self.stack.tokens.register_forward_hook(lambda module, args, output: output.requires_grad_(True))

    # --- files -------------------------------------------------------------------------------------------------------

    @classmethod
    def from_config(cls: type[M], config: PretrainedConfig, **kwargs: Any) -> M:
        """A model with random weights; `dtype` (or `torch_dtype`) chooses their type.

        Raises:
            ArgumentError: the config is another family's, or no such dtype is known.
        """
        from loquent.torch.loading import model_from_config

        return model_from_config(cls, config, **kwargs)

    @classmethod
    def from_pretrained(cls: type[M], pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> M:
        """A trained model, in evaluation mode, from a folder or a repository on the hub.

        Tensors are streamed from the files into parameters that are allocated once, in their final type.

        Args:
            pretrained_model_name_or_path: a folder, or a name such as "org/name"; where only an adapter is, the model
                that it was trained on is loaded, and the adapter into it.
            **kwargs: see `loquent.torch.options.LoadOptions`; whatever else is a field of the config overrides it.

        Raises:
            HubError: the name could not be resolved.
            CheckpointError: files are missing or damaged; one error lists every tensor that is missing, unexpected or
                of another shape.
            ConfigError: the config makes no model.
            ArgumentError: an argument is unknown or cannot work.
        """
        from loquent.torch.loading import load_model

        return load_model(cls, pretrained_model_name_or_path, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Write config, generation config and weights into a folder, under the checkpoint's own names.

        While an adapter acts that is not merged, the adapter alone is written, as `save_adapter` does, and
        `from_pretrained` of the folder loads its base model with it.

        Args:
            save_directory: the folder, made if need be.
            **kwargs: `max_shard_size` (bytes, or such as "5GB"), `safe_serialization` (True only), `push_to_hub` and,
                with it, `repo_id` and the arguments of `push_to_hub`.

        Raises:
            ArgumentError: the folder is a file, an argument is unknown or cannot work, or an adapter acts whose base
                model has no name.
            HubError: the upload failed.
        """
        from loquent.torch.saving import save_model

        save_model(self, save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Upload what `save_pretrained` writes to the repository `repo_id`; returns the commit's address.

        Args:
            repo_id: "name" or "owner/name", made if need be.
            **kwargs: `commit_message`, `private`, `token`, `revision`, `create_pr`, `max_shard_size`.

        Raises:
            HubError: the hub refused or could not be reached.
        """
        from loquent.torch.saving import push_model

        return push_model(self, repo_id, **kwargs)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Parameters made inside have this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
