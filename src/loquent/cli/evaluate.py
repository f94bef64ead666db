"""`loquent eval`: measures of a model, put together; each is in a module of its own."""

from __future__ import annotations

from loquent.cli import evaluate_humaneval, evaluate_perplexity, evaluate_tasks
from loquent.cli.groups import command_group
from loquent.cli.options import with_groups

app = command_group("eval", "Measure a model: perplexity of texts, the tasks of lm-eval, HumanEval.")
app.command("perplexity", epilog=evaluate_perplexity.EPILOG)(with_groups(evaluate_perplexity.perplexity))
app.command("tasks", epilog=evaluate_tasks.EPILOG)(with_groups(evaluate_tasks.tasks))
app.command("humaneval", epilog=evaluate_humaneval.EPILOG)(with_groups(evaluate_humaneval.humaneval))
