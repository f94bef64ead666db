"""The text-generation pipeline, against transformers' on a trained model, and what only ours promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import loquent
from loquent.errors import ArgumentError, TemplateError

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}story: {% endif %}"
)
CHAT = [{"role": "user", "content": "Tell me of a dog."}]
PREFILLED = [*CHAT, {"role": "assistant", "content": "Once upon a time"}]
GREEDY = {"do_sample": False, "max_new_tokens": 24}


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "models/stories260k"


@pytest.fixture(scope="module")
def ours(folder: Path) -> Any:
    pipe = loquent.pipeline("text-generation", folder, device="cpu")
    pipe.tokenizer.chat_template = TEMPLATE
    return pipe


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    # The folder names a tokenizer class of transformers 5; 4.55 reads the same file by its own generic class.
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    pipe = transformers.pipeline("text-generation", str(folder), tokenizer=tokenizer, device="cpu")
    pipe.tokenizer.chat_template = TEMPLATE
    return pipe


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ("Once upon a time", {}),
        ("Once upon a time", {"return_full_text": False}),
        ("Once upon a time", {"return_tensors": True}),
        ("Once upon a time", {"max_new_tokens": 3, "clean_up_tokenization_spaces": False}),
        (["Once upon a time", "A dog"], {}),
        (["Once upon a time", "A dog and a cat"], {"batch_size": 1, "return_full_text": False}),
        (CHAT, {}),
        (CHAT, {"return_full_text": False}),
        (PREFILLED, {}),
        (PREFILLED, {"continue_final_message": False}),
        ([CHAT, PREFILLED], {}),
        ("Lily", {"prefix": "One day, "}),
        ("The big", {"num_beams": 3, "num_return_sequences": 2}),
        ("The big red", {"add_special_tokens": False}),
        ("The big red ball was very", {"truncation": True, "max_length": 5, "max_new_tokens": 4}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_equals_transformers(ours: Any, theirs: Any, inputs: Any, options: dict[str, Any]) -> None:
    options = {**GREEDY, **options}
    assert ours(inputs, **options) == theirs(inputs, **options)


def test_streams_are_read_lazily_and_in_order(ours: Any) -> None:
    read: list[str] = []

    def prompts() -> Iterator[str]:
        for prompt in ("Once", "The dog", "A cat", "She"):
            read.append(prompt)
            yield prompt

    alone = [ours(prompt, **GREEDY) for prompt in ("Once", "The dog", "A cat", "She")]
    results = ours(prompts(), **GREEDY)
    assert read == []
    assert next(results) == alone[0]
    assert read == ["Once"]
    assert list(results) == alone[1:]
    assert list(ours(prompts(), batch_size=3, **GREEDY)) == alone
    assert ours(["Once", "The dog", "A cat", "She"], **GREEDY) == alone


def test_data_sets_that_are_only_indexed(ours: Any) -> None:
    class Rows:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> str:
            return ["Once", "The dog"][index]

    assert list(ours(Rows(), **GREEDY)) == ours(["Once", "The dog"], **GREEDY)


def test_samples_by_default_up_to_256_tokens_or_what_fits(ours: Any) -> None:
    config = ours.generation_config
    assert (config.do_sample, config.temperature) == (True, 0.7)
    ids = ours("Once", return_tensors=True, seed=1, eos_token_id=None)[0]["generated_token_ids"]
    assert len(ids) - len(ours.tokenizer("Once")["input_ids"]) == 256
    long = ours.tokenizer.decode(ours.tokenizer("dog " * 300)["input_ids"][1:401])
    ids = ours(long, return_tensors=True, seed=1, eos_token_id=None)[0]["generated_token_ids"]
    assert len(ids) == 513  # the last new token is never read, and needs no position


def test_sampling_is_repeatable_and_differs_between_sequences(ours: Any) -> None:
    first, again = (ours("The", seed=3, num_return_sequences=3, max_new_tokens=20) for _ in range(2))
    assert first == again
    assert len({record["generated_text"] for record in first}) == 3


def test_a_configs_task_parameters_count(folder: Path) -> None:
    model = loquent.AutoModelForCausalLM.from_pretrained(
        folder, task_specific_params={"text-generation": {"do_sample": False, "max_length": 12}}
    )
    pipe = loquent.pipeline(model=model, tokenizer=folder)
    assert len(pipe("Once", return_tensors=True)[0]["generated_token_ids"]) == 12
    assert len(pipe("Once", return_text=False)[0]["generated_token_ids"]) == 12


def test_defaults_of_the_pipeline_yield_to_the_call(folder: Path) -> None:
    pipe = loquent.pipeline(model=str(folder), return_full_text=False, do_sample=False, max_new_tokens=5)
    assert pipe("Once upon a")[0]["generated_text"] == pipe("Once upon a", max_new_tokens=5)[0]["generated_text"]
    assert pipe("Once", max_new_tokens=2, return_tensors=None) != pipe("Once")


def test_stop_sequence_ends_the_text(ours: Any) -> None:
    text = ours("Once upon a time", do_sample=False, max_new_tokens=60, stop_sequence=" park")[0]["generated_text"]
    assert text.endswith(" park")


def test_a_streamer_gets_the_text(ours: Any, capsys: pytest.CaptureFixture[str]) -> None:
    streamer = loquent.TextStreamer(ours.tokenizer, skip_special_tokens=True)
    [record] = ours("Once upon a time", streamer=streamer, **GREEDY)
    assert capsys.readouterr().out == record["generated_text"] + "\n"


def test_long_prompts_lose_their_beginning_when_asked(ours: Any) -> None:
    ours.tokenizer.model_max_length, before = 40, ours.tokenizer.model_max_length
    try:
        options = {"handle_long_generation": "hole", "do_sample": False, "max_new_tokens": 10, "return_tensors": True}
        ids = ours("dog " * 100, **options)[0]["generated_token_ids"]
    finally:
        ours.tokenizer.model_max_length = before
    assert len(ids) == 40


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("x", {"return_full_text": True, "return_tensors": True}, "return_full_text and return_tensors"),
        ("x", {"batch_size": 0}, "batch_size=0"),
        ("x", {"tempreature": 1.0}, "tempreature"),
        ([{"role": "user"}], {}, "needs a 'role' and a 'content'"),
        ([3], {}, "a int, 3"),
        ({"role": "user"}, {}, "a dict"),
        ("x", {"handle_long_generation": "cut"}, "handle_long_generation='cut'"),
    ],
)
def test_what_cannot_work_is_said(ours: Any, inputs: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ours(inputs, **options)


def test_a_chat_needs_a_template(folder: Path) -> None:
    pipe = loquent.pipeline(model=loquent.load(folder))
    with pytest.raises(TemplateError, match="no chat template"):
        pipe(CHAT)


def test_unknown_tasks_and_models(folder: Path) -> None:
    with pytest.raises(ArgumentError, match=r"'summarization' is not available\. There are: 'text-generation'"):
        loquent.pipeline("summarization", folder)
    with pytest.raises(ArgumentError, match=r"builtins\.object, which Loquent cannot run"):
        loquent.pipeline(model=object())
    with pytest.raises(ArgumentError, match="tokenizer is missing"):
        loquent.pipeline(model=loquent.load(folder).model)


def test_arguments_of_loading_beside_a_loaded_model_must_fit_it(folder: Path) -> None:
    loaded = loquent.load(folder)
    model, tokenizer = loaded.model, loaded.tokenizer
    fitting = {"device": -1, "torch_dtype": torch.float32, "config": model.config, "framework": "pt", "use_fast": True}
    pipe = loquent.pipeline("text-generation", model=model, tokenizer=tokenizer, **fitting)
    assert (pipe.model, pipe.tokenizer, pipe.device) == (model, tokenizer, "cpu")
    loquent.pipeline(model=loaded, dtype="auto", device_map="auto")
    for option, value in {"dtype": "bfloat16", "device_map": "cuda", "model_kwargs": {"use_cache": False}}.items():
        with pytest.raises(ArgumentError, match="cannot change a model that is loaded"):
            loquent.pipeline(model=loaded, **{option: value})
    with pytest.raises(ArgumentError, match="framework='tf' is not available"):
        loquent.pipeline(model=loaded, framework="tf")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_device_moves_a_loaded_model(folder: Path) -> None:
    pipe = loquent.pipeline(model=loquent.load(folder, device="cuda"), device=0)
    assert pipe.model.device == torch.device("cuda:0")


def test_no_prompts_give_no_results(ours: Any) -> None:
    assert ours([]) == []
    assert list(ours(iter([]))) == []
