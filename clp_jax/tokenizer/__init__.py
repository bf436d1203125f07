"""Encoding and decoding for every stage; see docs/reference/tokens.md."""

from clp_jax.tokenizer.owner import ROLES, AnyTokenizer, Tokenizer
from clp_jax.tokenizer.read import read_tokenizer

__all__ = ["ROLES", "AnyTokenizer", "Tokenizer", "read_tokenizer"]
