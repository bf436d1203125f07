"""What a method of the transfer is asked, and what it answers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

Contributors = Callable[[int], tuple[Int[np.ndarray, "query k"], Float[np.ndarray, "query k"]]]
Blocks = Callable[[], Iterator[tuple[Int[np.ndarray, " part"], Float[np.ndarray, "part dim"]]]]
"""Starts to compute: some queries' positions and their rows at a time, every query once."""


class Problem(NamedTuple):
    """Rows are wanted for the queries; those of the anchors are known.

    Attributes:
        queries: what is known of the tokens that want a row, float32; by default the helper's rows.
        anchors: the same of the tokens whose row is known.
        rows: the anchors' rows in the source's table, float32; see ``places``.
        mean: the mean of all rows of the source's table.
        std: the standard deviation of all its rows in each dimension.
        mesh: devices to compute on.
        seed: of whatever is random.
        places: where in ``rows`` each anchor has its own, ascending, if there are rows of others
            too: the table is not copied to leave some out.
    """

    queries: Float[np.ndarray, "query feature"]
    anchors: Float[np.ndarray, "anchor feature"]
    rows: Float[np.ndarray, "known dim"]
    mean: Float[np.ndarray, " dim"]
    std: Float[np.ndarray, " dim"]
    mesh: Mesh
    seed: int
    places: Int[np.ndarray, " anchor"] | None = None

    def rows_of(self, anchors: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "chosen dim"]:
        """The rows of some anchors."""
        return self.rows[anchors if self.places is None else self.places[anchors]]

    def without(self, held_out: Bool[np.ndarray, " anchor"]) -> "Problem":
        """The same problem with fewer anchors."""
        kept = np.flatnonzero(~held_out)
        places = kept if self.places is None else self.places[kept]
        return self._replace(anchors=self.anchors[kept], places=places)


@dataclass(frozen=True)
class Prediction:
    """The rows that a method gives to the queries, computed when they are asked for.

    Attributes:
        shape: queries and dimensions.
        blocks: computes the rows, float32, a block at a time, so that no second table of them is
            needed beside the one that they are written to.
        fallback: by the fallback's name, which queries the method itself could not serve.
        facts: what the method found out and chose, for the manifest.
        contributors: for k, the positions and the weights of each query's k main anchors.
    """

    shape: tuple[int, int]
    blocks: Blocks
    fallback: Mapping[str, Bool[np.ndarray, " query"]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    contributors: Contributors | None = None

    @property
    def rows(self) -> Float[np.ndarray, "query dim"]:
        """All rows at once, in an array of their own."""
        rows = np.empty(self.shape, np.float32)
        for positions, block in self.blocks():
            rows[positions] = block
        return rows


Method = Callable[[Problem], Prediction]


def at_once(rows: Float[np.ndarray, "query dim"]) -> Blocks:
    """All rows as one block."""
    return lambda: iter([(np.arange(len(rows)), rows)])
