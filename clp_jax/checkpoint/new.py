"""A new model: the configuration of a GPT-2 for a tokenizer."""

from typing import Any

from clp_jax.arguments import checked
from clp_jax.checkpoint.hub import copy_tokenizer, load_tokenizer, model_files
from clp_jax.errors import UserError
from clp_jax.files import new_folder, write_json
from clp_jax.limits import LocalPath, PathOrName, Positive, SequenceLength
from clp_jax.models import read_decoder_config
from clp_jax.tokenizer import Tokenizer


@checked
def new_model(
    tokenizer: PathOrName,
    out: LocalPath,
    *,
    n_layer: Positive = 12,
    n_embd: Positive = 768,
    n_head: Positive = 12,
    n_positions: SequenceLength = 1024,
) -> None:
    """Write the configuration of a GPT-2 for a tokenizer, together with the tokenizer.

    There are no weights: training draws them (``model.init: random``). The model has no dropout and
    one row per id.

    Args:
        tokenizer: Folder, hub id or run folder with the tokenizer.
        out: New folder; it must not exist yet.
        n_layer: Layers.
        n_embd: Width of the layers.
        n_head: Attention heads per layer; must divide the width.
        n_positions: Longest sequence, in tokens.

    Raises:
        UserError: there is no such tokenizer, it has no end-of-text token, the sizes do not make a
            model, or ``out`` exists.
    """
    config = gpt2_config(
        load_tokenizer(tokenizer),
        n_layer=n_layer,
        n_embd=n_embd,
        n_head=n_head,
        n_positions=n_positions,
    )
    with new_folder(out) as folder:
        write_json(folder / "config.json", config)
        copy_tokenizer(model_files(tokenizer), folder)


def gpt2_config(
    tokenizer: Tokenizer, *, n_layer: int, n_embd: int, n_head: int, n_positions: int
) -> dict[str, Any]:
    """The ``config.json`` that `new_model` writes.

    Raises:
        UserError: the tokenizer has no end-of-text token, or the sizes do not make a model.
    """
    end = tokenizer.separator()
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": tokenizer.rows,
        "n_layer": n_layer,
        "n_embd": n_embd,
        "n_head": n_head,
        "n_positions": n_positions,
        "bos_token_id": end if tokenizer.bos is None else tokenizer.bos,
        "eos_token_id": end,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": True,
    }
    try:
        read_decoder_config(config)
    except UserError as error:
        raise UserError(f"These sizes do not make a model: {error}") from None
    return config
