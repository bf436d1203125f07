"""Kinds of tokens that a person wants to know the number of."""

from clp_jax.vocabulary.tokens import Token, Vocabulary


def by_bytes(vocabulary: Vocabulary) -> dict[bytes, int]:
    """The id that each string of bytes goes by, the preferred ones first.

    Of several tokens with the same bytes, one of the tokenizer's own is taken before a name of a
    byte, and that before an added one; then the lowest id. Special tokens stand for no bytes.
    """
    byte_ids = set(vocabulary.byte_ids.values())

    def rank(id: int) -> tuple[bool, bool, int]:
        return id in vocabulary.added, id in byte_ids, id

    chosen: dict[bytes, int] = {}
    for id in sorted(vocabulary.tokens, key=rank):
        if not vocabulary.tokens[id].roles:
            chosen.setdefault(vocabulary.tokens[id].bytes, id)
    return chosen


def classes_of(vocabulary: Vocabulary) -> dict[str, list[int]]:
    """The ids of each class, ascending; an id may be in several, and most are in none."""
    chosen = set(by_bytes(vocabulary).values())
    ordinary = {id: token for id, token in vocabulary.tokens.items() if not token.roles}
    return {
        "special": [id for id, token in vocabulary.tokens.items() if token.roles],
        "added": sorted(vocabulary.added),
        "names of bytes": sorted(vocabulary.byte_ids.values()),
        "parts of a character": [id for id, token in ordinary.items() if _is_partial(token)],
        "white space": [id for id, token in ordinary.items() if readable(token).isspace()],
        "same bytes as another": [id for id in ordinary if id not in chosen],
        "ids without a token": vocabulary.gap_ids.tolist(),
    }


def readable(token: Token) -> str:
    """The text of a token; bytes that are no UTF-8 become U+FFFD."""
    return token.bytes.decode(errors="replace")


def _is_partial(token: Token) -> bool:
    try:
        token.text.decode()
    except UnicodeDecodeError:
        return True
    return False
