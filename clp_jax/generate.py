"""Continue a prompt."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

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
from clp_jax.mesh import inference_dtype
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
    temperature: float = 0.0,
    seed: int = 0,
    stop: Collection[int] = (),
    suppress: Collection[int] = (),
    ended: Callable[[list[int]], bool] = lambda tokens: False,
) -> list[int]:
    """The tokens that continue a prompt, without the prompt and the stop token that ends them.

    Programs are compiled per power of two of the prompt length and of the total length. Tokens are
    generated in blocks of 1, 2, 4, ... `MOST_AT_ONCE` on the device.

    Args:
        model: the model.
        prompt: token ids, at least one.
        max_new_tokens: maximum number of tokens to generate.
        temperature: 0 takes the most likely token, 1 samples from the model's distribution.
        seed: seed of the sampling.
        stop: ids that end the text.
        suppress: ids that are never generated.
        ended: called with all tokens so far after each block; True ends the generation.

    Raises:
        UserError: the prompt is empty, has an id for which the model has no row, or does not fit
            into the model's positions together with the new tokens.
    """
    prompt = np.asarray(prompt, np.int32)
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
    if max_new_tokens < 1:
        return []
    graphdef, params = nnx.split(model)
    ids = np.arange(model.config.vocab_size)
    choice = _Choice(float(temperature), seed, ~np.isin(ids, [*suppress]), np.isin(ids, [*stop]))
    padded = _round_up(length, limit)
    cache = Cache.empty(model.config, 1, _round_up(length + max_new_tokens, limit), model.dtype)
    token, cache = _read(
        graphdef, params, cache, np.pad(prompt, (0, padded - length)), length, choice
    )
    generated = [int(token)]
    block = 1
    while generated[-1] not in stop and len(generated) < max_new_tokens and not ended(generated):
        count = min(block, max_new_tokens - len(generated))
        tokens, made, cache = _continue(graphdef, params, cache, generated[-1], count, choice)
        generated += np.asarray(tokens)[: int(made)].tolist()
        block = min(2 * block, MOST_AT_ONCE)
    return generated[:-1] if generated[-1] in stop else generated


class _Choice(NamedTuple):
    """How the next token is chosen."""

    temperature: float
    seed: int
    allowed: Bool[np.ndarray | Array, " vocab"]
    stop: Bool[np.ndarray | Array, " vocab"]

    def pick(self, logits: Float[Array, " vocab"], position: Int[Array, ""]) -> Int[Array, ""]:
        """The token at a position."""
        logits = jnp.where(self.allowed, logits, -jnp.inf)
        key = jax.random.fold_in(jax.random.key(self.seed), position)
        sampled = jax.random.categorical(key, logits / jnp.maximum(self.temperature, 1e-6))
        return jnp.where(self.temperature > 0, sampled, jnp.argmax(logits)).astype(jnp.int32)


def _round_up(length: int, limit: int | None) -> int:
    rounded = max(SHORTEST, 1 << (length - 1).bit_length())
    return rounded if limit is None else min(rounded, limit)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _read(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    cache: Cache,
    tokens: Int[Array, " padded"],
    length: Int[Array, ""],
    choice: _Choice,
) -> tuple[Int[Array, ""], Cache]:
    """Read a prompt, padded at its end, and pick the token that follows."""
    logits, cache = nnx.merge(graphdef, params).decode(tokens[None], cache, length - 1)
    return choice.pick(logits[0], length), cache._replace(used=length)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _continue(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    cache: Cache,
    token: Int[Array, ""],
    count: Int[Array, ""],
    choice: _Choice,
) -> tuple[Int[Array, " most"], Int[Array, ""], Cache]:
    """Up to ``count`` tokens that follow ``token``, their number, and the updated cache."""

    def more_to_generate(state: tuple[Array, Array, Array, Cache]) -> Array:
        _, made, token, _ = state
        return (made < count) & ~choice.stop[token]

    def step(state: tuple[Array, Array, Array, Cache]) -> tuple[Array, Array, Array, Cache]:
        tokens, made, token, cache = state
        logits, cache = nnx.merge(graphdef, params).decode(token[None, None], cache, 0)
        token = choice.pick(logits[0], cache.used)
        return tokens.at[made].set(token), made + 1, token, cache

    empty = jnp.zeros(MOST_AT_ONCE, jnp.int32)
    start = (empty, jnp.int32(0), jnp.asarray(token, jnp.int32), cache)
    tokens, made, _, cache = jax.lax.while_loop(more_to_generate, step, start)
    return tokens, made, cache


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
    compute_dtype = inference_dtype(dtype)
    tokenizer = model_tokenizer(model)
    stop, suppress = _own_settings(model_files(model))
    tokens = tokenizer.encode_context(prompt)
    if not tokens and tokenizer.eos is not None:
        tokens = [tokenizer.eos]
    generated = generate_tokens(
        load_model(model, mesh=mesh, compute_dtype=compute_dtype),
        np.asarray(tokens, np.int32),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        stop=stop if tokenizer.eos is None else {tokenizer.eos, *stop},
        suppress=suppress,
    )
    return f"{prompt}{tokenizer.decode_after(tokens, generated)}"


def _own_settings(folder: Path) -> tuple[set[int], set[int]]:
    """Ids that end a text and ids that are never generated, by the model's generation settings."""
    settings = read_generation(folder)
    return {*end_ids(settings)}, {*(settings.get("suppress_tokens") or ())}
