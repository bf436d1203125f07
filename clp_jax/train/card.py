"""The model card of a run: what it started from, what it was trained on, what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from clp_jax.config import RunConfig
from clp_jax.files import public_name

OPTIMIZERS = {"adamw": "AdamW", "adafactor": "Adafactor", "lion": "Lion", "muon": "Muon"}
NORMALISATIONS = ("token", "word", "byte")


def run_card(config: RunConfig, corpora: str, metrics: Sequence[Mapping[str, Any]] = ()) -> str:
    """The ``README.md`` of a run's model.

    Args:
        config: The run's configuration.
        corpora: The table of its corpora.
        metrics: The lines of its metrics, of which the last results are told.
    """
    model, data, train, optimizer = config.model, config.data, config.train, config.optimizer
    name = public_name(model.path)
    if model.init == "pretrained":
        start = f"the weights of `{name}`"
    else:
        start = f"new weights in the shape of `{name}`"
    tokens = train.steps * train.batch_size * data.sequence_length
    rows = [
        ("start", start),
        (
            "training",
            f"{train.steps:,} steps of {train.batch_size:,} sequences of "
            f"{data.sequence_length:,} tokens: {tokens:,} tokens",
        ),
        (
            "optimizer",
            f"{OPTIMIZERS[optimizer.name]}, learning rate {optimizer.learning_rate:g} "
            f"({optimizer.schedule} after {optimizer.warmup_steps:,} steps of warm-up), "
            f"{train.dtype} computation",
        ),
    ]
    measured = [line for line in metrics if "validation/token_perplexity" in line]
    if measured:
        last = measured[-1]
        figures = ", ".join(
            f"{last[f'validation/{unit}_perplexity']:,.4g} per {unit}" for unit in NORMALISATIONS
        )
        rows.append(
            (
                f"perplexity on `{public_name(str(data.validation))}` after {last['tokens']:,} "
                "tokens",
                figures,
            )
        )
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    return f"""---
library_name: transformers
pipeline_tag: text-generation
---

# {public_name(train.out)}

A causal language model, trained with clp_jax.

| | |
|---|---|
{table}

Its text:

{corpora}

Where `transfer.json` is in this folder, it tells how the embeddings were made before the training.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
```

## Limits

Its text was not checked for truth, bias or harm. Licences of the model that it started from and of
the text apply to it.
"""
