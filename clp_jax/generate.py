"""Continue prompts."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from clp_jax.arguments import checked
from clp_jax.checkpoint.hf import load_model, model_tokenizer
from clp_jax.checkpoint.hub import end_ids, model_files, read_generation
from clp_jax.errors import UserError
from clp_jax.limits import NewTokens, PathOrName, Seed, Temperature
from clp_jax.mesh import inference_dtype, to_host
from clp_jax.models import Cache, Decoder

SHORTEST = 64
"""Prompts and caches are padded to this length or a power of two, so few programs are compiled."""

MOST_AT_ONCE = 32
"""Largest number of tokens that are generated on the device between two checks of ``ended``."""


def generate_tokens(
    model: Decoder,
    prompt: Int[np.ndarray | Array, " length"],
    *,
    max_new_tokens: int,
    ended: Callable[[list[int]], bool] = lambda tokens: False,
    **options: Any,
) -> list[int]:
    """The tokens that continue one prompt; see `generate_batch`, which has the other options."""
    [tokens] = generate_batch(
        model,
        [prompt],
        max_new_tokens=max_new_tokens,
        ended=lambda _, tokens: ended(tokens),
        **options,
    )
    return tokens


def generate_batch(
    model: Decoder,
    prompts: Sequence[Int[np.ndarray | Array, " _"]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    stop: Collection[int] = (),
    suppress: Collection[int] = (),
    ended: Callable[[int, list[int]], bool] = lambda prompt, tokens: False,
) -> list[list[int]]:
    """The tokens that continue each prompt, without the prompt and the stop token that ends them.

    Programs are compiled per power of two of the number of prompts, of the longest prompt's length,
    and of that and the new tokens together. Tokens are generated in blocks of 1, 2, 4, ...
    `MOST_AT_ONCE` on the device.

    Args:
        model: the model.
        prompts: token ids of each prompt, at least one.
        max_new_tokens: maximum number of tokens to generate for each.
        temperature: 0 takes the most likely token, 1 samples from the model's distribution.
        seed: seed of the sampling.
        stop: ids that end a text.
        suppress: ids that are never generated.
        ended: called after each block with the number of each unfinished prompt and all of its
            tokens so far; True ends it.

    Raises:
        UserError: a prompt is empty, has an id for which the model has no row, or does not fit
            into the model's positions together with the new tokens.
    """
    prompts = [_checked(np.asarray(prompt, np.int32), max_new_tokens, model) for prompt in prompts]
    generated: list[list[int]] = [[] for _ in prompts]
    stop = {*stop}
    if max_new_tokens < 1 or not prompts:
        return generated
    rows = _power_of_two(len(prompts))
    longest = _round_up(max(map(len, prompts)), model.config.max_positions)
    tokens, first = np.zeros((rows, longest), np.int32), np.full(rows, longest - 1)
    for row, prompt in enumerate(prompts):
        first[row] = longest - len(prompt)
        tokens[row, first[row] :] = prompt
    ids = np.arange(model.config.vocab_size)
    choice = _Choice(float(temperature), seed, ~np.isin(ids, [*suppress]), np.isin(ids, [*stop]))
    done = np.arange(rows) >= len(prompts)

    def collect(block: Int[Array, "rows _"], made: int) -> None:
        for row, tokens in enumerate(to_host(block)[: len(prompts), :made].tolist()):
            if not done[row]:
                place = next((i for i, token in enumerate(tokens) if token in stop), made)
                generated[row] += tokens[:place]
                done[row] = place < made or ended(row, generated[row])

    graphdef, params = nnx.split(model)
    length = _round_up(longest + max_new_tokens)
    token, cache = _begin(graphdef, params, length, tokens, first, choice)
    collect(token[:, None], 1)
    total, block = 1, 1
    while total < max_new_tokens and not done.all():
        count = min(block, max_new_tokens - total)
        tokens_made, made, token, cache = _continue(
            graphdef, params, cache, token, done, count, choice
        )
        collect(tokens_made, int(made))
        total, block = total + int(made), min(2 * block, MOST_AT_ONCE)
    return generated


def _checked(
    prompt: Int[np.ndarray, " length"], max_new_tokens: int, model: Decoder
) -> Int[np.ndarray, " length"]:
    length, limit = len(prompt), model.config.max_positions
    if not length:
        raise UserError("The prompt is empty: give at least one token.")
    if prompt.min() < 0 or prompt.max() >= model.config.vocab_size:
        raise UserError(
            f"The prompt has ids from {prompt.min()} to {prompt.max()}, but the model has "
            f"{model.config.vocab_size} rows: encode it with the model's tokenizer."
        )
    if limit is not None and length + max_new_tokens > limit:
        raise UserError(
            f"The prompt's {length} tokens and {max_new_tokens} new ones exceed the model's "
            f"{limit} positions: shorten the prompt or generate fewer tokens."
        )
    return prompt


class _Choice(NamedTuple):
    """How the next token is chosen."""

    temperature: float
    seed: int
    allowed: Bool[np.ndarray | Array, " vocab"]
    stop: Bool[np.ndarray | Array, " vocab"]

    def pick(self, logits: Float[Array, "rows vocab"], cache: Cache) -> Int[Array, " rows"]:
        """The token that follows each row; a row's choice does not depend on the other rows."""
        logits = jnp.where(self.allowed[None], logits, -jnp.inf)

        def sample(
            row: Int[Array, ""], position: Int[Array, ""], logits: Float[Array, " vocab"]
        ) -> Int[Array, ""]:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), row), position)
            return jax.random.categorical(key, logits / self.temperature)

        rows, positions = jnp.arange(len(logits)), cache.used - cache.first
        chosen = jax.lax.cond(
            self.temperature > 0,
            lambda: jax.vmap(sample)(rows, positions, logits),
            lambda: jnp.argmax(logits, axis=-1),
        )
        return chosen.astype(jnp.int32)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _round_up(length: int, limit: int | None = None) -> int:
    rounded = max(SHORTEST, _power_of_two(length))
    return rounded if limit is None else min(rounded, limit)


