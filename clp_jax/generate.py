"""Text that goes on from a prompt."""

from collections.abc import Collection
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from clp_jax.arguments import checked
from clp_jax.checkpoint.hf import load_model, model_tokenizer
from clp_jax.checkpoint.hub import model_files, read_generation
from clp_jax.errors import UserError
from clp_jax.limits import NewTokens, PathOrName, Seed, Temperature
from clp_jax.models import Cache, Decoder

# Prompts are padded to a multiple of this, so that few lengths are compiled.
PROMPT_STEP = 64


def generate_tokens(
    model: Decoder,
    prompt: Int[np.ndarray | Array, "length"],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    stop: Collection[int] = (),
    suppress: Collection[int] = (),
) -> list[int]:
    """Tokens that go on from a prompt, without the prompt; a stop token ends them and is left out.

    Args:
        model: the model.
        prompt: token ids, at least one.
        max_new_tokens: most tokens to generate.
        temperature: 0 takes the most likely token, 1 samples from the model's distribution.
        seed: seed of the sampling.
        stop: ids that end the text.
        suppress: ids that are never generated.

    Raises:
        UserError: the prompt is empty, or with the new tokens longer than the model's positions.
    """
    prompt = np.asarray(prompt, np.int32)
    length, limit = len(prompt), model.config.max_positions
    if not length:
        raise UserError("The prompt is empty: give at least one token.")
    if limit is not None and length + max_new_tokens > limit:
        raise UserError(
            f"The prompt's {length} tokens and {max_new_tokens} new ones are more than the "
            f"model's {limit} positions: shorten one of them."
        )
    padded = -(-length // PROMPT_STEP) * PROMPT_STEP
    padded = padded if limit is None else min(padded, limit)
    graphdef, params = nnx.split(model)
    allowed = ~np.isin(np.arange(model.config.vocab_size), [*suppress])
    cache = Cache.empty(model.config, 1, padded + max_new_tokens, model.dtype)
    tokens = np.pad(prompt, (0, padded - length))
    generated: list[int] = []
    while len(generated) < max_new_tokens:
        total = length + len(generated)
        token, cache = _next_token(
            graphdef, params, tokens, cache, total, float(temperature), seed, allowed
        )
        if int(token) in stop:
            break
        generated.append(int(token))
        tokens = token[None]
    return generated


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def _next_token(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    tokens: Int[Array, "length"],
    cache: Cache,
    total: Int[Array, ""],
    temperature: Float[Array, ""],
    seed: Int[Array, ""],
    allowed: Bool[Array, "vocab"],
) -> tuple[Int[Array, ""], Cache]:
    """Read tokens (those beyond ``total`` positions are padding) and pick the one that follows."""
    logits, read = nnx.merge(graphdef, params).decode(tokens[None], cache)
    last = jnp.where(allowed, logits[0, total - 1 - cache.used], -jnp.inf)
    key = jax.random.fold_in(jax.random.key(seed), total)
    sampled = jax.random.categorical(key, last / jnp.maximum(temperature, 1e-6))
    token = jnp.where(temperature > 0, sampled, jnp.argmax(last))
    return token, read._replace(used=total)


@checked
def generate_text(
    model: PathOrName,
    prompt: str,
    *,
    max_new_tokens: NewTokens = 50,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    mesh: Mesh | None = None,
) -> str:
    """The prompt and the text with which a model goes on.

    Args:
        model: Hugging Face folder, hub id or run folder.
        prompt: beginning of the text; an empty one starts a new document.
        max_new_tokens: most tokens to generate; the end of the document may come before.
        temperature: 0 takes the most likely token, 1 samples from the model's distribution.
        seed: seed of the sampling.
        mesh: where the model is; one device by default.

    Raises:
        UserError: the model cannot be loaded, or the prompt is too long for it.
    """
    tokenizer = model_tokenizer(model)
    stop, suppress = _own_settings(model_files(model))
    tokens = tokenizer.encode_context(prompt)
    if not tokens and tokenizer.eos is not None:
        tokens = [tokenizer.eos]
    generated = generate_tokens(
        load_model(model, mesh=mesh),
        np.asarray(tokens, np.int32),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        stop=stop if tokenizer.eos is None else {tokenizer.eos, *stop},
        suppress=suppress,
    )
    return f"{prompt}{tokenizer.decode_after(tokens, generated)}"


def _own_settings(folder: Path) -> tuple[set[int], set[int]]:
    """Ids that end a text and ids that are never generated, by the model's own settings."""
    settings = read_generation(folder)
    end = settings.get("eos_token_id")
    ends = end if isinstance(end, list) else [] if end is None else [end]
    return {*ends}, {*(settings.get("suppress_tokens") or ())}
