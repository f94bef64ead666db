"""Token healing: the prompt's last token is made again as brute force says, in batches and with every strategy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import loquent
from loquent.errors import ArgumentError

# Their last tokens have no space in front: for others transformers looks for "<" in the place of the space.
PROMPTS = ['The link is <a href="http:', "f(12", "Write (un", "x.tr"]
GREEDY = {"do_sample": False, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def gpt2(shared_data: Path) -> Any:
    return loquent.AutoTokenizer.from_pretrained(shared_data / "tokenizers/gpt2", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A small random GPT-2 with the real vocabulary, ours and transformers'."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gpt2")
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.12)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(folder)
    return loquent.AutoModelForCausalLM.from_pretrained(folder), theirs


def expected(theirs: Any, tokenizer: Any, ids: list[int], new: int = 6) -> list[int]:
    """Brute force: the best of the tokens that begin with the last one's text, and what greedy search adds to it."""
    named = tokenizer.convert_ids_to_tokens(range(50256))
    options = [token for token in range(50256) if named[token].startswith(named[ids[-1]])]
    assert len(options) > 1
    with torch.no_grad():
        for step in range(new + 1):
            scores = theirs(torch.tensor([ids[:-1] if not step else ids])).logits[0, -1]
            if not step:
                scores[ids[-1]] += 1
                ids = [*ids[:-1], max(options, key=lambda token: float(scores[token]))]
            else:
                ids = [*ids, int(scores.argmax())]
    return ids


