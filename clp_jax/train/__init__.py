"""Continued pretraining, and training from scratch, on any mesh and with exact resume."""
