"""lm-eval with Loquent's model in it: registered under its name, and run on tasks; the answers are in `answers`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from loquent.errors import ArgumentError, HubError, MissingExtraError, hint
from loquent.evaluation.harness.answers import Answers
from loquent.text import TextModel

NAME = "loquent"


@cache
def harness_model() -> Any:
    """The class that lm-eval runs: a `TemplateLM` whose answers come from the engine.

    Raises:
        MissingExtraError: lm-eval is not installed.
    """
    try:
        from lm_eval.api.model import TemplateLM
    except ImportError as error:
        raise MissingExtraError("lm-eval", "eval", "Running the tasks of lm-eval") from error
    return type("LoquentLM", (Answers, TemplateLM), {"__doc__": Answers.__doc__})


def register() -> None:
    """Let lm-eval know the model `loquent`, for its own command and `lm_eval.simple_evaluate(model="loquent")`.

    Raises:
        MissingExtraError: lm-eval is not installed.
    """
    model = harness_model()
    import lm_eval.models  # noqa: F401  # which registers its own, once
    from lm_eval.api.registry import model_registry, register_model

    if NAME not in model_registry:
        register_model(NAME)(model)


def evaluate_tasks(
    model: TextModel,
    tasks: Sequence[str],
    *,
    include_path: str | os.PathLike[str] | None = None,
    num_fewshot: int | None = None,
    limit: float | None = None,
    apply_chat_template: bool = False,
    system_instruction: str | None = None,
    gen_kwargs: dict[str, Any] | None = None,
    log_samples: bool = False,
    bootstrap_iters: int = 1000,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """What lm-eval finds of a model on some of its tasks.

    Args:
        model: what `loquent.load` gives.
        tasks: names of tasks or groups of lm-eval, or of those in `include_path`.
        include_path: a folder with further tasks. A task can bring code of its own, which is run.
        num_fewshot: how many examples stand before each question; None: as the task says.
        limit: how many questions of each task are asked, or below 1 which part of them; None: all.
        apply_chat_template: whether questions are written as conversations.
        system_instruction: what the model is told before.
        gen_kwargs: settings that take the place of a task's own, where it writes.
        log_samples: whether the results have each question with its answers.
        bootstrap_iters: how often samples are redrawn for standard errors of what has no formula; 0: no errors at all.
        seed: of few-shot examples and of what is sampled.
        options: further arguments of the adapter, such as `max_length`, `add_bos_token`, `kv_bits`.

    Returns:
        lm-eval's own results: `results` by task, `versions`, `configs` and so on.

    Raises:
        ArgumentError: a task is unknown.
        HubError: a task's data cannot be had.
        MissingExtraError: lm-eval is not installed.
    """
    lm = harness_model()(model=model, seed=seed, **options)
    from lm_eval import simple_evaluate

    manager = _manager(tasks, None if include_path is None else os.fspath(include_path))
    try:
        found: dict[str, Any] = simple_evaluate(
            lm,
            tasks=list(tasks),
            task_manager=manager,
            num_fewshot=num_fewshot,
            limit=limit,
            apply_chat_template=apply_chat_template,
            system_instruction=system_instruction,
            gen_kwargs=gen_kwargs,
            log_samples=log_samples,
            bootstrap_iters=bootstrap_iters,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except (ConnectionError, FileNotFoundError) as error:  # of the datasets library, which both end in
        raise HubError(f"The data of {', '.join(tasks)} cannot be had: {error}") from error
    return found


def _manager(tasks: Sequence[str], folder: str | None) -> Any:
    """Who knows the tasks: those of the folder alone where they are enough, since lm-eval's own take long to read."""
    from lm_eval.tasks import TaskManager

    if not tasks:
        raise ArgumentError("tasks is empty. Name one, such as lambada_openai.")
    if folder is not None:
        if not os.path.isdir(folder):
            raise ArgumentError(f"include_path={folder!r} is no folder. Name one with tasks in it.")
        manager = TaskManager(include_path=folder, include_defaults=False)
        if set(tasks) <= set(manager.all_tasks):
            return manager
    manager = TaskManager(include_path=folder)
    _check_names(tasks, manager.all_tasks)
    return manager


def _check_names(tasks: Sequence[str], known: Sequence[str]) -> None:
    for task in tasks:
        if task not in known:
            raise ArgumentError(f"lm-eval has no task {task!r}.{hint(task, known)} `lm_eval ls tasks` lists them.")


def results_table(found: dict[str, Any]) -> str:
    """The results as lm-eval shows them, a table for tasks and one for groups."""
    from lm_eval.utils import make_table

    tables = [make_table(found)]
    if found.get("groups"):
        tables.append(make_table(found, "groups"))
    return "\n".join(tables)
