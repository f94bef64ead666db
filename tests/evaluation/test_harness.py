"""lm-eval on Loquent's models: the figures of its own model of transformers, on tasks of our own."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import loquent
from loquent.errors import ArgumentError, HubError, MissingExtraError
from loquent.evaluation.harness import evaluate_tasks, harness_model, register, results_table
from loquent.evaluation.harness.requests import generation_request

pytest.importorskip("lm_eval", reason='lm-eval is not installed: pip install "loquent[eval]"')

QUESTIONS = [
    {"question": "Once upon a time there was a", "choices": [" cat", " little girl named Lily", " x"], "answer": 1},
    {"question": "The dog was very", "choices": [" happy", " big and red", "."], "answer": 0},
    {"question": "One day, a boy named Tim went to the", "choices": [" park", " moon base", " the"], "answer": 0},
    {"question": "She said", "choices": [', "Hello!"', " a", " no no no"], "answer": 0},
    {"question": "He had a red ball. " * 100 + "It was", "choices": [" red", " blue"], "answer": 0},
]
TASKS = {
    "ours_choice": """
task: ours_choice
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
target_delimiter: ""
doc_to_target: answer
metric_list:
  - {metric: acc}
  - {metric: acc_norm}
""",
    "ours_writing": """
task: ours_writing
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: [".", "He"], max_gen_toks: 24, do_sample: false, temperature: 0.0}
metric_list:
  - {metric: exact_match}
""",
    "ours_rolling": """
task: ours_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{question}} {{choices[0]}}"
metric_list:
  - {metric: word_perplexity}
  - {metric: byte_perplexity}
  - {metric: bits_per_byte}
""",
}


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "models/stories260k"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks over a file of questions; what is made of it is kept beside."""
    place = tmp_path_factory.mktemp("tasks")
    data = place / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    for name, text in TASKS.items():
        (place / f"{name}.yaml").write_text(text.replace("DATA", str(data)))
    return place


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cache of our own, and room for what lm-eval and its libraries warn of."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        patch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # asks pip and the machine for seconds
        yield


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return loquent.load(folder)


def their_model(folder: Path, **options: Any) -> Any:
    """lm-eval's own model, by transformers, which does not know the class of tokenizer that the folder names."""
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    own = loquent.AutoTokenizer.from_pretrained(folder)
    roles = {"bos_token": own.bos_token, "eos_token": own.eos_token}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **roles)
    settings = {"device": "cpu", "dtype": "float32", "backend": "causal", **options}
    return HFLM(pretrained=str(folder), tokenizer=tokenizer, **settings)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return their_model(folder, batch_size=3)


