"""A streamer's reader that leaves: generating stops quietly, and what there is so far is returned."""

from __future__ import annotations

import threading
from typing import Any

import torch

from loquent import LlamaConfig, LlamaForCausalLM, RequestCancelledError
from loquent.generation import engine_of


class Leaving:
    """Takes the prompts and `count` columns, then has had enough."""

    def __init__(self, count: int) -> None:
        self.left = count + 1

    def put(self, value: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise RequestCancelledError("enough")

    def end(self) -> None:
        raise AssertionError("a stream that was left has no end")


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=60, eos_token_id=None, pad_token_id=0, **sizes)).eval()


def test_what_is_there_so_far_is_returned_and_nothing_is_held() -> None:
    model, prompts = tiny(), torch.tensor([[5, 6, 7], [8, 9, 10]])
    whole = model.generate(prompts, max_new_tokens=12)
    cut = model.generate(prompts, max_new_tokens=12, streamer=Leaving(4))
    assert 3 + 4 <= cut.shape[1] < whole.shape[1]
    assert torch.equal(cut, whole[:, : cut.shape[1]])
    assert engine_of(model).space.held == 0


def test_a_thread_whose_reader_left_ends_without_an_error() -> None:
    model = tiny()
    failures: list[BaseException] = []

    def produce(streamer: Any) -> None:
        try:
            model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=500, streamer=streamer)
        except BaseException as error:
            failures.append(error)

    streamer = Leaving(2)
    thread = threading.Thread(target=produce, args=(streamer,))
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert not failures
