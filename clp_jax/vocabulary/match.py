"""Which tokens two vocabularies share: the same bytes, the same role, or nearly the same text."""

from collections.abc import Callable, Hashable, Iterable

import numpy as np

from clp_jax.vocabulary.classes import by_bytes, classes_of
from clp_jax.vocabulary.report import VocabularyReport
from clp_jax.vocabulary.roles import find_role
from clp_jax.vocabulary.tokens import Token, Vocabulary

EXAMPLES = 6


def _fold(token: Token) -> str | bytes:
    """The text in any case; bytes that are no UTF-8 have none."""
    try:
        return token.text.decode().casefold()
    except UnicodeDecodeError:
        return token.text


FUZZY_KEYS: dict[str, Callable[[Token], Hashable]] = {
    "word start": lambda token: token.text,
    "case": lambda token: (token.starts_word, _fold(token)),
    "word start and case": _fold,
}
"""What is equal in tokens that match by each fuzzy rule; the name says what is ignored."""


def match_vocabularies(
    source: Vocabulary, target: Vocabulary, *, fuzzy: bool = False
) -> VocabularyReport:
    """Find for each target token the source token that stands for the same.

    Special tokens match special tokens by role, all others match by their exact bytes. Several
    target tokens may match one source token, and only one of several source tokens with the same
    bytes is used (`clp_jax.vocabulary.classes.by_bytes`).

    Args:
        source: the vocabulary to take rows from.
        target: the vocabulary to find rows for.
        fuzzy: match what is left over without regard to the start of a word, then to case, then to
            either.
    """
    source_bytes = by_bytes(source)
    role_ids = {
        role: id for id in sorted(source.tokens, reverse=True) for role in source.tokens[id].roles
    }
    pairs: dict[int, tuple[int, str]] = {}
    for id, token in target.tokens.items():
        found = find_role(token.roles, role_ids) if token.roles else source_bytes.get(token.bytes)
        if found is not None:
            pairs[id] = found, "role" if token.roles else "exact"
    counts = {}
    for rule, key in FUZZY_KEYS.items() if fuzzy else ():
        before = len(pairs)
        ids = {key(source.tokens[id]): id for id in reversed(source_bytes.values())}
        for id, token in target.tokens.items():
            if id not in pairs and not token.roles and key(token) in ids:
                pairs[id] = ids[key(token)], "fuzzy"
        counts[rule] = len(pairs) - before
    shared = sorted(pairs)
    used = np.array([*target.tokens], np.int64)
    return VocabularyReport(
        source_size=len(source.tokens),
        target_size=len(used),
        source_rows=source.rows,
        target_rows=target.rows,
        source_ids=np.array([pairs[id][0] for id in shared], np.int64),
        target_ids=np.array(shared, np.int64),
        kinds=np.array([pairs[id][1] for id in shared], "<U5"),
        missing_ids=np.setdiff1d(used, shared).astype(np.int64),
        gap_ids=target.gap_ids,
        fuzzy=counts,
        classes=_count_classes(source, target, pairs),
        examples=_examples(source, target, pairs),
    )


def _count_classes(
    source: Vocabulary, target: Vocabulary, matched: Iterable[int]
) -> dict[str, dict[str, int]]:
    in_source, in_target, found = classes_of(source), classes_of(target), set(matched)
    return {
        name: {
            "source": len(in_source[name]),
            "target": len(ids),
            "matched": len(found.intersection(ids)),
        }
        for name, ids in in_target.items()
    }


def _examples(
    source: Vocabulary, target: Vocabulary, pairs: dict[int, tuple[int, str]]
) -> dict[str, list[str]]:
    """A few tokens of every class, evenly spread over the ids."""

    def show(vocabulary: Vocabulary, id: int) -> str:
        token = vocabulary.tokens[id]
        try:
            text = repr(token.bytes.decode())
        except UnicodeDecodeError:
            text = repr(token.bytes)
        return text[1:-1] if token.roles else text

    def show_pair(id: int) -> str:
        found, kind = pairs[id]
        name = show(target, id)
        return name if kind == "exact" else f"{name} = {show(source, found)}"

    def some(ids: list[int]) -> list[int]:
        return [ids[i] for i in np.linspace(0, len(ids) - 1, min(EXAMPLES, len(ids))).astype(int)]

    kinds = {
        kind: [id for id in sorted(pairs) if pairs[id][1] == kind]
        for kind in ("exact", "role", "fuzzy")
    }
    taken = {found for found, _ in pairs.values()}
    only_target = [id for id in target.tokens if id not in pairs]
    only_source = [id for id in source.tokens if id not in taken]
    of_source, of_target = classes_of(source), classes_of(target)
    del of_target["ids without a token"]
    return (
        {kind: list(map(show_pair, some(ids))) for kind, ids in kinds.items()}
        | {
            "target": [show(target, id) for id in some(only_target)],
            "source": [show(source, id) for id in some(only_source)],
        }
        | {
            name: [show(target, id) for id in some(ids)]
            or [show(source, id) for id in some(of_source[name])]
            for name, ids in of_target.items()
        }
    )
