"""The ranking of methods for a pair of models, before any training."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from clp_jax.transfer.calibration import SCORED_WINDOWS, Tables
from clp_jax.transfer.methods import METHODS, ROTATION, Recipe
from clp_jax.transfer.pair import TransferPair
from clp_jax.transfer.short_training import train_tables
from clp_jax.transfer.table import NewTable

BY_TEXT = "bits per byte of text"
BY_TRAINING = "bits per byte of text after training of the new rows"
BY_OVERLAP = "error on held-out shared tokens"
SHARES = (1.0, 0.5, 0.25)
"""Weights of the source in shared rows: all methods are tried with the first, the best with all."""

SCREENED = 4
"""Windows of text that every candidate is scored on, see `part_of`."""

FINALISTS = 3
"""How many of them are scored on `SCORED_WINDOWS` windows, or trained."""


@dataclass(frozen=True)
class Score:
    """The score of a recipe with a helper.

    Attributes:
        pair: the source and the helper.
        recipe: the method and its options.
        value: bits per byte on text, or the error on held-out shared tokens; lower is better.
        windows: the number of windows of that text.
        steps: the number of steps of training before.
        start: the loss without them, if there were any.
        behind: without text, how much larger the error is than that of the best candidate, in
            standard errors of the difference; None for the best.
    """

    pair: TransferPair
    recipe: Recipe
    value: float
    windows: int = 0
    steps: int = 0
    start: float | None = None
    behind: float | None = None


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
        criterion = BY_TEXT if self.pair.text else BY_OVERLAP
        if self.scores and self.scores[0].steps:
            criterion = BY_TRAINING
        return {
            "recipe": self.recipe.to_dict(),
            "ranked_by": criterion,
            "ranking": [
                {
                    "helper": score.pair.helper.name,
                    **score.recipe.to_dict(),
                    "score": score.value,
                    **({"windows": score.windows} if score.windows else {"behind": score.behind}),
                    **({"steps": score.steps, "start": score.start} if score.steps else {}),
                }
                for score in self.scores
            ],
        }


def make_tables(pair: TransferPair, recipe: Recipe) -> dict[str, NewTable]:
    """The new tables of a recipe by name, calibrated if the recipe says so.

    The pair holds the last ones, which are often those of the recipe that is chosen.
    """
    if pair.made is None or pair.made[0] != recipe:
        pair.made = None  # before others take memory
        tables = pair.tables(recipe)
        if recipe.calibrate:
            pair.evaluator.calibrate(rows_of(tables))
        pair.made = recipe, tables
    return pair.made[1]


def ordered(scores: Iterable[Score]) -> list[Score]:
    """The best first; of equals, to the last digits that devices agree on, the first tried."""
    return sorted(scores, key=lambda score: round(score.value, 6))


def rank_by_text(pairs: Sequence[TransferPair], steps: int = 0) -> list[Score]:
    """Rank all candidates by the transferred model's loss on text, the best first.

    All are scored on a little of it, the methods of the best `FINALISTS` also with other shares.
    The best of all those are scored again on more, or after training; without training, the first
    one with matched spread and the first without are also tried calibrated, which suits them
    unequally. If the source's vocabulary is kept, its rows are neither mixed nor calibrated.

    Args:
        pairs: the source with each helper.
        steps: steps of training of the new rows, with the body frozen.
    """
    screened = _screen_pairs(pairs, candidates)
    best = ordered(screened)[:FINALISTS]
    screened += _screen_pairs(
        pairs,
        lambda pair: with_other_shares(
            pair, sorted({score.recipe.method for score in best if score.pair is pair})
        ),
    )
    screened = ordered(screened)
    finals: list[Score] = []
    for score in screened[:FINALISTS]:
        finals.append(_train(score, steps) if steps else _judge(score))
        if len(pairs) > 1:
            score.pair.release()
    if not (steps or finals[0].pair.layout.keeps):
        firsts = {score.recipe.match_spread: score for score in reversed(ordered(finals))}
        finals += [
            _judge(replace(score, recipe=replace(score.recipe, calibrate=True)))
            for score in firsts.values()
        ]
    return [*ordered(finals), *screened[FINALISTS:]]


def candidates(pair: TransferPair) -> list[Recipe]:
    """The methods that are worth it; maps also with matched spread.

    Those of one method follow each other.
    """
    ranked = (method for method in pair.methods() if METHODS[method].ranked)
    return _recipes(pair, ranked, SHARES[:1])


def with_other_shares(pair: TransferPair, methods: Iterable[str]) -> list[Recipe]:
    """Methods with the other `SHARES`, maps also with matched spread.

    Those of one method follow each other. Pieces spell a shared token as itself, so shares do not
    matter to them.
    """
    if pair.layout.keeps:
        return []
    mixed = (method for method in methods if METHODS[method].basis != "pieces")
    return _recipes(pair, mixed, SHARES[1:])


def _recipes(pair: TransferPair, methods: Iterable[str], shares: Sequence[float]) -> list[Recipe]:
    return [
        replace(pair.defaults(method), source_weight=share, match_spread=match_spread)
        for method in methods
        for share in shares
        for match_spread in ((False, True) if METHODS[method].maps else (False,))
    ]


def _screen_pairs(
    pairs: Sequence[TransferPair], recipes: Callable[[TransferPair], list[Recipe]]
) -> list[Score]:
    """The scores of each pair's recipes on a little text; only one of several pairs is loaded."""
    scores: list[Score] = []
    for pair in pairs:
        scores += _screen(pair, recipes(pair))
        if len(pairs) > 1:
            pair.release()
    return scores


