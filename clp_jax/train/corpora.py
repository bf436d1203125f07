"""What a run reads of each of its corpora, told when it starts and in its model card."""

from collections.abc import Sequence

from clp_jax.config import RunConfig
from clp_jax.data.batches import TrainingBatches
from clp_jax.data.store import Corpus
from clp_jax.evaluate.tables import markdown_table
from clp_jax.files import public_name


def corpora_table(config: RunConfig, corpora: Sequence[Corpus], batches: TrainingBatches) -> str:
    """A line a corpus: its tokens, its share of the sequences, how often the run goes through it.

    Args:
        config: The run's configuration, which names the corpora.
        corpora: The corpora themselves.
        batches: The batches of them.
    """
    names = [public_name(part.path) for part in config.data.train]
    tokens = [len(corpus) for corpus in corpora]
    epochs = batches.epochs(config.train.steps * config.train.batch_size)
    return markdown_table(
        ("corpus", "tokens", "share of sequences", "epochs"),
        [
            (name, f"{count:,}", f"{share:.1%}", f"{times:,.2f}")
            for name, count, share, times in zip(
                names, tokens, batches.shares(), epochs, strict=True
            )
        ],
    )
