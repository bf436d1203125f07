"""What a method of the transfer is asked, and what it answers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

Contributors = Callable[[int], tuple[Int[np.ndarray, "query k"], Float[np.ndarray, "query k"]]]


class Problem(NamedTuple):
    """Rows are wanted for the queries; those of the anchors are known.

    Attributes:
        queries: what is known of the tokens that want a row, float32; by default the helper's rows.
        anchors: the same of the tokens whose row is known.
        rows: the anchors' rows in the source's table, float32.
        mean: the mean of all rows of the source's table.
        std: the standard deviation of all its rows in each dimension.
        mesh: devices to compute on.
        seed: of whatever is random.
    """

    queries: Float[np.ndarray, "query feature"]
    anchors: Float[np.ndarray, "anchor feature"]
    rows: Float[np.ndarray, "anchor dim"]
    mean: Float[np.ndarray, "dim"]
    std: Float[np.ndarray, "dim"]
    mesh: Mesh
    seed: int


class Prediction(NamedTuple):
    """The rows that a method gives to the queries.

    Attributes:
        rows: a row a query, float32.
        fallback: by the fallback's name, which queries the method itself could not serve.
        facts: what the method found out and chose, for the manifest.
        contributors: for k, the positions and the weights of each query's k main anchors.
    """

    rows: Float[np.ndarray, "query dim"]
    fallback: Mapping[str, Bool[np.ndarray, "query"]] = {}
    facts: Mapping[str, Any] = {}
    contributors: Contributors | None = None


Method = Callable[[Problem], Prediction]