def _screen(pair: TransferPair, recipes: Sequence[Recipe]) -> Iterator[Score]:
    """The scores of recipes on a little text; each method's rows are computed once."""
    with tqdm(total=len(recipes), desc="methods", leave=False, disable=None) as progress:
        for _, alike in groupby(recipes, attrgetter("method")):
            group = [*alike]
            predictions = pair.predictions(group[0], keep=True)
            for recipe in group:
                rows = rows_of(pair.compose(predictions, recipe))
                yield Score(pair, recipe, pair.evaluator.loss(rows, SCREENED), SCREENED)
                progress.update()


def _judge(score: Score) -> Score:
    """The score of a recipe on more text."""
    rows = rows_of(make_tables(score.pair, score.recipe))
    return replace(
        score, value=score.pair.evaluator.loss(rows, SCORED_WINDOWS), windows=SCORED_WINDOWS
    )


def _train(score: Score, steps: int) -> Score:
    """The score of a recipe after training."""
    evaluator, rows = score.pair.evaluator, rows_of(make_tables(score.pair, score.recipe))
    start, trained = evaluator.loss(rows, SCORED_WINDOWS), train_tables(evaluator, rows, steps)
    value = evaluator.loss(trained, SCORED_WINDOWS)
    return replace(score, value=value, windows=SCORED_WINDOWS, steps=steps, start=start)


def rows_of(tables: Mapping[str, NewTable]) -> Tables:
    """The rows of tables, by name."""
    return {name: table.rows for name, table in tables.items()}


def rank_by_overlap(pairs: Sequence[TransferPair]) -> list[Score]:
    """Rank all candidates except `ROTATION` by their error on held-out shared tokens, best first.

    Shares are those of the method: the error says nothing about them.

    Raises:
        UserError: a helper and the source share no token.
    """
    found: list[tuple[Score, np.ndarray]] = []
    for pair in pairs:
        pair.check("clp")
        for recipe in candidates(pair):
            given = replace(pair.defaults(recipe.method), match_spread=recipe.match_spread)
            errors = None if recipe.method == ROTATION else pair.held_out_errors(given)
            if errors is not None:
                found.append((Score(pair, given, float(errors.mean())), errors))
        if len(pairs) > 1:
            pair.release()
    ranking = sorted(ordered(score for score, _ in found), key=_rank)
    errors_of = {id(score): errors for score, errors in found}
    best = errors_of[id(ranking[0])]
    return [replace(score, behind=_behind(errors_of[id(score)], best)) for score in ranking]


def _rank(score: Score) -> float:
    """The error; of pieces at most the mean row's: a body reads them better than rows show."""
    known = METHODS[score.recipe.method].basis == "pieces"
    return round(min(score.value, 1.0) if known else score.value, 6)


def _behind(
    errors: Float[np.ndarray, " held_out"], best: Float[np.ndarray, " other"]
) -> float | None:
    """The mean difference of errors in its standard errors; None if it is not known."""
    if len(errors) != len(best) or len(errors) < 2:
        return None
    differences = errors - best
    deviation = differences.std(ddof=1) / np.sqrt(len(errors))
    return float(differences.mean() / deviation) if deviation else None
