"""GermEval 2018 and PAWS-X in German, as task files of lm-evaluation-harness."""

from clp_jax.evaluate.tasks.run import evaluate_tasks, render_tasks

__all__ = ["evaluate_tasks", "render_tasks"]
