"""What pydantic finds wrong with values, in the words of this project."""

from typing import Any


def fault(error: Any) -> str:
    """One of the faults of a ``pydantic.ValidationError``, with the key it belongs to."""
    key = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"unknown key {key}"
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
