"""What two tokenizers share.

`read_vocabulary` brings every token into one form, the exact bytes it stands for or the role it
plays, and `match_vocabularies` pairs the tokens of two vocabularies by it. The rules are written
out in docs/vocabulary.md.
"""

from pathlib import Path

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.vocabulary.match import match_vocabularies
from clp_jax.vocabulary.report import VocabularyReport
from clp_jax.vocabulary.tokens import Token, Vocabulary, read_vocabulary

__all__ = [
    "Token",
    "Vocabulary",
    "VocabularyReport",
    "compare_vocabularies",
    "match_vocabularies",
    "read_vocabulary",
]


def compare_vocabularies(
    source: str | Path, target: str | Path, *, fuzzy: bool = False
) -> VocabularyReport:
    """Compare the tokenizers of two Hugging Face folders or hub ids.

    Args:
        source: the model with the old tokenizer.
        target: the model with the new tokenizer.
        fuzzy: also match tokens that differ only in case or in starting a word.

    Raises:
        UserError: one of them is missing or holds no readable tokenizer.
    """
    return match_vocabularies(
        read_vocabulary(load_tokenizer(source)),
        read_vocabulary(load_tokenizer(target)),
        fuzzy=fuzzy,
    )
