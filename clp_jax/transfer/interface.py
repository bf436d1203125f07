"""The interface of the methods: a problem in, a prediction out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

Contribution = tuple[Int[np.ndarray, "query k"], Float[np.ndarray, "query k"]]
"""Positions and weights of each query's k main anchors."""
Contributors = Callable[[int], Contribution]
Blocks = Callable[[], Iterator[tuple[Int[np.ndarray, " part"], Float[np.ndarray, "part dim"]]]]
"""Starts the computation and yields positions of queries with their rows, every query once."""


class Problem(NamedTuple):
    """Queries need rows; the rows of the anchors are known.

    Attributes:
        queries: features of the tokens that need a row, float32, such as the helper's rows.
        anchors: the same features of the tokens whose row is known.
        rows: the anchors' rows in the source's table, float32; see ``places``.
        mean: the mean of all rows of the source's table.
        std: the standard deviation of all its rows in each dimension.
        mesh: devices to compute on.
        seed: seed of random methods.
        places: the position in ``rows`` of each anchor's row, ascending, or None if ``rows`` holds
            exactly the anchors' rows. Leaving anchors out thus needs no copy of the table.
        frequencies: how often each anchor occurs in text, in any unit, never zero; None without
            text.
    """

    queries: Float[np.ndarray, "query feature"]
    anchors: Float[np.ndarray, "anchor feature"]
    rows: Float[np.ndarray, "known dim"]
    mean: Float[np.ndarray, " dim"]
    std: Float[np.ndarray, " dim"]
    mesh: Mesh
    seed: int
    places: Int[np.ndarray, " anchor"] | None = None
    frequencies: Float[np.ndarray, " anchor"] | None = None

    def rows_of(self, anchors: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "chosen dim"]:
        """The rows of some anchors."""
        return self.rows[anchors if self.places is None else self.places[anchors]]

    def without(self, held_out: Bool[np.ndarray, " anchor"]) -> "Problem":
        """The same problem without the held-out anchors."""
        kept = np.flatnonzero(~held_out)
        places = kept if self.places is None else self.places[kept]
        frequencies = None if self.frequencies is None else self.frequencies[kept]
        return self._replace(anchors=self.anchors[kept], places=places, frequencies=frequencies)


@dataclass(frozen=True)
class Prediction:
    """The rows that a method predicts for the queries, computed on demand.

    Attributes:
        shape: queries and dimensions.
        blocks: computes the rows, float32, one block at a time, so that no second table is needed
            in addition to the one they are written to.
        fallback: for each fallback by name, the queries that it served instead of the method.
        facts: what the method measured and chose, for the manifest.
        contributors: for a given k, the positions and weights of each query's k main anchors.
        chosen: the constants that the method chose, as arguments for it.
    """

    shape: tuple[int, int]
    blocks: Blocks
    fallback: Mapping[str, Bool[np.ndarray, " query"]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    contributors: Contributors | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> Float[np.ndarray, "query dim"]:
        """All rows together, in a new array."""
        rows = np.empty(self.shape, np.float32)
        for positions, block in self.blocks():
            rows[positions] = block
        return rows


Method = Callable[..., Prediction]
"""Takes a `Problem`, and the method's constants as keyword arguments with their defaults."""


def at_once(rows: Float[np.ndarray, "query dim"]) -> Blocks:
    """All rows as one block."""
    return lambda: iter([(np.arange(len(rows)), rows)])
