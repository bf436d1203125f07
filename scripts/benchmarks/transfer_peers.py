"""One peer's time for the tables of scripts/benchmarks/transfer.py, as JSON.

    python scripts/benchmarks/transfer_peers.py langsfer FOLDER --rows 1000

Runs in an environment of the peers' own: langsfer 0.1 and deepfocus 1.0 need older libraries than
clp_jax, which is not imported here. FOLDER holds queries.npy, anchors.npy and rows.npy.
"""

import argparse
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np


class Words:
    """As much of a tokenizer as langsfer asks for: the words w0, w1, ... with these ids."""

    def __init__(self, count: int) -> None:
        self.names = [f"w{id:07}" for id in range(count)]
        self.ids = {name: id for id, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def get_vocab(self) -> dict[str, int]:
        return self.ids

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [self.ids[token] for token in tokens]

    def convert_ids_to_tokens(self, id: int) -> str:
        return self.names[id]


def langsfer(queries: np.ndarray, anchors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Its `clp_transfer`: the anchors are the first ids of both vocabularies."""
    from langsfer.high_level import clp_transfer

    shared, words = len(anchors), Words(len(anchors) + len(queries))

    def vector(name: str) -> np.ndarray:
        id = words.ids[name]
        return anchors[id] if id < shared else queries[id - shared]

    vectors = SimpleNamespace(embeddings_matrix=anchors, get_vector_for_token=vector)
    initializer: Any = clp_transfer(Words(shared), rows, words, vectors)
    return initializer.initialize(seed=0)[shared:]


def deepfocus(queries: np.ndarray, anchors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The part of its `FOCUS` after vectors and overlap: cosines, sparsemax, combination."""
    import torch
    from deepfocus.focus import focus_additional_token_initialization

    known = {
        str(i): SimpleNamespace(auxiliary_embedding=vector, source_embedding=row)
        for i, (vector, row) in enumerate(zip(anchors, torch.from_numpy(rows), strict=True))
    }
    new = {
        str(i): SimpleNamespace(auxiliary_embedding=vector, target=SimpleNamespace(id=i))
        for i, vector in enumerate(queries)
    }
    table = torch.zeros((len(queries), rows.shape[1]))
    return focus_additional_token_initialization(known, new, table, device="cpu").numpy()


PEERS = {"langsfer": langsfer, "deepfocus": deepfocus}


def make_loadable() -> None:
    """Keep the peers quiet, and stand in for modules that they import and do not need here.

    Neither loads with what pip installs today: langsfer does not declare platformdirs, with which
    it finds a cache folder, and deepfocus wants datasets, to train word vectors.
    """
    os.environ["TQDM_DISABLE"] = "1"
    sys.modules |= {
        "langsfer.constants": SimpleNamespace(MODEL_CACHE_DIR=None),
        "deepfocus.fasttext_embs": SimpleNamespace(load_target_token_embedding=None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--rows", type=int, required=True, help="of this many queries, extrapolated"
    )
    options = parser.parse_args()
    queries, *known = (
        np.load(options.folder / f"{name}.npy") for name in ("queries", "anchors", "rows")
    )

    make_loadable()
    compute = PEERS[options.peer]
    compute(queries[:2], *(table[:2] for table in known))  # imports and compiles
    print("ready", flush=True)

    def seconds(count: int) -> float:
        start = time.perf_counter()
        compute(queries[:count], *known)
        return time.perf_counter() - start

    count = min(options.rows, len(queries))
    one, some = seconds(1), seconds(count)
    total = one + (some - one) * (len(queries) - 1) / (count - 1)
    found = {"seconds": total, "rows": count}
    print(json.dumps(found | {"version": version(options.peer)}))


if __name__ == "__main__":
    main()