@partial(jax.jit, static_argnums=(0, 2))
def _begin(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    length: int,
    tokens: Int[Array, "rows padded"],
    first: Int[Array, " rows"],
    choice: _Choice,
) -> tuple[Int[Array, " rows"], Cache]:
    """Read prompts, padded at their left, and pick the token that follows each of them."""
    model = nnx.merge(graphdef, params)
    hidden, cache = model.read(tokens, Cache.empty(model, length, first))
    return choice.pick(model.logits(hidden[:, -1]), cache), cache


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _continue(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    cache: Cache,
    token: Int[Array, " rows"],
    done: Bool[Array, " rows"],
    count: Int[Array, ""],
    choice: _Choice,
) -> tuple[Int[Array, "rows most"], Int[Array, ""], Int[Array, " rows"], Cache]:
    """Up to ``count`` tokens that follow ``token`` in each row, their number, the last, the cache.

    Fewer are generated if a stop token has ended each row that is not ``done``.
    """

    def more_to_generate(state: tuple[Any, ...]) -> Array:
        _, made, _, done, _ = state
        return (made < count) & ~jnp.all(done)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens, made, token, done, cache = state
        model = nnx.merge(graphdef, params)
        hidden, cache = model.read(token[:, None], cache)
        token = choice.pick(model.logits(hidden[:, -1]), cache)
        return tokens.at[:, made].set(token), made + 1, token, done | choice.stop[token], cache

    empty = jnp.zeros((len(token), MOST_AT_ONCE), jnp.int32)
    start = (empty, jnp.int32(0), token, done, cache)
    tokens, made, token, _, cache = jax.lax.while_loop(more_to_generate, step, start)
    return tokens, made, token, cache


@checked
def generate_text(
    model: PathOrName,
    prompt: str,
    *,
    max_new_tokens: NewTokens = 50,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    dtype: str | None = None,
    mesh: Mesh | None = None,
) -> str:
    """The prompt followed by the text with which a model continues it.

    Args:
        model: Hugging Face folder, hub id or run folder.
        prompt: beginning of the text; an empty one starts a new document.
        max_new_tokens: maximum number of tokens to generate; the document may end earlier.
        temperature: 0 takes the most likely token, 1 samples from the model's distribution.
        seed: seed of the sampling.
        dtype: of the computation, see `clp_jax.mesh.inference_dtype`.
        mesh: where the model is; one device by default.

    Raises:
        UserError: the model cannot be loaded, or the prompt is too long for it.
    """
    [text] = generate_texts(
        model,
        [prompt],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        dtype=dtype,
        mesh=mesh,
    )
    return text


def generate_texts(
    model: str | Path,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    dtype: str | None = None,
    mesh: Mesh | None = None,
) -> list[str]:
    """Each prompt followed by its continuation; see `generate_text`. The model is loaded once."""
    compute_dtype = inference_dtype(dtype)
    tokenizer = model_tokenizer(model)
    stop, suppress = _own_settings(model_files(model))
    begin = [] if tokenizer.eos is None else [tokenizer.eos]
    tokens = [tokenizer.encode_context(prompt) or begin for prompt in prompts]
    generated = generate_batch(
        load_model(model, mesh=mesh, compute_dtype=compute_dtype),
        [np.asarray(ids, np.int32) for ids in tokens],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        stop={*begin, *stop},
        suppress=suppress,
    )
    return [
        f"{prompt}{tokenizer.decode_after(ids, new)}"
        for prompt, ids, new in zip(prompts, tokens, generated, strict=True)
    ]


def _own_settings(folder: Path) -> tuple[set[int], set[int]]:
    """Ids that end a text and ids that are never generated, by the model's generation settings."""
    settings = read_generation(folder)
    return {*end_ids(settings)}, {*(settings.get("suppress_tokens") or ())}
