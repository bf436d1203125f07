"""The ranking of methods for a pair of models, before any training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from clp_jax.transfer.methods import METHODS, ROTATION, Recipe
from clp_jax.transfer.pair import TransferPair
from clp_jax.transfer.table import NewTable

BY_TEXT = "bits per byte of text"
BY_OVERLAP = "error on held-out shared tokens"
SHARES = (1.0, 0.25)
"""Weights of the source in shared rows, tried with every method."""


@dataclass(frozen=True)
class Score:
    """The score of a recipe with a helper.

    Attributes:
        pair: the source and the helper.
        recipe: the method and its options.
        value: bits per byte on text, or the error on held-out shared tokens; lower is better.
    """

    pair: TransferPair
    recipe: Recipe
    value: float


@dataclass(frozen=True)
class Choice:
    """The recipe that the new model is computed with.

    Attributes:
        pair: the source and the helper.
        recipe: the method and its options.
        scores: all candidates, the best first; empty if the user named the method.
    """

    pair: TransferPair
    recipe: Recipe
    scores: Sequence[Score] = ()

    def tables(self) -> dict[str, NewTable]:
        """The new tables by name."""
        return make_tables(self.pair, self.recipe)

    def to_dict(self) -> dict[str, Any]:
        """The recipe and the ranking, ready for JSON."""
        by_text = bool(self.pair.text)
        return {
            "recipe": self.recipe.to_dict(),
            "ranked_by": BY_TEXT if by_text else BY_OVERLAP,
            "ranking": [
                {
                    "helper": score.pair.helper.name,
                    **score.recipe.to_dict(),
                    "score": score.value,
                }
                for score in self.scores
            ],
        }


def make_tables(pair: TransferPair, recipe: Recipe) -> dict[str, NewTable]:
    """The new tables of a recipe by name, calibrated if the recipe says so."""
    tables = pair.tables(recipe)
    if recipe.calibrate:
        pair.evaluator.calibrate({name: table.rows for name, table in tables.items()})
    return tables


def rank_by_text(pair: TransferPair) -> list[Score]:
    """Score the methods that use features of a token by the transferred model's loss on text.

    Each is calibrated and tried with all `SHARES`; maps are tried with and without matched spread.
    If the source's vocabulary is kept, its rows are neither mixed nor calibrated.
    """
    keeps = pair.layout.keeps

    def score(recipe: Recipe) -> Score:
        tables = make_tables(pair, recipe)
        rows = {name: table.rows for name, table in tables.items()}
        return Score(pair, recipe, pair.evaluator.loss(rows))

    recipes = [
        Recipe(method, share, match_spread, calibrate=not keeps)
        for method in pair.methods()
        if METHODS[method].basis != "nothing"
        for share in (SHARES if not keeps else (1.0,))
        for match_spread in ((False, True) if METHODS[method].maps else (False,))
    ]
    return [score(recipe) for recipe in tqdm(recipes, desc="methods", leave=False, disable=None)]


def rank_by_overlap(pair: TransferPair) -> list[Score]:
    """Score all methods except `ROTATION` by their error on held-out shared tokens.

    Each is scored with its default options: the error says nothing about shares and norms.

    Raises:
        UserError: the models share no token.
    """
    pair.check("clp")
    methods = [method for method in pair.methods() if method != ROTATION]
    errors = {method: pair.held_out_error(method) for method in methods}
    return [
        Score(pair, pair.defaults(method), error)
        for method, error in errors.items()
        if error is not None
    ]
