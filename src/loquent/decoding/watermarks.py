"""Finding watermarks in text with the config that marked it, by counts and scores; it marks and trains nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.config.watermarking import (
    SynthIDTextWatermarkingConfig,
    WatermarkingConfig,
    watermarking_config,
)
from loquent.decoding.arrays import to_numpy
from loquent.decoding.rules.green_list import is_green
from loquent.decoding.rules.synthid import hashed, ngram_hashes, sampling_table
from loquent.errors import ArgumentError


@dataclass
class WatermarkDetectorOutput:
    """What is known of each text, (texts,) each."""

    num_tokens_scored: NDArray[Any] | None = None
    num_green_tokens: NDArray[Any] | None = None
    green_fraction: NDArray[Any] | None = None
    z_score: NDArray[Any] | None = None  # standard deviations above what unmarked text has
    p_value: NDArray[Any] | None = None  # of as high a score in unmarked text
    prediction: NDArray[Any] | None = None  # whether it is marked
    confidence: NDArray[Any] | None = None  # 1 - p_value


class WatermarkDetector:
    """Finds what a `WatermarkingConfig` has marked: more green tokens than chance gives.

    Args:
        model_config: of the model that wrote: its `vocab_size` and `bos_token_id` matter.
        device: taken for compatibility; the lists are the same everywhere.
        watermarking_config: an equal one to that which marked, or its fields.
        ignore_repeated_ngrams: count each n-gram once, so that repetition proves nothing.
        max_cache_size: taken for compatibility.

    Raises:
        ArgumentError: the config is none of a green list.
    """

    def __init__(
        self,
        model_config: Any,
        device: Any = None,
        watermarking_config: Any = None,
        ignore_repeated_ngrams: bool = False,
        max_cache_size: int = 128,
    ) -> None:
        self.config = _config_of(WatermarkingConfig, watermarking_config)
        self.vocabulary: int = model_config.vocab_size
        self.bos_token_id: int | None = model_config.bos_token_id
        self.ignore_repeated_ngrams = ignore_repeated_ngrams

    def __call__(self, input_ids: Any, z_threshold: float = 3.0, return_dict: bool = False) -> Any:
        """Whether each text is marked, or with `return_dict` a WatermarkDetectorOutput.

        Args:
            input_ids: the texts without their prompts, (texts, length). If the first begins with BOS, so do all.
            z_threshold: the score above which a text counts as marked.
            return_dict: say all that is known.

        Raises:
            ArgumentError: the texts are too short to be judged.
        """
        ids = _texts(input_ids)
        if ids.shape[1] and ids[0, 0] == self.bos_token_id:
            ids = ids[:, 1:]
        if ids.shape[1] <= self.config.context_width:
            raise ArgumentError(
                f"input_ids has {ids.shape[1]} tokens a text, and context_width={self.config.context_width} needs "
                f"{self.config.context_width + 1}. Pass longer texts."
            )
        counts = np.array([self._count(text) for text in ids.tolist()], np.float64)
        scored, green = counts[:, 0], counts[:, 1]
        ratio = self.config.greenlist_ratio
        z_score = (green - ratio * scored) / np.sqrt(scored * ratio * (1 - ratio))
        prediction = z_score > z_threshold
        if not return_dict:
            return prediction
        p_value = _tail(z_score)
        return WatermarkDetectorOutput(scored, green, green / scored, z_score, p_value, prediction, 1 - p_value)

    def _count(self, text: list[int]) -> tuple[int, int]:
        """How many n-grams of the text are judged, and how many of them end green."""
        judges_itself = self.config.seeding_scheme == "selfhash"
        size = self.config.context_width + (0 if judges_itself else 1)
        ngrams = [tuple(text[at : at + size]) for at in range(len(text) - size + 1)]
        distinct = {
            ngram: is_green(self.config, self.vocabulary, ngram if judges_itself else ngram[:-1], ngram[-1])
            for ngram in dict.fromkeys(ngrams)
        }
        if self.ignore_repeated_ngrams:
            return len(distinct), sum(distinct.values())
        return len(ngrams), sum(distinct[ngram] for ngram in ngrams)


class SynthIDTextWatermarkScorer:
    """Finds what a `SynthIDTextWatermarkingConfig` has marked by its mean scores, which need no training.

    transformers' `SynthIDTextWatermarkDetector` judges the same numbers with a trained model in place of a mean.

    Args:
        watermarking_config: an equal one to that which marked, or its fields.
        eos_token_id: nothing is counted from the first of these on.

    Raises:
        ArgumentError: the config is none of SynthID.
    """

    def __init__(self, watermarking_config: Any, eos_token_id: int | None = None) -> None:
        self.config = _config_of(SynthIDTextWatermarkingConfig, watermarking_config)
        self.eos_token_id = eos_token_id

    def __call__(self, input_ids: Any, z_threshold: float = 3.0, return_dict: bool = False) -> Any:
        """Whether each text is marked, or with `return_dict` a WatermarkDetectorOutput, by the weighted mean.

        Args:
            input_ids: the texts without their prompts, (texts, length).
            z_threshold: the score above which a text counts as marked.
            return_dict: say all that is known.

        Raises:
            ArgumentError: the texts are too short to be judged.
        """
        mask, weights = self.mask(input_ids), self._weights()
        counted = mask.sum(axis=1)
        spread = 0.5 * np.sqrt((weights**2).sum()) / len(weights)  # of one token's weighted mean in unmarked text
        z_score = (self.weighted_mean_score(input_ids) - 0.5) * np.sqrt(counted) / spread
        prediction = z_score > z_threshold
        if not return_dict:
            return prediction
        p_value = _tail(z_score)
        return WatermarkDetectorOutput(
            num_tokens_scored=counted, z_score=z_score, p_value=p_value, prediction=prediction, confidence=1 - p_value
        )

    def compute_g_values(self, input_ids: Any) -> NDArray[np.int64]:
        """The zeros and ones of each token that has a whole context: (texts, length - ngram_len + 1, keys)."""
        config = self.config
        hashes = self._hashes(input_ids, config.ngram_len)
        layers = hashed(hashes[:, :, None], np.array(config.keys, np.int64))
        table = sampling_table(config.sampling_table_seed, config.sampling_table_size)
        values: NDArray[np.int64] = table[layers % config.sampling_table_size]
        return values

    def compute_context_repetition_mask(self, input_ids: Any) -> NDArray[np.bool_]:
        """Where a context is there for the first time in a text: (texts, length - ngram_len + 1)."""
        hashes = self._hashes(_texts(input_ids)[:, :-1], self.config.ngram_len - 1)
        size = self.config.context_history_size
        return np.array([[_is_first(own, at, size) for at in range(len(own))] for own in hashes.tolist()], np.bool_)

    def mask(self, input_ids: Any) -> NDArray[np.bool_]:
        """Which of the values count: first contexts, before the end token; as `compute_g_values` without the keys."""
        fresh = self.compute_context_repetition_mask(input_ids)
        if self.eos_token_id is None:
            return fresh
        ended = np.cumsum(_texts(input_ids) == self.eos_token_id, axis=1) > 0
        return fresh & ~ended[:, self.config.ngram_len - 1 :]

    def mean_score(self, input_ids: Any) -> NDArray[np.float64]:
        """The mean of the values that count, (texts,): 0.5 in unmarked text on average."""
        return self._mean(input_ids, np.ones(len(self.config.keys)))

    def weighted_mean_score(self, input_ids: Any) -> NDArray[np.float64]:
        """The same with weights that fall from 10 to 1 over the layers, the first of which carry most of the mark."""
        return self._mean(input_ids, self._weights())

    def _weights(self) -> NDArray[np.float64]:
        weights = np.linspace(10.0, 1.0, len(self.config.keys))
        weights *= len(weights) / weights.sum()
        return weights

    def _mean(self, input_ids: Any, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        mask = self.mask(input_ids)
        values = (self.compute_g_values(input_ids) * weights).mean(axis=2)
        counted = mask.sum(axis=1)
        if not counted.all():
            raise ArgumentError("input_ids has a text in which no token counts. Pass longer texts.")
        means: NDArray[np.float64] = (values * mask).sum(axis=1) / counted
        return means

    def _hashes(self, input_ids: Any, size: int) -> NDArray[np.int64]:
        """Of each n-gram of `size` tokens, (texts, n)."""
        ids = _texts(input_ids)
        if ids.shape[1] < size:
            raise ArgumentError(f"input_ids has {ids.shape[1]} tokens a text, fewer than ngram_len. Pass longer texts.")
        ngrams = np.lib.stride_tricks.sliding_window_view(ids, size, axis=1)  # (texts, n, size)
        return ngram_hashes(ngrams.reshape(-1, size)).reshape(ngrams.shape[:2])


def _config_of(kind: type[Any], given: Any) -> Any:
    config = watermarking_config(given)
    if not isinstance(config, kind):
        raise ArgumentError(f"watermarking_config={given!r:.80} is no {kind.__name__}. Pass the one that marked.")
    return config


def _texts(input_ids: Any) -> NDArray[np.int64]:
    ids = to_numpy(input_ids)
    if ids.ndim == 1:
        ids = ids[None, :]
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise ArgumentError(f"input_ids has shape {ids.shape} and type {ids.dtype}. Pass ids, (texts, length).")
    return ids.astype(np.int64)


def _tail(z_score: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of a higher score, by Polya's approximation of the normal distribution, as in transformers."""
    tail: NDArray[np.float64] = 1 - 0.5 * (1 + np.sign(z_score) * (1 - np.exp(-2 * z_score**2 / np.pi)))
    return tail


def _is_first(hashes: list[int], at: int, size: int) -> bool:
    """Whether a context's hash is none of the `size` before it."""
    return hashes[at] not in hashes[max(0, at - size) : at]
