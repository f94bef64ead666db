"""Contrastive search, DoLa and guidance on every family against transformers, natively and on torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import BASES, MakePair, Pair, config_of, make
from random_weights import ids

CASES = [
    *[("llama", "plain"), ("llama", "grouped, tied"), ("llama", "dynamic")],
    *[("gpt2", "plain"), ("gpt2", "untied"), ("gpt2", "one head, one layer")],
    *[("gpt_neo", "alternating"), ("gpt_neo", "untied")],
    *[("gpt_bigcode", "one key head"), ("gpt_bigcode", "key heads, untied")],
    *[("gpt_neox", "plain"), ("gpt_neox", "tied")],
    *[("doge", "kept"), ("doge", "tied")],
]

ASKED: dict[str, dict[str, Any]] = {
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "DoLa, high": {"dola_layers": "high"},
    "DoLa, low": {"dola_layers": "low", "repetition_penalty": 1.2},
    "guidance": {"guidance_scale": 2.0, "negative_prompt_ids": ids(1, 4, seed=9)},
}


@pytest.fixture(scope="module", params=CASES, ids=[f"{family}: {name}" for family, name in CASES])
def some_pair(request: pytest.FixtureRequest, make_pair: MakePair) -> Pair:
    """Some checkpoints of each family, tied and not, in turn."""
    return make_pair(*request.param)


@pytest.fixture(params=["native", "torch"])
def ours(request: pytest.FixtureRequest, some_pair: Pair) -> Iterator[Any]:
    """Our model, which a hook that does nothing keeps from the native core."""
    modules = [some_pair.ours, some_pair.ours.head] if request.param == "torch" else []
    hooks = [module.register_forward_hook(lambda *_: None) for module in modules]
    yield some_pair.ours
    assert some_pair.ours.describe_backend().startswith(request.param)
    assert some_pair.ours._engine_slot.engine.space.held == 0
    for hook in hooks:
        hook.remove()


def settings_of(pair: Pair, name: str) -> dict[str, Any]:
    distinct = {"no_repeat_ngram_size": 1} if "keep_window_size" in pair.switches else {}  # see `ids`
    return {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0, **distinct, **ASKED[name]}


def theirs_alone(pair: Pair, prompt: torch.Tensor, asked: dict[str, Any]) -> list[int]:
    if asked.get("dola_layers") == "low" and pair.theirs.config.tie_word_embeddings:
        layers = pair.theirs.config.num_hidden_layers
        asked = {**asked, "dola_layers": [2]} if layers == 3 else asked  # there, it finds no layer, and fails
    row: list[int] = pair.theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **asked)[0].tolist()
    return row


@pytest.mark.parametrize("name", ASKED)
def test_rows_of_a_padded_batch_equal_transformers_alone(ours: Any, some_pair: Pair, name: str) -> None:
    asked, length = settings_of(some_pair, name), 5 if some_pair.depends_on_length else 12
    prompts, mask = ids(2, length, seed=6), torch.ones(2, length, dtype=torch.long)
    mask[1, : length - 3] = 0
    found = ours.generate(prompts, attention_mask=mask, **asked)
    for row in range(2):
        alone = prompts[row : row + 1, mask[row].bool()]
        assert found[row, length:].tolist() == theirs_alone(some_pair, alone, asked)[alone.shape[1] :]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layers", [2, 40, 42])
def test_layer_rules_of_shallow_and_deep_models(tmp_path: Path, layers: int, tied: bool) -> None:
    deep = {**BASES["llama"], "num_hidden_layers": layers, "tie_word_embeddings": tied, "hidden_size": 16}
    make(tmp_path, config_of("llama", **{**deep, "intermediate_size": 16}), seed=3)
    pair, prompt = Pair(tmp_path, "llama"), ids(1, 6, seed=2)
    for half in ("low", "high"):
        asked = {**settings_of(pair, "DoLa, high"), "dola_layers": half, "max_new_tokens": 5}
        assert pair.ours.generate(prompt, **asked)[0].tolist() == theirs_alone(pair, prompt, asked)
