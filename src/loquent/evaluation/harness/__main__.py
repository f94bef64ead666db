"""`python -m loquent.evaluation.harness`: the `lm_eval` command, which knows the model `loquent` here."""

from __future__ import annotations

from loquent.evaluation.harness.running import register

if __name__ == "__main__":
    register()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
