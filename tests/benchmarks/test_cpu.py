"""The arithmetic of benchmarks/cpu.py: what is timed, what is asked for, and the files that engines are given."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def on_the_path() -> Iterator[None]:
    """The folder of the benchmarks is none of the package: it is imported from where it lies."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))
    for name in [name for name in sys.modules if name.split(".")[0] == "cpu"]:
        del sys.modules[name]


def test_a_rate_counts_between_the_last_rows_first_token_and_the_first_rows_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cpu import protocol

    clock = iter([0.0, 1.0, 2.0, 3.0, 4.0, 9.0])
    monkeypatch.setattr(protocol.time, "perf_counter", lambda: next(clock))
    rate = protocol.Rate(rows=2, new=3)
    for row in (0, 0, 1, 1, 0, 1):  # row 0: 0, 1, 4 s; row 1: 2, 3, 9 s
        rate.tick(row)
    assert float(rate) == 2 / (4.0 - 2.0)  # the tokens at 3 s and 4 s


def test_a_rate_refuses_rows_that_ended_early() -> None:
    from cpu.protocol import Rate

    rate = Rate(rows=2, new=3)
    rate.tick_all()
    rate.tick(0, 2)
    with pytest.raises(RuntimeError, match="wrote 1 tokens instead of 3"):
        float(rate)


def test_prompts_are_repeatable_and_new_for_every_salt() -> None:
    from cpu.protocol import prompts

    assert prompts(2, 5, 1) == prompts(2, 5, 1)
    rows = [tuple(row) for salt in (1, 2) for row in prompts(2, 5, salt)]
    assert len(set(rows)) == 4


def test_weights_are_those_of_the_models() -> None:
    from cpu.shapes import SHAPES, shape_named

    # embeddings and head of 50257 x 768 once, twelve layers of 12 x 768 x 768
    assert shape_named("gpt2").weights == 50257 * 768 + 12 * 12 * 768 * 768
    assert [round(shape.weights / 1e6) for shape in SHAPES] == [124, 13, 15, 124, 1120]
    assert shape_named("llama-15m").bytes("int4") == shape_named("llama-15m").weights * 5 // 8


def test_the_limit_is_reading_for_few_rows_and_multiplying_for_many() -> None:
    from cpu.limits import fastest
    from cpu.shapes import shape_named

    shape = shape_named("gpt2")
    limits = {"read int8": 0.002, "do int8": 2e12}
    assert fastest(shape, "int8", 1, 0, limits) == pytest.approx(500)
    assert fastest(shape, "int8", 32, 0, limits) == pytest.approx(2e12 / (2 * shape.weights))
    layers = shape.weights - shape.head_weights
    assert fastest(shape, "int8", 1, 512, limits) == pytest.approx(
        512 * 2e12 / (2 * (512 * layers + shape.head_weights))
    )
    assert fastest(shape, "int8", 1, 0, {}) is None


def test_a_target_is_a_multiple_of_the_peer_up_to_four_fifths_of_the_limit() -> None:
    from cpu.measures import target

    assert target(1.3, 100.0, 1000.0) == pytest.approx(130)
    assert target(4.0, 400.0, 1000.0) == pytest.approx(800)
    assert target(4.0, None, 1000.0) == pytest.approx(800)
    assert target(None, 100.0, 1000.0) is None


def test_made_up_tokenizers_have_every_id_and_read_every_text(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    from cpu.checkpoints import END, write_tokenizer

    write_tokenizer(1000, tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 1000
    assert sorted(tokenizer.get_vocab().values()) == list(range(1000))
    assert tokenizer.token_to_id(END) == 999
    text = "Once upon a time, naïve 😀\n"
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text.encode())  # some of the merges are used


def test_stages_join_operations_of_a_name_and_count_the_rows_that_they_multiply() -> None:
    from cpu.serve_loquent import stages

    timings = [
        ("linear 10x100", 2, 1e-6),
        ("narrow", 2, 0.0),
        ("linear 10x100", 2, 1e-6),
        ("head 1000x100", 2, 4e-6),
    ]
    head, linear, narrow, around = stages(timings, wall=1e-5, rows=8, wanted=1, weight_bytes=2)
    assert " ".join(head.split()) == "head 1000x100 2 calls of 2.0 us 40.0% 100.0 GB/s 100 GOP/s"
    # 4 calls read 2,000 bytes each; 2 of them multiply 8 rows, 2 of them 1
    assert " ".join(linear.split()) == "linear 10x100 4 calls of 0.5 us 20.0% 4.0 GB/s 18 GOP/s"
    assert narrow.split()[0] == "narrow"
    assert " ".join(around.split()) == "around the plan 40.0%"


COUNTING = """
from cpu.protocol import Rate, serve

class Counting:
    version = "counting 1"

    def decode(self, prompts, new):
        rate = Rate(len(prompts), new)
        for _ in range(new):
            rate.tick_all()
        return rate

    def prefill(self, prompt):
        print("noise of a library", flush=True)

    def beam(self, prompt, width, new):
        raise NotImplementedError

    def greedy(self, prompt, new):
        return list(range(new))

    def profile(self, batch):
        raise SystemError("no profile today")

serve(Counting())
"""


def test_an_engine_answers_line_by_line_and_says_why_it_ended() -> None:
    from cpu.processes import Child, ChildFailedError

    path = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}
    child = Child([sys.executable, "-c", COUNTING], path)
    try:
        assert child.ready() == "counting 1"
        assert child.ask(task="greedy", batch=2, prompt=3, new=4, salt=0) == [[0, 1, 2, 3]] * 2
        assert child.ask(task="decode", batch=2, prompt=3, new=4, salt=0) > 0
        assert child.ask(task="prefill", prompt=3, salt=0) > 0
        assert child.ask(task="beam", prompt=3, width=2, new=4, salt=0) is None
        with pytest.raises(ChildFailedError, match="no profile today"):
            child.ask(task="profile", batch=1, salt=0)
    finally:
        child.close()
