"""The inputs of the methods: features of the target's tokens, and anchors whose rows are known."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.transfer.blockwise import zero_rows
from clp_jax.transfer.interface import Problem
from clp_jax.transfer.methods.similarity import as_queries
from clp_jax.transfer.pieces import Spelling, read_means, used_pieces
from clp_jax.transfer.table import Layout, TableRead, read_table


class AnchorFeatures(NamedTuple):
    """A problem whose queries are the missing tokens.

    Attributes:
        problem: the queries are the missing tokens.
        shared: the same features for the layout's anchors, the tokens that both models have.
        anchor_ids: source ids of the problem's anchors.
        hold_out: whether predicting a shared token requires leaving its own row out of the anchors.
    """

    problem: Problem
    shared: Float[np.ndarray, "anchor feature"]
    anchor_ids: Int[np.ndarray, " known"]
    hold_out: bool = False


class TableInputs:
    """The source's table and the matching helper table, each read once for all methods."""

    def __init__(
        self,
        source: LazyTensor,
        helper: LazyTensor,
        layout: Layout,
        mesh: Mesh,
        seed: int,
        spelling: Spelling | None = None,
    ) -> None:
        self.source_tensor, self.helper_tensor, self.spelling = source, helper, spelling
        self.layout, self.mesh, self.seed = layout, mesh, seed

    @cached_property
    def source(self) -> TableRead:
        """The rows to copy, and statistics of all rows."""
        return read_table(self.source_tensor, self.layout.copied_source)

    @cached_property
    def helper(self) -> TableRead:
        """The rows of the missing tokens, then those of the anchors."""
        read = read_table if self.spelling is None else self.spelling.read
        ids = np.concatenate([self.layout.missing_helper, self.layout.anchor_helper])
        return read(self.helper_tensor, ids)

    def release(self) -> None:
        """Drop both tables from memory."""
        for table in ("source", "helper"):
            self.__dict__.pop(table, None)

    def nothing(self) -> AnchorFeatures:
        """No features, for methods that use only the source's statistics."""
        count = len(self.layout.missing)
        problem = self._problem(np.zeros((count, 0), np.float32), *self._no_anchors())
        return AnchorFeatures(problem, np.zeros((self.layout.anchors, 0), np.float32), np.arange(0))

    def helper_rows(
        self, frequencies: Float[np.ndarray, " anchor"] | None = None
    ) -> AnchorFeatures:
        """The helper's rows as features, with the frequencies of the layout's anchors if known."""
        missing, shared = np.split(self.helper.rows, [len(self.layout.missing)])
        return self._features(missing, shared, frequencies)

    def rows_and_pieces(
        self,
        missing: Sequence[list[int]],
        shared: Sequence[list[int]],
        frequencies: Float[np.ndarray, " anchor"] | None = None,
    ) -> AnchorFeatures:
        """The helper's row and the mean row of the source's pieces together as features.

        Both are taken about their means over the anchors, and count equally. Where one of them is
        missing, it is that mean.

        Args:
            missing: for each missing token the source ids that spell it; may be empty.
            shared: the same for each of the layout's anchors, other than the token itself.
            frequencies: how often each of them occurs in text.
        """
        own = read_means(self.source_tensor, [*missing, *shared]).rows
        split = len(missing)
        halves = [_standardised(table, split) for table in (self.helper.rows, own)]
        features = np.concatenate(halves, axis=1)
        return self._features(features[:split], features[split:], frequencies)

    def token_vectors(self, vectors: Float[np.ndarray, "token dim"]) -> AnchorFeatures:
        """The target's token vectors as features."""
        layout = self.layout
        return self._features(vectors[layout.missing_helper], vectors[layout.anchor_helper])

    def _features(
        self,
        missing: Float[np.ndarray, "missing dim"],
        shared: Float[np.ndarray, "anchor dim"],
        frequencies: Float[np.ndarray, " anchor"] | None = None,
    ) -> AnchorFeatures:
        """Features of the target's tokens; the shared tokens whose are not zero are the anchors."""
        unknown = zero_rows(shared)
        problem = self._problem(missing, shared, self._shared_rows())
        problem = problem._replace(frequencies=frequencies)
        return AnchorFeatures(
            problem.without(unknown) if unknown.any() else problem,
            shared,
            self._shared_ids()[~unknown],
            hold_out=True,
        )

    def word_vectors(
        self,
        source: Float[np.ndarray, "source dim"],
        target: Float[np.ndarray, "target dim"],
    ) -> AnchorFeatures:
        """Vectors of both vocabularies in one space; every source token that has one is an anchor.

        Args:
            source: one vector per source id; zeros where there is none.
            target: one vector per target id.
        """
        ids = np.flatnonzero(~zero_rows(source))
        rows = read_table(self.source_tensor, ids).rows
        problem = self._problem(target[self.layout.missing_helper], source[ids], rows)
        return AnchorFeatures(problem, target[self.layout.anchor_helper], ids)

    def pieces(self, missing: Sequence[list[int]], shared: Sequence[list[int]]) -> AnchorFeatures:
        """The source ids that spell each missing token and each shared token, as features."""
        ids = used_pieces([*missing, *shared])
        queries = as_queries([*missing, *shared], ids)
        rows = read_table(self.source_tensor, ids).rows
        unused = np.zeros((len(ids), queries.shape[1]), np.float32)
        problem = self._problem(queries[: len(missing)], unused, rows)
        return AnchorFeatures(problem, queries[len(missing) :], ids)

    def _shared_ids(self) -> Int[np.ndarray, " anchor"]:
        return self.layout.copied_source[: self.layout.anchors]

    def _shared_rows(self) -> Float[np.ndarray, "anchor dim"]:
        return self.source.rows[: self.layout.anchors]

    def _no_anchors(
        self,
    ) -> tuple[Float[np.ndarray, "anchor feature"], Float[np.ndarray, "anchor dim"]]:
        return np.zeros((0, 0), np.float32), np.zeros((0, self.source_tensor.shape[1]), np.float32)

    def _problem(
        self,
        queries: Float[np.ndarray, "query feature"],
        anchors: Float[np.ndarray, "anchor feature"],
        rows: Float[np.ndarray, "anchor dim"],
    ) -> Problem:
        read = self.source
        return Problem(queries, anchors, rows, read.mean, read.std, self.mesh, self.seed)


def _standardised(
    table: Float[np.ndarray, "row dim"], missing: int
) -> Float[np.ndarray, "row dim"]:
    """Rows minus the mean of those after the ``missing`` first, whose mean square becomes one.

    Rows of zeros say nothing: they stay zero, and do not count.
    """
    unknown = zero_rows(table)
    anchors = table[missing:][~unknown[missing:]]
    if not len(anchors):
        return np.zeros_like(table)
    center = anchors.mean(axis=0)
    spread = np.sqrt(np.square(anchors - center, dtype=np.float64).mean()) or 1
    return np.where(unknown[:, None], 0, (table - center) / np.float32(spread))
