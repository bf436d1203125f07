"""Tasks of lm-evaluation-harness, and our own task files for it."""

from clp_jax.evaluate.tasks.paired import compare_results, read_results, render_comparison
from clp_jax.evaluate.tasks.report import render_tasks
from clp_jax.evaluate.tasks.run import evaluate_tasks

__all__ = [
    "compare_results", "evaluate_tasks", "read_results", "render_comparison", "render_tasks",
]  # fmt: skip
