"""What two tokenizers share.

`read_vocabulary` brings every token into one form: the exact bytes it stands for, or its role.
`match_vocabularies` pairs the tokens of two vocabularies by that form. docs/reference/tokens.md
states the rules.
"""

from clp_jax.vocabulary.compare import compare_vocabularies
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
