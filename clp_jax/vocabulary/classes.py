"""Classes of tokens that a report counts."""

from clp_jax.vocabulary.tokens import Vocabulary


def by_bytes(vocabulary: Vocabulary) -> dict[bytes, int]:
    """The id that represents each string of bytes, the preferred ids first.

    Of several tokens with the same bytes, an ordinary token is preferred to a byte-fallback token
    and that to an added token; ties go to the lowest id. Special tokens stand for no bytes.
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
    """The ids of each class, ascending; an id may be in several classes, most are in none."""
    chosen = by_bytes(vocabulary)
    classes: dict[str, list[int]] = {
        "special": [],
        "added": sorted(vocabulary.added),
        "names of bytes": sorted(vocabulary.byte_ids.values()),
        "parts of a character": [],
        "white space": [],
        "same bytes as another": [],
        "ids without a token": vocabulary.unassigned_ids.tolist(),
    }
    for id, token in vocabulary.tokens.items():
        if token.roles:
            classes["special"].append(id)
            continue
        data = token.bytes
        if chosen[data] != id:
            classes["same bytes as another"].append(id)
        try:
            if data.decode().isspace():
                classes["white space"].append(id)
        except UnicodeDecodeError:
            classes["parts of a character"].append(id)
    return classes
