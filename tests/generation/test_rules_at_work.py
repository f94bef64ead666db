"""Rules through `generate()`: as transformers writes, alone and in any company, on the torch and the native backend."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import loquent
from loquent.native import why_unavailable
from properties.models import EVERY, tiny
from properties.models import VOCABULARY as TINY_VOCABULARY

needs_native = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

PROMPT = [5, 9, 2, 5, 9]
OTHER = [7, 3, 3, 1, 4, 1, 4]

AS_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "sequence bias": {"sequence_bias": [[[5], 2.0], [[5, 9], -4.0], [[9, 2], 6.0]]},
    "encoder penalty": {"encoder_repetition_penalty": 1.8},
    "encoder n-grams": {"encoder_no_repeat_ngram_size": 2},
    "decay": {"exponential_decay_length_penalty": (3, 1.6), "eos_token_id": [8, 11], "pad_token_id": 0},
    "renormalized": {"renormalize_logits": True, "repetition_penalty": 1.4},
    "invalid removed": {"remove_invalid_values": True, "bad_words_ids": [[3]]},
    "green list": {"watermarking_config": {"bias": 3.0}},
    "begin": {"begin_suppress_tokens": [1, 2, 5, 9], "suppress_tokens": [4]},
    "forced": {"forced_eos_token_id": 6, "forced_bos_token_id": 3},
}

OUR_OWN: dict[str, dict[str, Any]] = {
    "dry": {"dry_multiplier": 2.0, "dry_allowed_length": 1, "dry_sequence_breakers": [4]},
    "penalties": {"frequency_penalty": 0.8, "presence_penalty": 0.5},
    "biased": {"logit_bias": {3: 4.0, 7: -5.0}},
    "allowed": {"allowed_token_ids": [1, 3, 5, 7, 9]},
    "xtc": {"xtc_probability": 0.5, "xtc_threshold": 0.1},
    "mirostat": {"mirostat_mode": 2, "mirostat_tau": 2.0},
    "top-h": {"top_h": 0.5},
    "top-n-sigma": {"top_n_sigma": 1.0},
    "typical": {"typical_p": 0.5},
    "epsilon": {"epsilon_cutoff": 0.03},
    "eta": {"eta_cutoff": 0.05},
    "green list": {"watermarking_config": loquent.WatermarkingConfig(bias=3.0)},
    "synthid": {"watermarking_config": loquent.SynthIDTextWatermarkingConfig(ngram_len=3, keys=[5, 77, 9])},
}


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("fields", AS_TRANSFORMERS.values(), ids=AS_TRANSFORMERS)
def test_rules_write_what_those_of_transformers_write(
    pair: tuple[Any, Any], fields: dict[str, Any], beams: int
) -> None:
    if beams > 1 and "encoder_repetition_penalty" in fields:
        return  # theirs acts on the first of the batch's beams only, as it looks at one prompt a row of scores
    ours, theirs = pair
    ids = torch.tensor([PROMPT, OTHER[:5]])
    wanted = fields
    if "watermarking_config" in fields:
        import transformers

        wanted = {"watermarking_config": transformers.WatermarkingConfig(**fields["watermarking_config"])}
    arguments = {"max_new_tokens": 10, "num_beams": beams, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    found = ours.generate(ids, **arguments, **fields)
    expected = theirs.generate(ids, **{"pad_token_id": 0, **arguments, **wanted})
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("beams", [1, 2])
def test_a_function_of_the_prefix_is_asked_as_by_transformers(pair: tuple[Any, Any], beams: int) -> None:
    def allow(batch_id: int, input_ids: Any) -> list[int]:
        assert isinstance(input_ids, torch.Tensor)
        assert input_ids.dim() == 1
        last = int(input_ids[-1])
        return [(last * 3 + batch_id) % 37, (last + 7) % 37, 1]

    ids = torch.tensor([PROMPT, OTHER[:5]])
    arguments = {"max_new_tokens": 8, "num_beams": beams, "do_sample": False, "prefix_allowed_tokens_fn": allow}
    found = pair[0].generate(ids, **arguments)
    assert found.tolist() == pair[1].generate(ids, pad_token_id=0, **arguments).tolist()
    with pytest.raises(loquent.ArgumentError, match="prefix_allowed_tokens_fn allows no token behind 5 of row 0"):
        pair[0].generate(ids, prefix_allowed_tokens_fn=lambda *_: [])


@pytest.mark.parametrize("fields", OUR_OWN.values(), ids=OUR_OWN)
def test_alone_as_in_company_on_every_backend(
    pair: tuple[Any, Any], fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pair[0]
    arguments = {"max_new_tokens": 24, "do_sample": True, "top_k": None, **fields}
    if "mirostat_mode" in fields:
        del arguments["top_k"]
    rows = [PROMPT, OTHER, [1]]
    seeds = [3, 4, 5]
    results = []
    for native in ("1", "0"):
        monkeypatch.setenv("LOQUENT_NATIVE", native)
        alone = [
            model.generate([row], seed=seed, **arguments)[0, len(row) :].tolist() for row, seed in zip(rows, seeds)
        ]
        together = model.generate(rows, seed=seeds, pad_token_id=0, **arguments)[:, len(OTHER) :].tolist()
        assert together == alone
        results.append(alone)
    assert results[0] == results[1]
    plain = {name: value for name, value in arguments.items() if name not in fields}
    without = [model.generate([row], seed=seed, **plain)[0, len(row) :].tolist() for row, seed in zip(rows, seeds)]
    assert without != results[0]


@needs_native
def test_processors_get_torch_tensors_where_a_torch_model_runs_natively(pair: tuple[Any, Any]) -> None:
    """One of transformers' own works unchanged."""
    from transformers.generation.logits_process import MinNewTokensLengthLogitsProcessor, TemperatureLogitsWarper

    model, seen = pair[0], []
    assert model.describe_backend().startswith("native")

    def look(input_ids: Any, scores: Any) -> Any:
        seen.append((input_ids.dtype, tuple(input_ids.shape), scores.dtype, tuple(scores.shape)))
        return scores.scatter(1, input_ids, -math.inf)

    processors = [look, TemperatureLogitsWarper(0.5), MinNewTokensLengthLogitsProcessor(5, 3, 11)]
    found = model.generate([PROMPT], max_new_tokens=4, logits_processor=processors)[0].tolist()
    assert seen == [(torch.int64, (1, 5 + step), torch.float32, (1, 37)) for step in range(4)]
    assert len(set(found[5:]) | set(PROMPT)) == 7  # each of the four is new


