"""Tokens on a disk, and the batches of a training."""
