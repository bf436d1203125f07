"""Perplexity, German tasks through lm-evaluation-harness, tables and plots."""
