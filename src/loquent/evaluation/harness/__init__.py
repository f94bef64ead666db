"""The tasks of EleutherAI's lm-eval on Loquent's models: its `LM` interface, answered by the engine.

lm-eval knows the model as `loquent` once `register()` has been called, as `python -m loquent.evaluation.harness` does,
whose arguments are those of the `lm_eval` command.
"""

from __future__ import annotations

from loquent.evaluation.harness.running import evaluate_tasks, harness_model, register, results_table

__all__ = ["evaluate_tasks", "harness_model", "register", "results_table"]
