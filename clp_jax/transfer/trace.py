"""What each row of the new tables is made of, token by token."""

import json
from collections.abc import Mapping
from pathlib import Path

from clp_jax.transfer.setting import Setting
from clp_jax.transfer.table import NewTable

CONTRIBUTORS = 5


def write_trace(file: Path, setting: Setting, tables: Mapping[str, NewTable]) -> None:
    """Write a JSON line for every row of every table: id, token, origin, main contributors.

    A copied row has the source token that it is copied from; a computed one the source tokens with
    the largest weights, as the method sees them before norms are matched or rows calibrated. The
    mean row, a fallback, and padding name none.
    """
    layout = setting.layout
    source_names = setting.vocabularies[0].names
    missing = layout.missing.tolist()
    copied = dict(zip(layout.copied.tolist(), layout.copied_source.tolist(), strict=True))
    with file.open("w", encoding="utf-8") as lines:
        for name, table in tables.items():
            origins = {id: origin for origin, ids in table.origins.items() for id in ids.tolist()}
            made_of = {id: [(source, 1.0)] for id, source in copied.items()}
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
                    "origin": origins[id],
                    "from": [
                        [source_names.get(source), round(weight, 6)]
                        for source, weight in made_of.get(id, [])
                        if weight
                    ],
                }
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
