"""Log-likelihoods of continuations, in batches; a context that several share is read once."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from clp_jax.evaluate.batches import global_batch, round_up
from clp_jax.mesh import to_host
from clp_jax.models.decoder import Cache, Decoder, to_logits

SHORTEST = 32
"""Shortest padded length; above it there are four per doubling."""

LOGITS_AT_ONCE = 512
"""Tokens whose logits exist at the same time, unless a batch has more rows."""

MOST_CHOICES = 16
"""Continuations that share the reading of their context; further ones read it again."""

NOBODY = -1
"""The owner of padding."""

Pair = tuple[list[int], list[int]]
"""The tokens of a context and of its continuation."""


class Likelihood(NamedTuple):
    """How likely a continuation is.

    Attributes:
        pair: its number.
        nats: its log-likelihood.
        greedy: whether each of its tokens is the most likely one.
    """

    pair: int
    nats: float
    greedy: bool


def log_likelihoods(
    model: Decoder, pairs: Sequence[Pair], *, max_length: int, batch_tokens: int, mesh: Mesh
) -> Iterator[Likelihood]:
    """The log-likelihood of each continuation after its context, in the order of the batches.

    A program is compiled for each padded length, and another for a last batch with fewer rows. The
    next batch is dispatched before the scores of the last one are fetched. In a multi-process run
    every process must ask for the same pairs.

    Args:
        model: the model, which is on ``mesh``.
        pairs: contexts and continuations of at least one token each.
        max_length: longest sequence that the model reads; longer ones are cut at their left end.
        batch_tokens: tokens of a batch, padding included, unless one sequence has more.
        mesh: the devices.
    """
    graphdef, parameters = nnx.split(model)
    same = defaultdict(list)
    for number, (context, target) in enumerate(pairs):
        same[*context, NOBODY, *target].append(number)
    distinct = [*same.values()]

    def collect(owners: Int[np.ndarray, "rows scored"], scores: Any) -> Iterator[Likelihood]:
        nats, greedy = map(to_host, scores)
        for owner in np.unique(owners[owners != NOBODY]):
            own = owners == owner
            found = float(nats[own].sum(dtype=np.float64)), bool(greedy[own].all())
            yield from (Likelihood(pair, *found) for pair in distinct[owner])

    pending = None
    for kind in _plan([pairs[numbers[0]] for numbers in distinct], max_length):
        for batch in _batches(kind, batch_tokens, max_length, mesh):
            arrays = (global_batch(array, mesh) for array in batch.arrays)
            with jax.set_mesh(mesh):
                scores = batch.program(graphdef, parameters, *arrays)
            if pending is not None:
                yield from collect(*pending)
            pending = batch.owners, scores
    if pending is not None:
        yield from collect(*pending)


class _Batch(NamedTuple):
    """A program, the arrays that it takes, and the pair of each token that it scores."""

    program: Callable[..., tuple[Array, Array]]
    arrays: tuple[Int[np.ndarray, "rows ..."], ...]
    owners: Int[np.ndarray, "rows scored"]


class _Row(NamedTuple):
    """A sequence to read, and the tokens to predict within it."""

    tokens: list[int]
    places: list[int]
    """The place of the last token before each of them."""
    targets: list[int]
    owners: list[int]
    """The pair of each of them."""

    @property
    def continued(self) -> int:
        """Tokens to read after the sequence."""
        return 0

    @staticmethod
    def join(items: Sequence["_Row"], size: int, length: int) -> _Batch:
        """A batch of ``size`` rows, padded at their right to ``length``."""
        scored = power_of_two(max(len(item.targets) for item in items))
        tokens = np.zeros((size, length), np.int32)
        places, targets, owners = (np.full((size, scored), fill) for fill in (0, 0, NOBODY))
        for row, item in enumerate(items):
            count = len(item.targets)
            tokens[row, : len(item.tokens)] = item.tokens
            places[row, :count], targets[row, :count] = item.places, item.targets
            owners[row, :count] = item.owners
        return _Batch(_score_rows, (tokens, places, targets), owners)


class _Fork(NamedTuple):
    """A context with several continuations."""

    tokens: list[int]
    targets: list[list[int]]
    owners: list[int]
    """The pair of each continuation."""

    @property
    def continued(self) -> int:
        """Tokens to read after the context, with their padding."""
        return len(self.targets) * power_of_two(max(map(len, self.targets)))

    @staticmethod
    def join(items: Sequence["_Fork"], size: int, length: int) -> _Batch:
        """A batch of ``size`` contexts padded at their left, and continuations at their right."""
        choices = max(len(item.targets) for item in items)
        longest = power_of_two(max(len(target) for item in items for target in item.targets))
        tokens, first = np.zeros((size, length), np.int32), np.full(size, length - 1)
        targets, owners = (np.full((size, choices, longest), fill) for fill in (0, NOBODY))
        for row, item in enumerate(items):
            first[row] = length - len(item.tokens)
            tokens[row, first[row] :] = item.tokens
            for choice, (owner, target) in enumerate(zip(item.owners, item.targets, strict=True)):
                targets[row, choice, : len(target)] = target
                owners[row, choice, : len(target)] = owner
        return _Batch(_score_forks, (tokens, first, targets), owners.reshape(size, -1))


def _plan(pairs: Sequence[Pair], max_length: int) -> tuple[list[_Row], list[_Fork]]:
    """What to read.

    Continuations share a row if at most one of them has more than one token; others fork if their
    context is long enough to pay for the padding.
    """
    by_context = defaultdict(list)
    for pair, (context, _) in enumerate(pairs):
        by_context[tuple(context)].append(pair)
    rows: list[_Row] = []
    forks: list[_Fork] = []
    for alike in by_context.values():
        for some in range(0, len(alike), MOST_CHOICES):
            owners = alike[some : some + MOST_CHOICES]
            context, targets = pairs[owners[0]][0], [pairs[pair][1] for pair in owners]
            fits = len(context) + max(map(len, targets)) - 1 <= max_length
            if fits and sum(len(target) > 1 for target in targets) <= 1:
                rows.append(_row(context, targets, owners, max_length))
            elif fits and len(context) >= SHORTEST:
                forks.append(_Fork(context, targets, owners))
            else:
                rows += [_row(context, [pairs[pair][1]], [pair], max_length) for pair in owners]
    return rows, forks


def _row(context: list[int], targets: list[list[int]], owners: list[int], max_length: int) -> _Row:
    tokens = [*context, *max(targets, key=len)[:-1]][-max_length:]
    last = len(tokens) - max(map(len, targets))
    return _Row(
        tokens,
        [last + place for target in targets for place in range(len(target))],
        [*chain(*targets)],
        [owner for owner, target in zip(owners, targets, strict=True) for _ in target],
    )


def _batches(
    items: Sequence[Any], batch_tokens: int, max_length: int, mesh: Mesh
) -> Iterator[_Batch]:
    """Batches of rows, or of forks, the longest first."""

    def width(item: _Row | _Fork) -> int:
        return padded_length(len(item.tokens), max_length) + item.continued

    left = sorted(items, key=width, reverse=True)
    while left:
        size = min(max(1, batch_tokens // width(left[0])), power_of_two(len(left)))
        size = round_up(size, mesh)
        batch, left = left[:size], left[size:]
        longest = max(len(item.tokens) for item in batch)
        yield batch[0].join(batch, size, padded_length(longest, max_length))


def power_of_two(number: int) -> int:
    """The next power of two from a number up."""
    return 1 << (number - 1).bit_length()


def padded_length(length: int, max_length: int) -> int:
    """The next padded length, at most ``max_length``."""
    step = max(power_of_two(length), SHORTEST) // 8
    return min(max(SHORTEST, -(-length // step) * step), max_length)


@partial(jax.jit, static_argnums=0)
def _score_rows(
    graphdef: nnx.GraphDef[Decoder],
    parameters: Any,
    tokens: Int[Array, "rows length"],
    places: Int[Array, "rows scored"],
    targets: Int[Array, "rows scored"],
) -> tuple[Float[Array, "rows scored"], Bool[Array, "rows scored"]]:
    """Log-likelihoods of tokens that follow some places, and whether they are the most likely."""
    model = nnx.merge(graphdef, parameters)
    hidden = jnp.take_along_axis(model.hidden_states(tokens), places[..., None], axis=1)
    return _score(model, hidden, targets)


@partial(jax.jit, static_argnums=0)
def _score_forks(
    graphdef: nnx.GraphDef[Decoder],
    parameters: Any,
    tokens: Int[Array, "rows length"],
    first: Int[Array, " rows"],
    targets: Int[Array, "rows choices longest"],
) -> tuple[Float[Array, "rows scored"], Bool[Array, "rows scored"]]:
    """The same for each token of each continuation of the contexts."""
    model = nnx.merge(graphdef, parameters)
    rows, choices, longest = targets.shape
    context, cache = model.read(tokens, Cache.empty(model, tokens.shape[1] + longest - 1, first))
    after, _ = model.read(targets.reshape(rows * choices, longest)[:, :-1], cache.repeated(choices))
    hidden = jnp.concatenate([jnp.repeat(context[:, -1:], choices, axis=0), after], axis=1)
    return _score(model, hidden.reshape(rows, choices * longest, -1), targets.reshape(rows, -1))


def _score(
    model: Decoder, hidden: Float[Array, "rows scored embed"], targets: Int[Array, "rows scored"]
) -> tuple[Float[Array, "rows scored"], Bool[Array, "rows scored"]]:
    head = model.output_embedding().astype(hidden.dtype)

    def score_place(
        at: tuple[Float[Array, "rows embed"], Int[Array, " rows"]],
    ) -> tuple[Float[Array, " rows"], Bool[Array, " rows"]]:
        hidden, targets = at
        logits = to_logits(hidden, head, model.config.final_softcap)
        correct = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
        return correct - jax.nn.logsumexp(logits, axis=-1), logits.argmax(-1) == targets

    by_place = (jnp.swapaxes(hidden, 0, 1), targets.T)
    at_once = max(1, LOGITS_AT_ONCE // len(targets))
    nats, greedy = jax.lax.map(score_place, by_place, batch_size=at_once)
    return nats.T, greedy.T