@needs_native
@pytest.mark.parametrize("given", [torch.tensor([PROMPT]), np.array([PROMPT])], ids=["tensors", "arrays"])
def test_a_native_model_asks_in_the_caller_s_arrays(pair: tuple[Any, Any], tmp_path: Any, given: Any) -> None:
    from loquent.native.loading import load_native

    pair[0].save_pretrained(tmp_path)
    model = load_native(tmp_path, "float32")
    asked = []

    def double(input_ids: Any, scores: Any) -> Any:
        asked.append({type(input_ids), type(scores)})
        return scores * 2

    def allow(row: int, input_ids: Any) -> list[int]:
        asked.append({type(input_ids)})
        return [3, 8, 12]

    made = model.generate(given, max_new_tokens=3, logits_processor=[double], prefix_allowed_tokens_fn=allow)
    assert asked == [{type(given)}] * 6
    assert type(made) is type(given)
    assert set(made[0, 5:].tolist()) <= {3, 8, 12}


@pytest.mark.parametrize("name", EVERY)
def test_mirostat_remembers_on_every_family(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a model reads its whole text again at each step."""
    model = tiny(name)
    ids = torch.arange(6)[None] % TINY_VOCABULARY
    arguments = {"max_new_tokens": 20, "do_sample": True, "seed": 2, "mirostat_mode": 2, "mirostat_tau": 1.5}
    found = model.generate(ids, mirostat_eta=0.8, **arguments).tolist()
    assert found != model.generate(ids, mirostat_eta=0.0, **arguments).tolist()
    monkeypatch.setenv("LOQUENT_NATIVE", "0")
    assert model.generate(ids, mirostat_eta=0.8, **arguments).tolist() == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"do_sample": True, "mirostat_mode": 2, "top_p": 0.9}, "mirostat_mode=2 takes the place of top_p=0.9"),
        ({"do_sample": True, "mirostat_mode": 2, "num_beams": 2}, "num_beams=2"),
        ({"logit_bias": {99: 1.0}}, "logit_bias names the token 99"),
        ({"allowed_token_ids": [37]}, "allowed_token_ids names the token 37"),
        ({"sequence_bias": {(): 1.0}}, "sequence_bias has an empty list"),
        ({"exponential_decay_length_penalty": (1, 1.5)}, "Pass eos_token_id"),
        ({"dry_multiplier": 1.0}, "dry_sequence_breakers=.* are texts. Pass tokenizer="),
        ({"dry_multiplier": 1.0, "dry_sequence_breakers": [""], "tokenizer": object()}, "has an empty text"),
        ({"prefix_allowed_tokens_fn": 3}, "cannot be called"),
    ],
)
def test_what_cannot_work_is_refused(pair: tuple[Any, Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(loquent.ArgumentError, match=message):
        pair[0].generate([PROMPT], **arguments)
