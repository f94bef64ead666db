"""transformers with one kind of cache."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, cache_utils

from cpu.protocol import Rate

READ_AT_ONCE = 32
"""Tokens of a text that are read together at first: a cache keeps all of its prompt, and what it codes later, coded."""

MISSING = {
    backend: distribution
    for backend, distribution, module in (("quanto", "optimum-quanto", "optimum"), ("HQQ", "hqq", "hqq"))
    if find_spec(module) is None
}
"""The libraries that a backend of its quantized cache needs, where they are not there."""


class Peer:
    """Eager, with its default attention."""

    version = f"transformers {transformers.__version__}"

    def __init__(self, folder: str, threads: int) -> None:
        torch.set_num_threads(threads)
        # Not an AutoTokenizer, which refuses the configs of later versions.
        self.tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self.model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()

    @torch.no_grad()
    def perplexity(self, texts: Sequence[str], options: dict[str, Any]) -> list[float]:
        """The log-probability of the texts' tokens, and how many have one; read token by token, as decoding does.

        All texts are cut to the length of the shortest, and read side by side.
        """
        rows = [self._ids(text) for text in texts]
        ids = torch.tensor([row[: min(map(len, rows))] for row in rows])
        cache, total, at = self._cache(options), 0.0, 0
        while at < ids.shape[1] - 1:
            stop = min(at + 1, ids.shape[1] - 1) if at else min(READ_AT_ONCE, ids.shape[1] - 1)
            # A quantized cache tells a wrong length (it counts for each layer), so positions are told here.
            places = torch.arange(at, stop)
            logits = self.model(
                ids[:, at:stop], past_key_values=cache, cache_position=places, position_ids=places[None], use_cache=True
            ).logits
            told = logits.float().log_softmax(-1).gather(2, ids[:, at + 1 : stop + 1, None])
            total, at = total + float(told.sum()), stop
        return [total, len(ids) * (ids.shape[1] - 1)]

    @torch.no_grad()
    def held(self, rows: Sequence[Sequence[int]], options: dict[str, Any]) -> dict[str, Any]:
        """What the cache's tensors take."""
        ids, cache = torch.tensor([list(row) for row in rows]), self._cache(options)
        self.model(ids, past_key_values=cache, use_cache=True)
        parts = {"exact in memory": sum(_bytes(layer.keys) + _bytes(layer.values) for layer in cache.layers)}
        processor = cache.cache_processor
        if processor is not None:
            parts["coded in memory"] = _bytes([*processor._quantized_keys, *processor._quantized_values])
        return {"parts": parts}

    def decode(self, rows: Sequence[Sequence[int]], new: int, options: dict[str, Any]) -> float:
        """Tokens per second behind each row's first new one."""
        rate, ids = Rate(len(rows), new), torch.tensor([list(row) for row in rows])

        def after_each_step(_: torch.Tensor, __: Any) -> torch.Tensor:
            rate.tick_all()
            return torch.zeros(len(rows), dtype=torch.bool)

        self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            pad_token_id=0,
            do_sample=False,
            stopping_criteria=[after_each_step],
            **options,
        )
        return float(rate)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text).ids
        bos = self.model.config.bos_token_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def _cache(self, options: dict[str, Any]) -> Any:
        if not options:
            return cache_utils.DynamicCache()
        config = dict(options["cache_config"])
        backend = config.pop("backend")
        if distribution := MISSING.get(backend):  # which transformers would not say
            raise RuntimeError(f"{distribution} is not installed where --peer-python is")
        kind = {"quanto": cache_utils.QuantoQuantizedCache, "HQQ": cache_utils.HQQQuantizedCache}
        return kind[backend](**config, compute_dtype=torch.float32, device="cpu")


def _bytes(found: Any) -> int:
    """Of all plain tensors in what a library makes of one."""
    if isinstance(found, (list, tuple)):
        return sum(map(_bytes, found))
    if isinstance(found, dict):
        return sum(_bytes(value) for value in found.values())
    if hasattr(found, "__tensor_flatten__"):
        return sum(_bytes(getattr(found, name)) for name in found.__tensor_flatten__()[0])
    return int(found.nbytes) if isinstance(found, torch.Tensor) else 0
