"""Chat without instruction data: what instruction tuning changed, added to an adapted model.

The weights of a tuned model minus those of its base are a task vector, which can be added to
another model trained from the same base (Ilharco et al. 2023, arXiv 2212.04089), also to one that
was adapted to another language (Huang et al. 2024, arXiv 2310.04799). With a new vocabulary it is
added to the layers, and each token keeps the row that it has in the adapted model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clp_jax.arguments import checked
from clp_jax.checkpoint.card import CARD, flat, inherited, render_card
from clp_jax.checkpoint.hf import model_tokenizer, open_model
from clp_jax.checkpoint.hub import (
    GENERATION,
    UNPADDED,
    end_ids,
    model_files,
    read_config,
    read_generation,
)
from clp_jax.checkpoint.tensors import write_tensors
from clp_jax.files import new_folder, new_path, public_name, write_json, write_text
from clp_jax.graft.chat import chat_tokens, generation_settings, write_tokenizer
from clp_jax.graft.kinship import (
    MOST_ADAPTED,
    MOST_TUNED,
    check_configs,
    check_difference,
    relative_difference,
)
from clp_jax.graft.tensors import add_difference, add_rows
from clp_jax.limits import FloatType, LocalPath, PathOrName
from clp_jax.models import weight_table


@dataclass(frozen=True)
class Graft:
    """What a graft added."""

    tuning: float
    """Norm of instruct - base, relative to that of the base; see `relative_difference`."""
    adaptation: float
    """The same of adapted - base."""
    new_tokens: Mapping[str, int]
    """Tokens of the chat template that the adapted model lacked, with their ids."""
    has_template: bool
    """Whether the instruct model has a chat template."""

    def __str__(self) -> str:
        tokens = ", ".join(f"{name} ({id})" for name, id in self.new_tokens.items())
        template = f"carried over, with {f'the new tokens {tokens}' if tokens else 'no new token'}"
        return (
            f"instruct - base: {self.tuning:.2%} of the base's weights\n"
            f"model - base:    {self.adaptation:.2%}\n"
            f"chat template:   {template if self.has_template else 'the instruct model has none'}"
        )


@checked
def graft_model(
    model: PathOrName,
    base: PathOrName,
    instruct: PathOrName,
    out: LocalPath,
    *,
    dtype: FloatType | None = None,
) -> Graft:
    """Write a model for chat: an adapted model plus what changed from a base to an instruct model.

    Every tensor of the layers is model + (instruct - base), computed in float64. Each token of the
    model keeps its rows; tokens of the chat template that the model lacks follow with the instruct
    model's rows. A token of the template that all three models have gets the sum. One tensor at a
    time is in memory, except for a run folder, which is loaded at once.

    Args:
        model: The adapted model: Hugging Face folder, hub id or run folder.
        base: The model that it and ``instruct`` were trained from.
        instruct: The model tuned for chat. Its template, its eos and its settings for generation
            become those of the result.
        out: New folder in Hugging Face's format.
        dtype: Floating-point type of the weights; None keeps those of ``model``.

    Raises:
        UserError: the models are not of one base: their configurations differ, or their weights by
            more than training explains; the template's tokens cannot be carried over; or ``out``
            exists.
    """
    new_path(out)
    names = [str(name) for name in (model, base, instruct)]
    (config, adapted), (reference, plain), (_, tuned) = opened = [
        open_model(name) for name in (model, base, instruct)
    ]
    for name, (other, _) in zip(names, opened, strict=True):
        check_configs(names[1], reference, name, other)
    ours, base_tokenizer, theirs = (model_tokenizer(name) for name in (model, base, instruct))
    tokens = chat_tokens(theirs, ours)
    tables = [weight.name for weight in weight_table(config) if weight.axes[0] == "vocab"]
    layers = [name for name in adapted if name not in tables]
    tuning = relative_difference(tuned, plain, layers)
    check_difference(names[1], names[2], tuning, MOST_TUNED)
    adaptation = relative_difference(adapted, plain, layers)
    check_difference(names[1], names[0], adaptation, MOST_ADAPTED)

    files = model_files(model)
    values = read_config(files)
    real = values.pop(UNPADDED, config.vocab_size)
    same = frozenset(id for id in tokens.ids if base_tokenizer.token(id) == theirs.token(id))
    grafted = {
        name: add_rows(tensor.head(real), tuned[name], plain[name], tokens, same)
        if name in tables
        else add_difference(tensor, tuned[name], plain[name])
        for name, tensor in adapted.items()
    }
    written = {
        name: tensor.astype(None if dtype is None else np.dtype(dtype))
        for name, tensor in grafted.items()
    }
    with new_folder(out) as folder:
        tokenizer = write_tokenizer(folder, theirs, ours, tokens, files)
        table = written[tables[0]]
        values |= {"vocab_size": table.shape[0], "dtype": str(table.dtype)}
        values |= {
            f"{role}_token_id": tokenizer.roles[role]
            for role in ("bos", "eos", "pad")
            if tokenizer.roles[role] is not None
        }
        values.pop("torch_dtype", None)
        write_json(folder / "config.json", values)
        write_json(
            folder / GENERATION,
            generation_settings(
                read_generation(model_files(instruct)),
                [*end_ids(read_generation(files)), ours.eos],
                tokenizer,
                tokens,
            ),
        )
        write_text(folder / CARD, _card(model, base, instruct, Path(out).name))
        write_tensors(folder, written)
    return Graft(
        tuning,
        adaptation,
        {theirs.token(id) or "": tokens.ids[id] for id in tokens.new},
        theirs.chat_template is not None,
    )


def _card(model: PathOrName, base: PathOrName, instruct: PathOrName, title: str) -> str:
    """The card of a grafted model, with the metadata of the models that it is made of."""
    adapted, tuned = (inherited(name, model_files(name)) for name in (model, instruct))
    both = {
        key: flat([adapted.get(key), tuned.get(key)]) for key in ("language", "base_model", "tags")
    }
    ours, plain, theirs = (public_name(name) for name in (model, base, instruct))
    body = f"""\
A model for chat, made by clp_jax without instruction data: its layers are those of `{ours}` plus
those of `{theirs}` minus those of `{plain}`. Its tokens are those of `{ours}`, its chat template is
that of `{theirs}`. It has not been trained since. The licences of all three models apply.
"""
    return render_card(title, tuned | adapted | both, body)
