"""The public names of Loquent, each imported when it is first used; nothing is computed here.

`import loquent` loads neither numpy nor torch. A name whose library is not installed raises MissingExtraError, with the
pip command, when the name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from loquent.version import __version__

if TYPE_CHECKING:
    from loquent.cache.faces import (
        Cache,
        DynamicCache,
        EncoderDecoderCache,
        HQQQuantizedCache,
        OffloadedCache,
        OffloadedStaticCache,
        QuantizedCache,
        QuantoQuantizedCache,
        SlidingWindowCache,
        StaticCache,
    )
    from loquent.config import GenerationConfig, PretrainedConfig
    from loquent.config.caches import QuantizedCacheConfig
    from loquent.config.lora import LoraConfig
    from loquent.config.watermarking import SynthIDTextWatermarkingConfig, WatermarkingConfig
    from loquent.decoding.constraints import Constraint, DisjunctiveConstraint, PhrasalConstraint
    from loquent.decoding.criteria import (
        EosTokenCriteria,
        MaxLengthCriteria,
        MaxTimeCriteria,
        StoppingCriteria,
        StoppingCriteriaList,
        StopStringCriteria,
    )
    from loquent.decoding.processors import LogitsProcessor, LogitsProcessorList
    from loquent.decoding.random import set_seed
    from loquent.decoding.streaming import (
        AsyncTextIteratorStreamer,
        BaseStreamer,
        TextIteratorStreamer,
        TextStreamer,
    )
    from loquent.decoding.watermarks import SynthIDTextWatermarkScorer, WatermarkDetector, WatermarkDetectorOutput
    from loquent.errors import (
        ArgumentError,
        CapacityError,
        CheckpointError,
        ConfigError,
        ContextLengthError,
        HubError,
        LoquentError,
        MissingExtraError,
        NativeError,
        RequestCancelledError,
        TemplateError,
        TokenizerError,
    )
    from loquent.families.auto import AutoConfig
    from loquent.families.doge import DogeConfig
    from loquent.families.gpt2 import GPT2Config
    from loquent.families.gpt_bigcode import GPTBigCodeConfig
    from loquent.families.gpt_neo import GPTNeoConfig
    from loquent.families.gpt_neox import GPTNeoXConfig
    from loquent.families.llama import LlamaConfig
    from loquent.generation import GenerationEngine, GenerationHandle, StreamEvent, open_engine
    from loquent.pipelines import TextGenerationPipeline, pipeline
    from loquent.text import TextModel, load
    from loquent.tokenization import (
        AutoTokenizer,
        BatchEncoding,
        CodeLlamaTokenizer,
        CodeLlamaTokenizerFast,
        GPT2Tokenizer,
        GPT2TokenizerFast,
        GPTNeoXTokenizer,
        GPTNeoXTokenizerFast,
        LlamaTokenizer,
        LlamaTokenizerFast,
        OpenAIGPTTokenizer,
        OpenAIGPTTokenizerFast,
        PreTrainedTokenizer,
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
        T5Tokenizer,
        T5TokenizerFast,
        TokenizersBackend,
        WhisperTokenizer,
        WhisperTokenizerFast,
    )
    from loquent.torch.adapters import add_lora, load_adapter, save_adapter
    from loquent.torch.classes import (
        AutoModel,
        AutoModelForCausalLM,
        DogeForCausalLM,
        DogeModel,
        GPT2LMHeadModel,
        GPT2Model,
        GPTBigCodeForCausalLM,
        GPTBigCodeModel,
        GPTNeoForCausalLM,
        GPTNeoModel,
        GPTNeoXForCausalLM,
        GPTNeoXModel,
        LlamaForCausalLM,
        LlamaModel,
    )
    from loquent.torch.model import PreTrainedModel

__all__ = [
    "ArgumentError",
    "AsyncTextIteratorStreamer",
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "BaseStreamer",
    "BatchEncoding",
    "Cache",
    "CapacityError",
    "CheckpointError",
    "CodeLlamaTokenizer",
    "CodeLlamaTokenizerFast",
    "ConfigError",
    "Constraint",
    "ContextLengthError",
    "DisjunctiveConstraint",
    "DogeConfig",
    "DogeForCausalLM",
    "DogeModel",
    "DynamicCache",
    "EncoderDecoderCache",
    "EosTokenCriteria",
    "GPT2Config",
    "GPT2LMHeadModel",
    "GPT2Model",
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "GPTBigCodeConfig",
    "GPTBigCodeForCausalLM",
    "GPTBigCodeModel",
    "GPTNeoConfig",
    "GPTNeoForCausalLM",
    "GPTNeoModel",
    "GPTNeoXConfig",
    "GPTNeoXForCausalLM",
    "GPTNeoXModel",
    "GPTNeoXTokenizer",
    "GPTNeoXTokenizerFast",
    "GenerationConfig",
    "GenerationEngine",
    "GenerationHandle",
    "HQQQuantizedCache",
    "HubError",
    "LlamaConfig",
    "LlamaForCausalLM",
    "LlamaModel",
    "LlamaTokenizer",
    "LlamaTokenizerFast",
    "LogitsProcessor",
    "LogitsProcessorList",
    "LoquentError",
    "LoraConfig",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "MissingExtraError",
    "NativeError",
    "OffloadedCache",
    "OffloadedStaticCache",
    "OpenAIGPTTokenizer",
    "OpenAIGPTTokenizerFast",
    "PhrasalConstraint",
    "PreTrainedModel",
    "PreTrainedTokenizer",
    "PreTrainedTokenizerBase",
    "PreTrainedTokenizerFast",
    "PretrainedConfig",
    "QuantizedCache",
    "QuantizedCacheConfig",
    "QuantoQuantizedCache",
    "RequestCancelledError",
    "SlidingWindowCache",
    "StaticCache",
    "StopStringCriteria",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "StreamEvent",
    "SynthIDTextWatermarkScorer",
    "SynthIDTextWatermarkingConfig",
    "T5Tokenizer",
    "T5TokenizerFast",
    "TemplateError",
    "TextGenerationPipeline",
    "TextIteratorStreamer",
    "TextModel",
    "TextStreamer",
    "TokenizerError",
    "TokenizersBackend",
    "WatermarkDetector",
    "WatermarkDetectorOutput",
    "WatermarkingConfig",
    "WhisperTokenizer",
    "WhisperTokenizerFast",
    "__version__",
    "add_lora",
    "load",
    "load_adapter",
    "open_engine",
    "pipeline",
    "save_adapter",
    "set_seed",
]

# Where each public name lives: the same as the imports above, which type checkers and editors read.
_NAMES_OF_MODULE = {
    "cache.faces": (
        "Cache DynamicCache EncoderDecoderCache HQQQuantizedCache OffloadedCache OffloadedStaticCache QuantizedCache "
        "QuantoQuantizedCache SlidingWindowCache StaticCache"
    ),
    "config": "GenerationConfig PretrainedConfig",
    "config.caches": "QuantizedCacheConfig",
    "config.lora": "LoraConfig",
    "config.watermarking": "SynthIDTextWatermarkingConfig WatermarkingConfig",
    "decoding.constraints": "Constraint DisjunctiveConstraint PhrasalConstraint",
    "decoding.criteria": (
        "EosTokenCriteria MaxLengthCriteria MaxTimeCriteria StopStringCriteria StoppingCriteria StoppingCriteriaList"
    ),
    "decoding.processors": "LogitsProcessor LogitsProcessorList",
    "decoding.random": "set_seed",
    "decoding.watermarks": "SynthIDTextWatermarkScorer WatermarkDetector WatermarkDetectorOutput",
    "decoding.streaming": "AsyncTextIteratorStreamer BaseStreamer TextIteratorStreamer TextStreamer",
    "errors": (
        "ArgumentError CapacityError CheckpointError ConfigError ContextLengthError HubError LoquentError "
        "MissingExtraError NativeError RequestCancelledError TemplateError TokenizerError"
    ),
    "families.auto": "AutoConfig",
    "families.doge": "DogeConfig",
    "families.gpt2": "GPT2Config",
    "families.gpt_bigcode": "GPTBigCodeConfig",
    "families.gpt_neo": "GPTNeoConfig",
    "families.gpt_neox": "GPTNeoXConfig",
    "families.llama": "LlamaConfig",
    "generation": "GenerationEngine GenerationHandle StreamEvent open_engine",
    "pipelines": "TextGenerationPipeline pipeline",
    "text": "TextModel load",
    "tokenization": (
        "AutoTokenizer BatchEncoding CodeLlamaTokenizer CodeLlamaTokenizerFast GPT2Tokenizer "
        "GPT2TokenizerFast GPTNeoXTokenizer GPTNeoXTokenizerFast LlamaTokenizer LlamaTokenizerFast "
        "OpenAIGPTTokenizer OpenAIGPTTokenizerFast PreTrainedTokenizer PreTrainedTokenizerBase "
        "PreTrainedTokenizerFast T5Tokenizer T5TokenizerFast TokenizersBackend WhisperTokenizer "
        "WhisperTokenizerFast"
    ),
    "torch.adapters": "add_lora load_adapter save_adapter",
    "torch.classes": (
        "AutoModel AutoModelForCausalLM DogeForCausalLM DogeModel GPT2LMHeadModel GPT2Model GPTBigCodeForCausalLM "
        "GPTBigCodeModel GPTNeoForCausalLM GPTNeoModel GPTNeoXForCausalLM GPTNeoXModel LlamaForCausalLM LlamaModel"
    ),
    "torch.model": "PreTrainedModel",
}
_MODULE_OF_NAME = {name: f"loquent.{module}" for module, names in _NAMES_OF_MODULE.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module 'loquent' has no attribute {name!r}")
    try:
        value = getattr(import_module(_MODULE_OF_NAME[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from loquent.errors import MissingExtraError

        raise MissingExtraError("torch", "torch", f"loquent.{name}") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
