"""Our own task files for lm-evaluation-harness; nothing here imports the rest of the package."""
