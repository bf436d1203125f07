"""What each row of the new tables is made of, token by token."""

import json
from collections.abc import Mapping
from pathlib import Path

from clp_jax.transfer.ranking import Choice
from clp_jax.transfer.table import NewTable
from clp_jax.vocabulary import Token, read_vocabulary

CONTRIBUTORS = 5


def write_trace(file: Path, choice: Choice, tables: Mapping[str, NewTable]) -> None:
    """Write a JSON line for every row of every table: id, token, text, origin, main contributors.

    ``token`` is the tokenizer's spelling, ``text`` what it stands for. Contributors are source
    tokens, by what they stand for, with their weights. A copied row has the token that it is copied
    from, a mixed one too, with its share; a computed one those with the largest weights, as the
    method sees them before norms are matched or rows calibrated. The mean row, a fallback, and
    padding name none.
    """
    setting, layout = choice.setting, choice.setting.layout
    source = setting.vocabularies[0].tokens
    target = read_vocabulary(setting.tokenizer).tokens
    missing = layout.missing.tolist()
    copied = dict(zip(layout.copied.tolist(), layout.copied_source.tolist(), strict=True))
    with file.open("w", encoding="utf-8") as lines:
        for name, table in tables.items():
            origins = {id: origin for origin, ids in table.origins.items() for id in ids.tolist()}
            made_of = {
                id: [(other, choice.recipe.copy_share if origins[id] == "mixed" else 1.0)]
                for id, other in copied.items()
            }
            if table.contributors is not None:
                ids, weights = table.contributors(CONTRIBUTORS)
                for token, row, shares in zip(missing, ids.tolist(), weights.tolist(), strict=True):
                    if origins[token] != "fallback: mean":
                        made_of[token] = list(zip(row, shares, strict=True))
            for id in range(layout.rows):
                line = {
                    "table": name,
                    "id": id,
                    "token": setting.tokenizer.token(id),
                    "text": _text(target.get(id)),
                    "origin": origins[id],
                    "from": [
                        [_text(source.get(other)), round(weight, 6)]
                        for other, weight in made_of.get(id, [])
                        if weight
                    ],
                }
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def _text(token: Token | None) -> str | None:
    """What a token stands for; bytes that are no UTF-8 as Python writes them."""
    return None if token is None else token.bytes.decode(errors="backslashreplace")
