"""A source and a helper, opened and matched, with lazily read inputs for every method."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.errors import UserError
from clp_jax.models import read_decoder_config
from clp_jax.transfer.anchors import AnchorFeatures, TableInputs
from clp_jax.transfer.calibration import Evaluator, Sample, make_sample
from clp_jax.transfer.compose import (
    Predictions,
    new_table,
    predict_held_out,
    rescale_spread,
)
from clp_jax.transfer.config import TransferConfig
from clp_jax.transfer.external_vectors import read_vectors
from clp_jax.transfer.helper import Helper
from clp_jax.transfer.methods import METHODS, Recipe
from clp_jax.transfer.methods.similarity import spell
from clp_jax.transfer.models import Checkpoint, target_config
from clp_jax.transfer.pieces import read_means
from clp_jax.transfer.table import NewTable, extending, replacing
from clp_jax.vocabulary import match_vocabularies, read_vocabulary
from clp_jax.vocabulary.extend import extend_tokenizer
from clp_jax.vocabulary.parts import parts_of

KEPT = 3
"""Number of methods whose rows a ranking holds, those asked for last."""

HELD_OUT = 10
"""One shared token in this many is held out to evaluate a method without text."""


class TransferPair:
    """A source, a helper, and how their vocabularies match.

    Attributes:
        source: the source model.
        helper: the helper model.
        vocabularies: the vocabularies of source and target.
        vocabulary: how they match.
        layout: the layout of the new tables.
        tokenizer: the tokenizer of the new model.
        tokenizer_folder: the folder with its files.
        vectors: word and token vectors, for the methods that need them.
        text: a little text of the target language; may be empty.
        mesh: devices to compute on.
        helper_tables: for each of the source's tables, the helper's that supplies similarities.
        made: the recipe and the tables that were computed last.
    """

    def __init__(
        self,
        source: Checkpoint,
        helper: Helper,
        config: TransferConfig,
        text: Sequence[str],
        scratch: Path,
        mesh: Mesh,
    ) -> None:
        self.source, self.helper, self.text, self.mesh = source, helper, text, mesh
        self.constants_of = config.constants_of
        self.vocabularies = read_vocabulary(source.tokenizer), read_vocabulary(helper.target)
        self.vocabulary = match_vocabularies(*self.vocabularies, fuzzy=config.fuzzy)
        multiple = config.pad_to_multiple_of
        if config.extend:
            extension = extend_tokenizer(source.folder, helper.target_folder, scratch)
            self.tokenizer, self.tokenizer_folder = load_tokenizer(scratch), scratch
            self.layout = extending(self.vocabulary, *extension, multiple=multiple)
        else:
            self.tokenizer, self.tokenizer_folder = helper.target, helper.target_folder
            self.layout = replacing(self.vocabulary, multiple=multiple)
        self.vectors = read_vectors(config, source.tokenizer, helper.target, text)
        # A tied helper has a single table, which also serves the head.
        self.helper_tables = dict(
            zip(source.tables, [helper.tables[0], helper.tables[-1]], strict=False)
        )
        self.inputs = {
            name: TableInputs(
                source.tensors[name],
                helper.tensors[other],
                self.layout,
                mesh,
                config.seed,
                helper.spelling,
            )
            for name, other in self.helper_tables.items()
        }
        self.made: tuple[Recipe, dict[str, NewTable]] | None = None
        self._bases: dict[tuple[str, str], AnchorFeatures] = {}
        self._kept: dict[tuple[Any, ...], dict[str, Predictions]] = {}

    def release(self) -> None:
        """Drop everything from memory that can be read again."""
        self.__dict__.pop("evaluator", None)
        self.made = None
        self._bases.clear()
        self._kept.clear()
        for inputs in self.inputs.values():
            inputs.release()

    @cached_property
    def sample(self) -> Sample:
        """The text as tokenized by the new tokenizer."""
        positions = read_decoder_config(self.config(None)).max_positions
        return make_sample(self.text, self.tokenizer, rows=self.layout.rows, positions=positions)

    @cached_property
    def evaluator(self) -> Evaluator:
        """The loaded body of the source, with the text."""
        source = self.source
        return Evaluator(self.config(None), source.tensors, source.tables, self.sample, self.mesh)

    def config(self, dtype: str | None) -> dict[str, Any]:
        """The new model's ``config.json``; a ``dtype`` of None keeps the source's."""
        return target_config(self.source.config, self.tokenizer, self.layout.rows, dtype)

    def methods(self) -> list[str]:
        """The names of the methods whose inputs are all available."""
        return [name for name in METHODS if self._lacks(name) is None]

    def defaults(self, method: str) -> Recipe:
        """A method with its default options, and the constants that the configuration gives."""
        share = 1.0 if self.layout.keeps else METHODS[method].source_weight
        return Recipe(method, share, constants=tuple(self.constants_of(method).items()))

    def check(self, method: str) -> None:
        """Check that all inputs of a method are available.

        Raises:
            UserError: one is missing.
        """
        if lack := self._lacks(method):
            raise UserError(lack)

    def _lacks(self, method: str) -> str | None:
        basis = METHODS[method].basis
        if basis in ("helper_rows", "rows_and_pieces", "token_vectors") and not self.layout.anchors:
            return (
                f"The tokenizers of {self.source.name} and {self.helper.target_name} have no token "
                f"in common, but {method} computes new rows from those of shared tokens: use "
                "subword or wechsel."
            )
        if basis == "token_vectors" and self.vectors.tokens is None:
            return f"The method {method} needs token vectors: give token_vectors or data."
        if basis == "word_vectors" and self.vectors.source is None:
            return (
                f"The method {method} needs word vectors: give source_vectors and target_vectors."
            )
        return None

    def tables(self, recipe: Recipe) -> dict[str, NewTable]:
        """The new tables by name, not calibrated."""
        return self.compose(self.predictions(recipe), recipe)

    def predictions(self, recipe: Recipe, *, keep: bool = False) -> dict[str, Predictions]:
        """For each table the rows that a recipe's method predicts; see `Predictions`.

        Those to ``keep`` are returned again when the same method is asked for, unless `KEPT` others
        have been kept since.
        """
        method = recipe.method, recipe.constants, recipe.no_fallback
        found = self._kept.pop(method, None)
        keep = keep or found is not None
        found = found or {
            name: Predictions(
                recipe.function, self._basis(name, recipe.method), self.layout, keep=keep
            )
            for name in self.inputs
        }
        if keep:
            self._kept[method] = found
            for oldest in [*self._kept][:-KEPT]:
                del self._kept[oldest]
        return found

    def compose(
        self, predictions: Mapping[str, Predictions], recipe: Recipe
    ) -> dict[str, NewTable]:
        """The new tables of a recipe, from what `predictions` returned for its method."""
        return {
            name: new_table(
                predictions[name],
                inputs.source,
                source_weight=recipe.source_weight,
                match_spread=recipe.match_spread,
                spread_shrinkage=recipe.spread_shrinkage,
                by_reliability=recipe.by_reliability,
            )
            for name, inputs in self.inputs.items()
        }

    def held_out_errors(self, recipe: Recipe) -> Float[np.ndarray, " held_out"] | None:
        """The squared error of the row of each held-out shared token, relative to the mean row's.

        A tenth of the shared tokens is held out, and the computed rows are scaled if the recipe
        says so. A mean of 0 is perfect, 1 is as good as the source's mean row. Where only the
        pieces of a token count, those of a shared token are the two parts that it is made of. None
        for methods that use no features of a token.
        """
        name = self.source.tables[0]
        inputs, layout = self.inputs[name], self.layout
        held_out = np.arange(layout.anchors) % HELD_OUT == 0
        kind = METHODS[recipe.method].basis
        if kind == "nothing" or not held_out.any():
            return None
        if kind == "pieces":
            found = self._rows_of_parts(inputs, layout.copied_source[: layout.anchors][held_out])
        else:
            basis = self._basis(name, recipe.method)
            found = predict_held_out(recipe.function, basis, layout, held_out).rows
        known = inputs.source.rows[: layout.anchors]
        if recipe.match_spread:
            rescale_spread(found, np.arange(len(found)), known, recipe.spread_shrinkage)
        errors = np.square(found - known[held_out]).sum(axis=1, dtype=np.float64)
        of_mean = np.square(known[held_out] - inputs.source.mean).sum(axis=1, dtype=np.float64)
        return errors / of_mean.mean()

    def _rows_of_parts(
        self, inputs: TableInputs, ids: Int[np.ndarray, " source"]
    ) -> Float[np.ndarray, "source dim"]:
        """The mean row of the parts of source tokens; the table's for those without parts."""
        spellings = [self._parts.get(id, []) for id in ids.tolist()]
        rows = read_means(inputs.source_tensor, spellings).rows
        whole = np.array([not spelling for spelling in spellings])
        rows[whole] = inputs.source.mean
        return rows

    @cached_property
    def _parts(self) -> Mapping[int, list[int]]:
        """The two source ids that each token of the source is made of."""
        return parts_of(self.source.tokenizer, self.vocabularies[0])

    @property
    def _anchor_frequencies(self) -> Float[np.ndarray, " anchor"] | None:
        if not self.text:
            return None
        return self.sample.frequencies[self.layout.copied[: self.layout.anchors]]

    def _basis(self, table: str, method: str) -> AnchorFeatures:
        kind = METHODS[method].basis
        if (table, kind) not in self._bases:
            self._bases[table, kind] = self._make_basis(self.inputs[table], kind)
        return self._bases[table, kind]

    def _make_basis(self, inputs: TableInputs, kind: str) -> AnchorFeatures:
        vectors, layout = self.vectors, self.layout
        match kind:
            case "helper_rows":
                return inputs.helper_rows(self._anchor_frequencies)
            case "rows_and_pieces":
                spellings = (
                    spell(*self.vocabularies, layout.missing_helper),
                    [self._parts.get(id, []) for id in layout.copied_source[: layout.anchors]],
                )
                return inputs.rows_and_pieces(*spellings, self._anchor_frequencies)
            case "token_vectors":
                assert vectors.tokens is not None
                return inputs.token_vectors(vectors.tokens)
            case "word_vectors":
                assert vectors.source is not None
                assert vectors.target is not None
                return inputs.word_vectors(vectors.source, vectors.target)
            case "pieces":
                ids = (layout.missing_helper, layout.anchor_helper)
                return inputs.pieces(*(spell(*self.vocabularies, part) for part in ids))
            case _:
                return inputs.nothing()
