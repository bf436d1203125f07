"""Matching of two vocabularies by the same bytes, the same role, or nearly the same text."""

from collections.abc import Callable, Hashable, Mapping

import numpy as np

from clp_jax.vocabulary.classes import by_bytes, classes_of
from clp_jax.vocabulary.report import KINDS, VocabularyReport
from clp_jax.vocabulary.roles import find_role
from clp_jax.vocabulary.tokens import Token, Vocabulary

EXAMPLES = 6


def _fold(token: Token) -> str | bytes:
    """The case-folded text; the bytes themselves if they are not UTF-8."""
    try:
        return token.text.decode().casefold()
    except UnicodeDecodeError:
        return token.text


FUZZY_KEYS: dict[str, Callable[[Token], Hashable]] = {
    "word start": lambda token: token.text,
    "case": lambda token: (token.starts_word, _fold(token)),
    "word start and case": _fold,
}
"""The key that two tokens share under each fuzzy rule; its name is what the rule ignores."""


def match_vocabularies(
    source: Vocabulary, target: Vocabulary, *, fuzzy: bool = False
) -> VocabularyReport:
    """For each target token, find the source token with the same meaning.

    Special tokens match special tokens by role; all others match by their exact bytes. Several
    target tokens may match one source token. Of several source tokens with the same bytes, one is
    used (`clp_jax.vocabulary.classes.by_bytes`).

    Args:
        source: the vocabulary to take rows from.
        target: the vocabulary to find rows for.
        fuzzy: match the remaining tokens while ignoring the start of a word, then case, then both.
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
    classes = classes_of(source), classes_of(target)
    return VocabularyReport(
        source_size=len(source.tokens),
        target_size=len(used),
        source_rows=source.rows,
        target_rows=target.rows,
        source_ids=np.array([pairs[id][0] for id in shared], np.int64),
        target_ids=np.array(shared, np.int64),
        kinds=np.array([pairs[id][1] for id in shared], "<U5"),
        missing_ids=np.setdiff1d(used, shared).astype(np.int64),
        unassigned_ids=target.unassigned_ids,
        fuzzy=counts,
        classes={
            name: {
                "source": len(classes[0][name]),
                "target": len(ids),
                "matched": len(pairs.keys() & ids),
            }
            for name, ids in classes[1].items()
        },
        examples=_overlap_examples(source, target, pairs)
        | {
            name: _show_some(target, ids) or _show_some(source, classes[0][name])
            for name, ids in classes[1].items()
            if name != "ids without a token"
        },
    )


def _overlap_examples(
    source: Vocabulary, target: Vocabulary, pairs: Mapping[int, tuple[int, str]]
) -> dict[str, list[str]]:
    examples = {}
    for kind in KINDS:
        ids = _some([id for id in sorted(pairs) if pairs[id][1] == kind])
        names = _show_some(target, ids)
        if kind != "exact":
            others = _show_some(source, [pairs[id][0] for id in ids])
            names = [" = ".join(pair) for pair in zip(names, others, strict=True)]
        examples[kind] = names
    taken = {found for found, _ in pairs.values()}
    return examples | {
        "target": _show_some(target, [id for id in target.tokens if id not in pairs]),
        "source": _show_some(source, [id for id in source.tokens if id not in taken]),
    }


def _show_some(vocabulary: Vocabulary, ids: list[int]) -> list[str]:
    """A few of the tokens, as Python literals of their text or bytes; special tokens by name."""
    shown = []
    for token in (vocabulary.tokens[id] for id in _some(ids)):
        try:
            text = repr(token.bytes.decode())
        except UnicodeDecodeError:
            text = repr(token.bytes)
        shown.append(text[1:-1] if token.roles else text)
    return shown


def _some(ids: list[int]) -> list[int]:
    """A few ids, evenly spread over all."""
    return [ids[i] for i in np.linspace(0, len(ids) - 1, min(EXAMPLES, len(ids))).astype(int)]
