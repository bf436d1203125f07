"""The types of keys, flags and arguments; each defines the valid values in one place."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from clp_jax.errors import UserError
from clp_jax.files import local_path, new_file_path

MOST = 2**31 - 1
"""The largest 32-bit signed integer, the type in which JAX counts."""

LONGEST_NAME = 4096

Natural = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(gt=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, le=MOST)]
BatchSize = Annotated[int, Field(gt=0, le=2**20)]
SequenceLength = Annotated[int, Field(gt=0, le=2**20)]
NewTokens = Annotated[int, Field(gt=0, le=2**20)]
VocabularySize = Annotated[int, Field(ge=257, le=2**22)]  # 256 bytes and the end-of-text token.
PadMultiple = Annotated[int, Field(gt=0, le=2**16)]
MeshSize = Annotated[int, Field(ge=-1, le=2**20)]

Factor = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
PositiveFactor = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
PartialShare = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
LearningRate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
PositiveShare = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]

Dtype = Literal["bfloat16", "float16", "float32", "float64"]
Method = Literal[
    "auto", "random", "mean", "subword", "clp", "clp-sparse", "clp-topk", "ridge",
    "ridge-residual", "ridge-joint", "sava", "flor", "procrustes", "omp", "wechsel", "focus",
]  # fmt: skip
SourceKind = Literal[
    "files", "oscar-2019", "oscar", "gc4", "wikipedia", "culturax", "fineweb-2", "mc4",
    "open-legal-data",
]  # fmt: skip


def _named(place: Any) -> Any:
    if not str(place) or "\0" in str(place):
        raise ValueError("must name something, but is empty or contains a zero byte")
    if len(str(place)) > LONGEST_NAME:
        raise ValueError(f"has more than {LONGEST_NAME} characters: give a shorter name")
    return place


def _without_slash(name: str) -> str:
    if "/" in name or not name.isprintable():
        raise ValueError(
            f"{name!r} is not the name of a set: leave out slashes and control characters"
        )
    return name


def _place(place: Any) -> Any:
    if not isinstance(place, str | os.PathLike):
        raise ValueError("must be a path or a name")
    return _named(place)


def _float_type(kind: Any) -> Any:
    import ml_dtypes  # noqa: F401, bfloat16 for NumPy
    import numpy as np

    try:
        known = kind is not None and str(np.dtype(kind)) in get_args(Dtype)
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"{kind} is not one of {', '.join(get_args(Dtype))}")
    return kind


def _looked_at(look: Callable[[Any], Any]) -> AfterValidator:
    """A validator that keeps a place unchanged and fails if ``look`` refuses it."""

    def check(place: Any) -> Any:
        try:
            look(place)
        except UserError as error:
            raise ValueError(str(error).removesuffix(".")) from None
        return place

    return AfterValidator(check)


Name = Annotated[str, AfterValidator(_named)]
"""A path, an address or the name of something on the hub."""
SetName = Annotated[str, AfterValidator(_without_slash)]
"""The name of a set of texts, which is a part of the names of metrics."""
LocalName = Annotated[Name, _looked_at(local_path)]
"""A path on a disk."""
NewFile = Annotated[Name, _looked_at(new_file_path)]
"""A path where a file can be written."""
PathOrName = Annotated[str | Path, PlainValidator(_place)]
"""A `Name` or a `pathlib.Path`."""
LocalPath = Annotated[PathOrName, _looked_at(local_path)]
"""A `LocalName` or a `pathlib.Path`."""
Inputs = Sequence[
    Annotated[Name, BeforeValidator(lambda x: os.fspath(x) if isinstance(x, os.PathLike) else x)]
]
"""Files, globs and data sets on the hub."""
FloatType = Annotated[Any, AfterValidator(_float_type)]
"""A floating-point dtype of checkpoints, in any form that NumPy accepts."""
