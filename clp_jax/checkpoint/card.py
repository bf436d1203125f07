"""Model cards: metadata for the hub above a text for people, handed on from model to model."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from clp_jax.checkpoint.names import HUB_ID
from clp_jax.settings import parse_yaml

CARD = "README.md"
KEPT = ("language", "license", "license_name", "license_link", "base_model", "datasets", "tags")
"""What a model made of another has of its metadata."""
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
```
"""


def read_metadata(folder: Path) -> dict[str, Any]:
    """What the card in a model's folder hands on, the keys `KEPT`; nothing if it cannot be read.

    Every value is text or a list of texts: `language: no` is Norwegian.
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
    """Metadata of what is made from a model: its own, and a hub id as the base model.

    Args:
        name: The model as the user wrote it.
        folder: Where its files are.
    """
    metadata = read_metadata(folder)
    if not Path(name).exists() and HUB_ID.fullmatch(str(name)):
        metadata["base_model"] = str(name)
    return metadata


def flat(values: Iterable[str | list[str] | None]) -> list[str]:
    """Texts, lists of texts and what is missing as one list, each text once."""
    found: list[str] = []
    for value in values:
        found += value if isinstance(value, list) else [value] if value else []
    return list(dict.fromkeys(found))


def render_card(title: str, metadata: Mapping[str, Any], body: str) -> str:
    """A card of a causal language model.

    Args:
        title: Its name.
        metadata: What is known of it beside that; empty values are left out.
        body: The text, in Markdown.
    """
    described: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    described |= {key: value for key, value in metadata.items() if value and key != "tags"}
    described |= {"tags": flat([metadata.get("tags"), "clp_jax"])}
    head = yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n# {title}\n\n{body}"
