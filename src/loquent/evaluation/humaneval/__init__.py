"""HumanEval (Chen et al., 2021, arXiv:2107.03374): completions of its problems, their tests, and pass@k.

Running what a model wrote is dangerous: nothing here does so but `run_tests` and `run_program`, see `sandbox`.
"""

from __future__ import annotations

from loquent.evaluation.humaneval.completions import Sampling, missing_completions, write_completions
from loquent.evaluation.humaneval.problems import Problem, read_problems
from loquent.evaluation.humaneval.sandbox import Limits, Outcome, run_program, why_unavailable
from loquent.evaluation.humaneval.scoring import pass_at_k, pass_rates, run_tests

__all__ = [
    "Limits",
    "Outcome",
    "Problem",
    "Sampling",
    "missing_completions",
    "pass_at_k",
    "pass_rates",
    "read_problems",
    "run_program",
    "run_tests",
    "why_unavailable",
    "write_completions",
]