@pytest.mark.parametrize("prompt", [*PROMPTS, "There is a b", "A space follows "])
def test_greedy_search_heals_as_brute_force_says(pair: Any, gpt2: Any, prompt: str) -> None:
    ours, theirs = pair
    ids = gpt2.encode(prompt)
    assert ours.generate([ids], **GREEDY, token_healing=True, tokenizer=gpt2)[0].tolist() == expected(theirs, gpt2, ids)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_as_transformers_does(pair: Any, gpt2: Any, shared_data: Path, prompt: str) -> None:
    """It favours what extends the token by 10 and forbids nothing, so that its scores must be closer than that."""
    ours, theirs = pair
    their_tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(shared_data / "tokenizers/gpt2/tokenizer.json"),
        **dict.fromkeys(("pad_token", "bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
    )
    ids = torch.tensor([gpt2.encode(prompt)])
    with torch.no_grad():
        logits = theirs(ids[:, :-1]).logits[0, -1]
    assert float(logits.max() - logits.min()) < 9
    healed = theirs.heal_tokens(ids, their_tokenizer)
    wanted = theirs.generate(healed, **GREEDY, pad_token_id=50256, attention_mask=torch.ones_like(healed))
    assert ours.generate(ids, **GREEDY, token_healing=True, tokenizer=gpt2).tolist() == wanted.tolist()


def test_uneven_rows_whose_columns_hold_the_healed_prompts(pair: Any, gpt2: Any) -> None:
    ours, _ = pair
    rows = [gpt2.encode(prompt) for prompt in [*PROMPTS, "Hello", "The end<|endoftext|>"]]
    options = {**GREEDY, "token_healing": True, "tokenizer": gpt2, "eos_token_id": None, "pad_token_id": 50256}
    alone = [ours.generate([row], attention_mask=[[1] * len(row)], **options)[0].tolist() for row in rows]
    assert [len(whole) for whole in alone] == [len(row) + 6 for row in rows]
    assert [whole[: len(row)] == row for whole, row in zip(alone, rows)][4:] == [True, True], "nothing to heal"
    assert sum(whole[: len(row)] != row for whole, row in zip(alone, rows)) >= 1
    width = max(map(len, rows))
    for side in ("left", "right"):
        ids, mask = np.full((len(rows), width), 50256), np.zeros((len(rows), width), np.int64)
        for at, row in enumerate(rows):
            place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
            ids[at, place], mask[at, place] = row, 1
        made = ours.generate(ids, attention_mask=mask, **options).tolist()
        whole_mask = np.concatenate([mask, np.ones((len(rows), 6), np.int64)], axis=1)
        assert [[t for t, keep in zip(row, kept) if keep] for row, kept in zip(made, whole_mask)] == alone


@pytest.mark.parametrize(
    "strategy",
    [
        {"num_beams": 3, "num_return_sequences": 3, "do_sample": False},
        {"do_sample": True, "num_return_sequences": 4, "seed": 1},
        {"do_sample": False, "repetition_penalty": 1.3},
    ],
)
def test_every_strategy_extends_the_prompts_text(pair: Any, gpt2: Any, strategy: dict[str, Any]) -> None:
    ours, _ = pair
    rows = [gpt2.encode(prompt) for prompt in PROMPTS]
    options = {"max_new_tokens": 4, "token_healing": True, "tokenizer": gpt2, "eos_token_id": None, **strategy}
    made = ours.generate(rows, pad_token_id=50256, **options).tolist()
    copies, healed = len(made) // len(rows), 0
    for at, row in enumerate(made):
        ids = rows[at // copies]
        whole = [token for token in row if token != 50256]
        assert whole[: len(ids) - 1] == ids[:-1]
        assert len(whole) == len(ids) + 4
        assert gpt2.decode(whole).startswith(PROMPTS[at // copies])
        healed += whole[len(ids) - 1] != ids[-1]
    assert healed


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> Any:
    return loquent.load(shared_data / "models/stories260k", device="cpu")


def test_texts_go_on_behind_the_prompt(stories: Any, shared_data: Path) -> None:
    for prompt in ("Once upon a ti", "The lit", "There was a b", "One day, L", "She said: "):
        options = {"max_new_tokens": 8, "do_sample": False, "token_healing": True}
        text = stories.generate(prompt, **options)
        assert "".join(stories.stream(prompt, **options)) == text
        ids = stories.model.generate([stories.tokenizer.encode(prompt)], tokenizer=stories.tokenizer, **options)[0]
        assert stories.tokenizer.decode(ids, skip_special_tokens=True) == prompt + text
        pipe = loquent.pipeline("text-generation", model=stories.model, tokenizer=stories.tokenizer)
        assert pipe(prompt, **options)[0]["generated_text"] == prompt + text
    assert stories.generate("Once upon a ti", **options) == "dy bird was very sm"
    fitting = stories.generate("Once upon a ti", regex="[a-z ]{5}", token_healing=True, do_sample=False)
    assert re.fullmatch("[a-z]*[a-z ]{5}", fitting)


def test_a_grammar_begins_behind_the_healed_token(stories: Any) -> None:
    """It holds the healed token to nothing: this one would allow none of those that begin with "ti"."""
    for strategy in ({}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 3}):
        options = {"token_healing": True, "do_sample": False, **strategy}
        assert stories.generate("Once upon a ti", regex=r"\?!\.", **options).endswith("?!.")


def test_a_streamer_is_given_every_token_once(stories: Any) -> None:
    class Streamer:
        def __init__(self) -> None:
            self.values: list[Any] = []

        def put(self, value: Any) -> None:
            self.values.append(value.tolist())

        def end(self) -> None:
            pass

    ids = stories.tokenizer.encode("Once upon a ti")
    options = {"max_new_tokens": 5, "do_sample": False, "token_healing": True, "tokenizer": stories.tokenizer}
    streamer = Streamer()
    whole = stories.model.generate([ids], streamer=streamer, **options)[0].tolist()
    [[prompt], *tokens] = streamer.values
    assert prompt == ids[:-1]
    assert [*prompt, *(token for [token] in tokens)] == whole


def test_it_needs_a_tokenizer(pair: Any) -> None:
    with pytest.raises(ArgumentError, match=r"token_healing=True compares the texts of tokens\. Pass tokenizer="):
        pair[0].generate([[1, 2]], token_healing=True)
