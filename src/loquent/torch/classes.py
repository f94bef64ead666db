"""The torch classes by their public names, a family and a head each; what they compute is the family's composition."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from loquent.config.base import PretrainedConfig
from loquent.errors import ArgumentError
from loquent.torch.auto import AutoClass
from loquent.torch.base import BaseModel
from loquent.torch.causal import CausalLM
from loquent.torch.model import PreTrainedModel
from loquent.torch.options import LoadOptions
from loquent.torch.outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    MoeCausalLMOutputWithPast,
    MoeModelOutputWithPast,
)


class LlamaModel(BaseModel):
    """Llama without a head (https://huggingface.co/docs/transformers/model_doc/llama)."""

    model_type = "llama"


class LlamaForCausalLM(CausalLM):
    """Llama with its language-model head."""

    model_type = "llama"
    base_class = LlamaModel


class GPT2Model(BaseModel):
    """GPT-2, and DialoGPT, without a head (https://huggingface.co/docs/transformers/model_doc/gpt2)."""

    model_type = "gpt2"
    scaled_residual_init = True
    output_class = BaseModelOutputWithPastAndCrossAttentions


class GPT2LMHeadModel(CausalLM):
    """GPT-2, and DialoGPT, with its language-model head."""

    model_type = "gpt2"
    scaled_residual_init = True
    base_class = GPT2Model
    output_class = CausalLMOutputWithCrossAttentions


class GPTNeoModel(BaseModel):
    """GPT-Neo without a head (https://huggingface.co/docs/transformers/model_doc/gpt_neo)."""

    model_type = "gpt_neo"


class GPTNeoForCausalLM(CausalLM):
    """GPT-Neo with its language-model head."""

    model_type = "gpt_neo"
    base_class = GPTNeoModel


class GPTBigCodeModel(BaseModel):
    """GPTBigCode without a head (https://huggingface.co/docs/transformers/model_doc/gpt_bigcode)."""

    model_type = "gpt_bigcode"
    scaled_residual_init = True
    output_class = BaseModelOutputWithPastAndCrossAttentions


class GPTBigCodeForCausalLM(CausalLM):
    """GPTBigCode with its language-model head."""

    model_type = "gpt_bigcode"
    scaled_residual_init = True
    base_class = GPTBigCodeModel
    output_class = CausalLMOutputWithCrossAttentions


class GPTNeoXModel(BaseModel):
    """GPT-NeoX, and Pythia, without a head (https://huggingface.co/docs/transformers/model_doc/gpt_neox)."""

    model_type = "gpt_neox"


class GPTNeoXForCausalLM(CausalLM):
    """GPT-NeoX, and Pythia, with its language-model head."""

    model_type = "gpt_neox"
    base_class = GPTNeoXModel


class DogeModel(BaseModel):
    """Doge without a head (https://huggingface.co/docs/transformers/model_doc/doge)."""

    model_type = "doge"
    output_class = MoeModelOutputWithPast


class DogeForCausalLM(CausalLM):
    """Doge with its language-model head."""

    model_type = "doge"
    base_class = DogeModel
    output_class = MoeCausalLMOutputWithPast


def _by_type(*models: type[PreTrainedModel]) -> dict[str, type[PreTrainedModel]]:
    return {model.model_type: model for model in models}


class AutoModel(AutoClass):
    """The model without a head of whatever family a checkpoint is."""

    _classes: ClassVar[dict[str, type[PreTrainedModel]]] = _by_type(
        DogeModel, GPT2Model, GPTBigCodeModel, GPTNeoModel, GPTNeoXModel, LlamaModel
    )


class AutoModelForCausalLM(AutoClass):
    """The causal language model of whatever family a checkpoint is."""

    _classes: ClassVar[dict[str, type[PreTrainedModel]]] = _by_type(
        DogeForCausalLM, GPT2LMHeadModel, GPTBigCodeForCausalLM, GPTNeoForCausalLM, GPTNeoXForCausalLM, LlamaForCausalLM
    )

    @classmethod
    def _load_native(cls, name: str | os.PathLike[str], config: PretrainedConfig, options: LoadOptions) -> Any:
        from loquent.native.loading import load_native

        if options.device.type != "cpu" and not options.anywhere:
            raise ArgumentError(
                f"device_map={str(options.device)!r} is not available: quantized models run on the CPU. Leave it out, "
                "or leave the quantization out."
            )
        return load_native(name, options.quantization or "auto", config, **options.hub)
