"""The options about keys and values: each reaches generation, and what contradicts itself is refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import loquent
from loquent.cli.memory import CacheName, MemoryOptions
from loquent.errors import ArgumentError
from loquent.text import TextModel

PROMPT = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."


@pytest.fixture(scope="module")
def model(stories: str) -> TextModel:
    return loquent.load(stories)


CODED = {"cache_implementation": "quantized"}


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ((), {}),
        (("--cache", "static"), {"cache_implementation": "static"}),
        (("--cache", "quantized"), CODED),
        (("--kv-bits", "2"), {**CODED, "cache_config": {"nbits": 2}}),
        (("--cache", "quantized", "--kv-group", "16"), {**CODED, "cache_config": {"q_group_size": 16}}),
        (
            ("--kv-bits", "1", "--kv-group", "16", "--kv-residual", "4"),
            {**CODED, "cache_config": {"nbits": 1, "q_group_size": 16, "residual_length": 4}},
        ),
        (("--cache", "offloaded"), {"cache_implementation": "offloaded"}),
        (("--offload-folder", "FOLDER"), {"cache_implementation": "offloaded", "offload_folder": "FOLDER"}),
        (
            ("--cache", "offloaded_static", "--offload-folder", "FOLDER"),
            {"cache_implementation": "offloaded_static", "offload_folder": "FOLDER"},
        ),
        (("--kv-memory", "1GiB"), {}),
    ],
)
def test_options_mean_arguments(
    run: Any, stories: str, model: TextModel, options: tuple[str, ...], meant: dict[str, Any], tmp_path: Path
) -> None:
    given = [str(tmp_path) if option == "FOLDER" else option for option in options]
    arguments = {name: str(tmp_path) if value == "FOLDER" else value for name, value in meant.items()}
    done = run("generate", PROMPT, "-m", stories, "-n", "24", "--no-echo", "-q", "--greedy", *given)
    expected = model.generate(PROMPT, max_new_tokens=24, do_sample=False, **arguments)
    assert (done.returncode, done.stdout) == (0, expected + "\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kv-bits", "3"), "nbits=3 cannot work. Pass one of 1, 2, 4 or 8"),
        (("--kv-bits", "9"), "--kv-bits"),
        (("--kv-group", "24"), "q_group_size=24"),
        (("--kv-residual", "0"), "residual_length=0"),
        (("--cache", "offloaded", "--kv-bits", "2"), "for --cache quantized, and not for offloaded"),
        (
            ("--cache", "static", "--offload-folder", "/tmp"),
            "for --cache offloaded, and not for static",
        ),
        (("--kv-bits", "2", "--offload-folder", "/tmp"), "for --cache offloaded, and not for quantized"),
        (("--offload-folder", "/not/there"), "offload_folder='/not/there' is no folder"),
        (("--cache", "sliding_window"), "cache_implementation='sliding_window' needs layers with a window"),
        (("--cache", "hybrid"), "--cache"),
        (("--kv-memory", "much"), "kv_memory='much' is not a size"),
        (("--cache", "static", "--set", "cache_implementation=dynamic"), "--set cache_implementation says again"),
    ],
)
def test_what_cannot_work_is_wrong_usage(run: Any, stories: str, options: tuple[str, ...], message: str) -> None:
    done = run("generate", PROMPT, "-m", stories, "-n", "2", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_too_little_memory_is_one_line(run: Any, stories: str) -> None:
    done = run("generate", PROMPT, "-m", stories, "-n", "60", "--kv-memory", "2kB")
    assert (done.returncode, done.stdout) == (1, "")
    assert "kv_memory is 2 KiB" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    arguments = ("generate", PROMPT, "-m", stories, "-n", "60", "--greedy", "-q")
    from_file = run(*arguments, "--kv-memory", "2kB", "--cache", "offloaded")
    assert (from_file.returncode, from_file.stdout) == (0, run(*arguments).stdout)


def test_scores_of_quantized_stores(run: Any, stories: str, model: TextModel) -> None:
    kept = {"nbits": 1, "q_group_size": 16, "residual_length": 1}
    exact, coarse = (
        float(run("score", PROMPT, "-m", stories, *options).stdout.split("\t")[0])
        for options in ((), ("--kv-bits", "1", "--kv-group", "16", "--kv-residual", "1"))
    )
    score = model.score(PROMPT, cache_implementation="quantized", cache_config=kept)
    assert coarse == pytest.approx(score.perplexity, rel=1e-4)
    assert not math.isclose(exact, coarse, rel_tol=1e-3)


def test_a_conversation_takes_them_too(run: Any, stories: str) -> None:
    arguments = ("chat", "-m", stories, "--raw", "-q", "--greedy", "-n", "8")
    plain = run(*arguments, stdin=f"{PROMPT}\n")
    kept = run(*arguments, "--cache", "offloaded", "--kv-memory", "1MiB", stdin=f"{PROMPT}\n")
    assert (kept.returncode, kept.stdout) == (0, plain.stdout)


def test_a_kind_may_be_narrowed() -> None:
    options = MemoryOptions(cache=CacheName.offloaded_static, offload_folder="x")
    assert options.for_generation({})["cache_implementation"] == "offloaded_static"
    with pytest.raises(ArgumentError, match="--set cache_config says again"):
        MemoryOptions(kv_bits=2).for_generation({"cache_config": {}})
