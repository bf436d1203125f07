"""Tasks of lm-evaluation-harness, and our own task files for it."""

from clp_jax.evaluate.tasks.run import evaluate_tasks, render_tasks

__all__ = ["evaluate_tasks", "render_tasks"]
