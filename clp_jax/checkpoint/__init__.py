"""Checkpoints: Hugging Face folders and the hub, the state of a run, and the way between them."""
