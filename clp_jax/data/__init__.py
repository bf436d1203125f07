"""Text in, batches of tokens out.

`read_documents` streams documents from files and hub data sets, `prepare_corpus` tokenises them
once into a folder, `Corpus` maps that folder into memory as one long row of tokens, cut into
windows, and `TrainingBatches` hands the windows of several corpora out mixed and shuffled, at any
position, to any number of processes.
"""

from clp_jax.data.batches import Batch, TrainingBatches
from clp_jax.data.readers import read_documents
from clp_jax.data.store import Corpus, prepare_corpus, write_corpus

__all__ = [
    "Batch",
    "Corpus",
    "TrainingBatches",
    "prepare_corpus",
    "read_documents",
    "write_corpus",
]
