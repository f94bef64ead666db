"""Drafts across vocabularies: exact whatever the other tokenizer makes of a text, and of use where it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import loquent
from loquent.decoding.trace import Drafted

PROMPTS = ["Once upon a time", "The dog was very happy. It", "She said: caf\u00e9"]
SURE = {"assistant_confidence_threshold": 0.0, "num_assistant_tokens": 5, "num_assistant_tokens_schedule": "constant"}


@pytest.fixture(scope="module")
def shipped() -> Any:
    """The model that comes with the package."""
    return loquent.load()


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of bytes and a few pairs of them."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(["the dog was happy and the cat sat on the mat"], trainer)
    return loquent.PreTrainedTokenizerFast(tokenizer_object=trained)


@pytest.fixture(scope="module")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random model of that tokenizer's vocabulary."""
    folder: Path = tmp_path_factory.mktemp("babbler")
    config = transformers.GPT2Config(
        vocab_size=280, n_embd=16, n_layer=1, n_head=2, n_positions=96, bos_token_id=None, eos_token_id=None
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return loquent.AutoModelForCausalLM.from_pretrained(folder)


def generated(shipped: Any, prompt: str, **asked: Any) -> tuple[list[int], list[Drafted]]:
    run = loquent.generation.start(
        shipped.model, [shipped.tokenizer.encode(prompt)], None, traced=True, max_new_tokens=24, **asked
    )
    for _ in run.events():
        pass
    handle = run.requests[0].handle
    return list(handle.result()[0].tokens), [event for event in handle.events if isinstance(event, Drafted)]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_another_vocabulary_changes_nothing(prompt: str, shipped: Any, letters: Any, babbler: Any) -> None:
    drafting = {"assistant_model": babbler, "tokenizer": shipped.tokenizer, "assistant_tokenizer": letters, **SURE}
    tokens, rounds = generated(shipped, prompt, do_sample=False, **drafting)
    assert tokens == generated(shipped, prompt, do_sample=False)[0]
    assert rounds
    sampled = {"do_sample": True, "seed": 3}
    assert generated(shipped, prompt, **sampled, **drafting)[0] == generated(shipped, prompt, **sampled, **drafting)[0]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_drafts_of_the_same_model_through_texts_mostly_stand(prompt: str, shipped: Any) -> None:
    both = {"tokenizer": shipped.tokenizer, "assistant_tokenizer": shipped.tokenizer}
    tokens, rounds = generated(shipped, prompt, do_sample=False, assistant_model=shipped.model, **both, **SURE)
    assert tokens == generated(shipped, prompt, do_sample=False)[0]
    stand, drafted = sum(event.accepted for event in rounds), sum(len(event.drafts) for event in rounds)
    assert stand >= 0.8 * drafted > 0


def test_an_end_in_a_draft_is_the_models_own(shipped: Any) -> None:
    plain = generated(shipped, PROMPTS[0], do_sample=False)[0]
    end = next(token for token in plain[8:] if token not in plain[:8])
    both = {"tokenizer": shipped.tokenizer, "assistant_tokenizer": shipped.tokenizer, "eos_token_id": end}
    before = shipped.model.generation_config
    shipped.model.generation_config = before.copy(eos_token_id=end)
    try:
        tokens, rounds = generated(shipped, PROMPTS[0], do_sample=False, assistant_model=shipped.model, **both, **SURE)
    finally:
        shipped.model.generation_config = before
    assert tokens == plain[: plain.index(end) + 1]
    assert rounds[-1].drafts
