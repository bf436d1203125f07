"""pydantic's validation errors as sentences of this project."""

from collections.abc import Mapping
from typing import Any

RENAMED: Mapping[str, str] = {
    "accumulation": "gradient_accumulation_steps",
    "rates": "lr_multipliers",
    "embeddings_first": "embeddings_only_steps",
    "final_ratio": "min_lr_ratio",
    "copy_share": "source_weight",
    "match_norms": "match_spread",
    "strict": "no_fallback",
}
"""New names of keys by their old names, which are errors that name the new one."""


def renamed(key: str) -> str:
    """The part of an error that gives an old key's new name; empty for other keys."""
    return f", which is now called {RENAMED[key]}" if key in RENAMED else ""


def fault(error: Any) -> str:
    """One error of a ``pydantic.ValidationError`` as text, with the key it belongs to."""
    key = ".".join(str(part) for part in error["loc"] if part != "")
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"unknown key {key}{renamed(str(error['loc'][-1]))}"
        case "missing" | "missing_argument":
            return f"{key} is missing"
        case "model_type":
            reason = f"must be a section with keys, or a {error['ctx']['class_name']}"
        case "tuple_type" | "list_type" | "sequence_str":
            reason = "must be a list, such as [a, b]"
        case "string_type":
            reason = "must be text"
        case _:
            reason = error["msg"].replace("Value error, ", "", 1)
    return f"{key}: {reason}".removeprefix(": ")
