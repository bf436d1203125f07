"""Weight tables: one row per tensor, which maps to the Hugging Face name and layout and back."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from jaxtyping import Shaped

LAYER = "{layer}"


@dataclass(frozen=True)
class Weight:
    """A tensor of the model and how a Hugging Face checkpoint holds it.

    The pattern defines both directions and the names of the dimensions: its left side is the
    checkpoint's layout, its right side the model's, whose dimension names decide the sharding.
    """

    path: str
    """Where the parameter is in the module, such as ``blocks.attention.qkv.kernel``."""
    name: str
    """Its name in the checkpoint; ``{layer}`` marks tensors that the model stacks over layers."""
    pattern: str
    """einops pattern of one layer's tensor, checkpoint -> model."""

    @property
    def stacked(self) -> bool:
        """Whether the parameter has a leading axis of layers."""
        return LAYER in self.name

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the parameter's dimensions, including that of the layers."""
        ours = self.pattern.split("->")[1].split()
        return ("layers", *ours) if self.stacked else tuple(ours)

    def names(self, layers: int) -> list[str]:
        """The checkpoint's names of this parameter, layer by layer."""
        count = layers if self.stacked else 1
        return [self.name.replace(LAYER, str(layer)) for layer in range(count)]

    @property
    def groups(self) -> list[list[str]]:
        """The dimensions of one tensor in the checkpoint, each as the named ones it is made of."""
        found = re.findall(r"\(([^)]*)\)|(\S+)", self.pattern.split("->")[0])
        return [(group or single).split() for group, single in found]

    def checkpoint_shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Shape of one tensor in the checkpoint."""
        return tuple(int(np.prod([sizes[axis] for axis in group])) for group in self.groups)

    def to_model(
        self, tensor: Shaped[np.ndarray, "..."], sizes: Mapping[str, int]
    ) -> Shaped[np.ndarray, "..."]:
        """One tensor of the checkpoint in the model's layout."""
        return rearrange(tensor, self.pattern, **self._used(sizes))

    def to_checkpoint(
        self, tensor: Shaped[np.ndarray, "..."], sizes: Mapping[str, int]
    ) -> Shaped[np.ndarray, "..."]:
        """One layer's tensor of the model in the checkpoint's layout."""
        theirs, ours = self.pattern.split("->")
        return rearrange(tensor, f"{ours} -> {theirs}", **self._used(sizes))

    def _used(self, sizes: Mapping[str, int]) -> dict[str, int]:
        return {axis: sizes[axis] for axis in self.pattern.split("->")[1].split()}