@pytest.fixture(scope="module")
def both(model: Any, theirs: Any, tasks: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    ours = evaluate_tasks(model, list(TASKS), include_path=tasks, log_samples=True, bootstrap_iters=0)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    their = simple_evaluate(theirs, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, log_samples=True)
    return ours, their


@pytest.mark.parametrize("task", TASKS)
def test_metrics_are_those_of_lm_evals_own_model(both: Any, task: str) -> None:
    ours, theirs = (found["results"][task] for found in both)
    assert set(ours) == set(theirs)
    numbers = {name: value for name, value in theirs.items() if isinstance(value, float)}
    assert len(numbers) >= 1
    for name, value in numbers.items():
        assert ours[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_those_of_lm_evals_own_model(both: Any, task: str) -> None:
    ours, theirs = (sorted(found["samples"][task], key=lambda sample: sample["doc_id"]) for found in both)
    assert len(ours) == len(QUESTIONS)
    for our, their in zip(ours, theirs):
        assert our["arguments"] == their["arguments"]
        for [mine], [other] in zip(our["resps"], their["resps"], strict=True):
            if task == "ours_choice":
                assert mine[0] == pytest.approx(other[0], abs=1e-4)
                assert mine[1] == other[1]
            elif task == "ours_rolling":
                assert mine == pytest.approx(other, abs=1e-3)
            else:
                assert mine == other


def test_long_texts_are_cut_as_by_lm_evals_own_model(model: Any, folder: Path) -> None:
    ours = harness_model()(model=model, max_length=20)
    theirs = their_model(folder, max_length=20)
    story = "Once upon a time there was a little cat. It liked to play with a ball. One day the ball was gone."
    pairs = [
        SimpleNamespace(args=args) for args in [(story, " The cat"), ("", story[:30]), (story[:9], " a"), ("a ", "b")]
    ]
    for (mine, greedy), (other, was_greedy) in zip(ours.loglikelihood(pairs), theirs.loglikelihood(pairs), strict=True):
        assert mine == pytest.approx(other, abs=1e-4)
        assert greedy == was_greedy
    texts = [SimpleNamespace(args=(text,)) for text in (story, story[:20], story * 3)]
    expected = theirs.loglikelihood_rolling(texts)
    assert ours.loglikelihood_rolling(texts) == pytest.approx(expected, abs=1e-3)
    assert ours.loglikelihood_rolling([SimpleNamespace(args=("",))])[0] <= 0
    wanted = [(story, {"until": [" a"], "max_gen_toks": 12}), (story[:12], {"until": "the", "max_new_tokens": 9})]
    requests = [SimpleNamespace(args=each) for each in wanted]
    assert ours.generate_until(requests) == theirs.generate_until(requests)
    with pytest.raises(ArgumentError, match="max_gen_toks=20 leaves no room"):
        ours.generate_until([SimpleNamespace(args=(story, {"max_gen_toks": 20}))])
    with pytest.raises(ArgumentError, match="max_length=513"):
        harness_model()(model=model, max_length=513)


def test_sampling_follows_the_task(model: Any) -> None:
    def texts(seed: int = 0, **settings: Any) -> list[str]:
        request = SimpleNamespace(args=("Once upon a time", {"until": [], "max_gen_toks": 16, **settings}))
        return harness_model()(model=model, seed=seed).generate_until([request, request], disable_tqdm=True)

    greedy = texts()
    assert greedy == texts(do_sample=False, temperature=0.9)
    assert greedy[0] == greedy[1]
    drawn = texts(temperature=1.0)
    assert drawn == texts(do_sample=True, temperature=1.0)
    assert drawn[0] != drawn[1]
    assert drawn != texts(seed=7, temperature=1.0)
    assert texts(temperature=1.0, top_k=1) == greedy
    with pytest.raises(ArgumentError, match=r"generation_kwargs has \['tempurature'\].*temperature"):
        texts(tempurature=1.0)


def test_chats_are_written_by_the_template(model: Any, tasks: Path, folder: Path) -> None:
    tokenizer = loquent.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    chatty = loquent.text.TextModel(model.model, tokenizer)
    lm = harness_model()(model=chatty)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    text = lm.apply_chat_template(messages)
    assert text == "<s>[user] Hello\n[assistant]"
    assert lm.chat_template(True) == tokenizer.chat_template
    assert lm.tokenizer_name == str(folder).replace("/", "__")
    assert lm.tok_encode(text).count(tokenizer.bos_token_id) == 1
    found = evaluate_tasks(
        chatty, ["ours_writing"], include_path=tasks, apply_chat_template=True, log_samples=True, bootstrap_iters=0
    )
    [first, *_] = found["samples"]["ours_writing"]
    assert first["arguments"][0][0].endswith("\n[assistant]")


def test_the_table_has_each_metric(both: Any) -> None:
    table = results_table(both[0])
    for name in (*TASKS, "acc_norm", "exact_match", "bits_per_byte"):
        assert name in table


def test_limits_and_shots_are_passed_on(model: Any, tasks: Path) -> None:
    found = evaluate_tasks(model, ["ours_choice"], include_path=tasks, limit=2, log_samples=True, num_fewshot=0)
    assert len(found["samples"]["ours_choice"]) == 2
    assert found["n-shot"]["ours_choice"] == 0


def test_tasks_that_are_not_there_are_said(model: Any, tasks: Path) -> None:
    with pytest.raises(ArgumentError, match="tasks is empty"):
        evaluate_tasks(model, [])
    with pytest.raises(ArgumentError, match="'/no/folder' is no folder"):
        evaluate_tasks(model, ["a"], include_path="/no/folder")
    (tasks / "absent.yaml").write_text(
        TASKS["ours_choice"].replace("ours_choice", "absent").replace("DATA", "/no/data")
    )
    with pytest.raises(HubError, match="The data of absent cannot be had"):
        evaluate_tasks(model, ["absent"], include_path=tasks)
    (tasks / "absent.yaml").unlink()


def test_lm_eval_knows_the_model_by_its_name(tasks: Path, folder: Path, both: Any) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    register()
    register()  # once more does nothing
    found = simple_evaluate(
        "loquent",
        {"pretrained": str(folder), "dtype": "float32", "kv_bits": 8},
        tasks=["ours_choice"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        batch_size=4,
        device="cuda:0",  # as the command says by itself
        bootstrap_iters=0,
    )
    assert found["results"]["ours_choice"]["acc,none"] == both[0]["results"]["ours_choice"]["acc,none"]


@pytest.mark.slow  # lm-eval reads all of its tasks
def test_a_misspelt_task_is_said(model: Any, tasks: Path) -> None:
    with pytest.raises(ArgumentError, match=r"no task 'ours_choise'\. Did you mean 'ours_choice'"):
        evaluate_tasks(model, ["ours_choise"], include_path=tasks)


@pytest.mark.slow  # lm-eval reads all of its tasks
def test_lm_evals_own_command_knows_the_model(tasks: Path, folder: Path, both: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "loquent.evaluation.harness", "--model", "loquent"]
    command += ["--model_args", f"pretrained={folder},dtype=float32", "--tasks", "ours_choice"]
    command += ["--include_path", str(tasks), "--output_path", str(tmp_path / "out.json"), "--batch_size", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [written] = tmp_path.rglob("*.json")
    found = json.loads(written.read_text())["results"]["ours_choice"]
    assert found["acc,none"] == both[0]["results"]["ours_choice"]["acc,none"]


def test_the_default_model_runs(tasks: Path) -> None:
    found = evaluate_tasks(loquent.load(), list(TASKS), include_path=tasks, limit=2, bootstrap_iters=0)
    assert 1 < found["results"]["ours_rolling"]["byte_perplexity,none"] < 30


def test_without_lm_eval_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    harness_model.cache_clear()
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(MissingExtraError, match=r'pip install "loquent\[eval\]"'):
        harness_model()
    harness_model.cache_clear()


def test_requests_as_tasks_write_them() -> None:
    request = generation_request("a", {"until": "b", "max_tokens": 3, "max_gen_toks": 4, "temperature": 0.0}, 5)
    assert (request.until, request.new_tokens, request.settings) == (("b",), 4, {"do_sample": False})
    assert request.cut("xaby") == "xa"
    assert generation_request("a", {}, 5).new_tokens == 5
    with pytest.raises(ArgumentError, match="until=3"):
        generation_request("a", {"until": 3}, 5)
