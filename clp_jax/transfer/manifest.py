"""What a transfer leaves in writing: the manifest and the model card."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from clp_jax.checkpoint.hub import tokenizer_hash
from clp_jax.files import public_name
from clp_jax.transfer import topk
from clp_jax.transfer.inputs import Checkpoint
from clp_jax.transfer.table import NewTable
from clp_jax.vocabulary import VocabularyReport

PACKAGES = ("clp-jax", "jax", "numpy", "tokenizers", "transformers")


def describe_transfer(
    source: Checkpoint,
    helper: Checkpoint,
    vocabulary: VocabularyReport,
    tables: Mapping[str, NewTable],
    helper_tables: Mapping[str, str],
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest ``transfer.json``.

    Args:
        source: the source model.
        helper: the helper model.
        vocabulary: their overlap.
        tables: the new tables by tensor name.
        helper_tables: for each of them the helper's tensor that gave the similarities.
        arguments: what the transfer was asked for, as the user wrote it.
    """
    return {
        "arguments": dict(arguments),
        "fallback": {
            "name": "top-k softmax",
            "neighbours": topk.NEIGHBOURS,
            "temperature": topk.TEMPERATURE,
        },
        "vocabulary": vocabulary.to_dict(),
        "tables": {
            name: {"helper_table": helper_tables[name]} | table.to_dict()
            for name, table in tables.items()
        },
        "sha256": {
            "source_tokenizer": tokenizer_hash(source.tokenizer),
            "source_tables": {name: table.source_sha256 for name, table in tables.items()},
            "helper_tokenizer": tokenizer_hash(helper.tokenizer),
            "helper_tables": {
                helper_tables[name]: table.helper_sha256 for name, table in tables.items()
            },
        },
        "versions": {package: version(package) for package in PACKAGES},
    }


def model_card(manifest: Mapping[str, Any]) -> str:
    """The ``README.md`` of a transferred model that has not been trained since."""
    arguments, rows = manifest["arguments"], next(iter(manifest["tables"].values()))["rows"]
    source, helper = (public_name(arguments[model]) for model in ("source", "helper"))
    strict = ", whatever its condition" if arguments["strict"] else ""
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags:
- clp-transfer
---

# {source} with the vocabulary of {helper}

A language model at the start of its life in another language, made by CLP-Transfer
([Ostendorff & Rehm 2023](https://arxiv.org/abs/2301.09626)): the body of `{source}`
under a new embedding table for the tokenizer of `{helper}`.

| rows of the new table | |
|---|---:|
| copied from the source: the token is in both vocabularies | {rows["copied"]:,} |
| combined by the method `{arguments["method"]}`{strict} | {rows["combined"]:,} |
| top-{topk.NEIGHBOURS} softmax, where the formula is ill-conditioned | {rows["fallback"]:,} |
| padding: ids without a token | {rows["padding"]:,} |
| all | {rows["total"]:,} |

`transfer.json` tells the rest: conditions, norms, hashes of the inputs, versions.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
```

## Limits

It has not been trained on the target language yet, and its text is poor until it has: continue the
pretraining first. Licences and known limits of both models it comes from apply to it.
"""
