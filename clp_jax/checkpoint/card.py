"""Model cards: metadata for the hub and a text for people, passed on from model to model."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from clp_jax.checkpoint.names import HUB_ID
from clp_jax.settings import parse_yaml

CARD = "README.md"
KEPT = ("language", "license", "license_name", "license_link", "base_model", "datasets", "tags")
"""Metadata that a model inherits from the one it is made from."""
MOST_BYTES = 1 << 20

CITATION = """\
## Citation

Malte Ostendorff and Georg Rehm: Efficient Language Model Training through Cross-Lingual and
Progressive Transfer Learning. 2023, [arXiv:2301.09626](https://arxiv.org/abs/2301.09626).
"""

USE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
inputs = tokenizer("PROMPT", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))
```

If the tokenizer puts a token such as `</s>` after every text, as those of encoders do, call it with
`add_special_tokens=False`: the model has learned to end there.
"""


def read_metadata(folder: Path) -> dict[str, Any]:
    """The inheritable metadata, `KEPT`, of the card in a model's folder; empty if not readable.

    Every value is a string or a list of strings: `language: no` is Norwegian.
    """
    file = folder / CARD
    if not file.is_file() or file.stat().st_size > MOST_BYTES:
        return {}
    text = file.read_text("utf-8", errors="replace")
    head, end, _ = text.removeprefix("---\n").partition("\n---")
    if not text.startswith("---\n") or not end:
        return {}
    try:
        found = parse_yaml(head)
    except ValueError:
        return {}
    known = found if isinstance(found, dict) else {}
    return {key: known[key] for key in KEPT if _is_text(known.get(key))}


def _is_text(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(isinstance(one, str) for one in values)


def inherited(name: str | Path, folder: Path) -> dict[str, Any]:
    """Metadata that a new model inherits from another one, whose hub id is the base model.

    Args:
        name: The other model as the user wrote it.
        folder: Folder with its files.
    """
    metadata = read_metadata(folder)
    if not Path(name).exists() and HUB_ID.fullmatch(str(name)):
        metadata["base_model"] = str(name)
    return metadata


def flat(values: Iterable[str | list[str] | None]) -> list[str]:
    """Strings, lists of strings and None as one list, each string once."""
    found: list[str] = []
    for value in values:
        found += value if isinstance(value, list) else [value] if value else []
    return list(dict.fromkeys(found))


def render_card(title: str, metadata: Mapping[str, Any], body: str) -> str:
    """A card of a causal language model.

    Args:
        title: Its name.
        metadata: Further metadata; empty values are left out.
        body: The text, in Markdown.
    """
    described: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    described |= {key: value for key, value in metadata.items() if value and key != "tags"}
    described |= {"tags": flat([metadata.get("tags"), "clp_jax"])}
    head = yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n# {title}\n\n{body}"
