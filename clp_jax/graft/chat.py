"""The chat template of an instruct model for another tokenizer, with the tokens that it needs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from clp_jax.checkpoint.hub import end_ids, load_tokenizer
from clp_jax.errors import UserError
from clp_jax.files import write_json, write_text
from clp_jax.tokenizer import ROLES, Tokenizer
from clp_jax.tokenizer.chat import spell_conversation
from clp_jax.vocabulary.extend import tokenizer_settings

_CONVERSATION = tuple(
    {"role": role, "content": "x"} for role in ("system", "user", "assistant", "user")
)
_IDS = {
    *(f"{role}_token_id" for role in ("bos", "eos", "pad", "decoder_start")),
    *("forced_bos_token_id", "forced_eos_token_id", "forced_decoder_ids"),
    *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids"),
    "sequence_bias",
}
"""Keys of ``generation_config.json`` whose values are ids of tokens."""


@dataclass(frozen=True)
class ChatTokens:
    """The tokens that a chat template writes, in two vocabularies."""

    ids: Mapping[int, int]
    """The grafted model's id for each of the instruct model's, ascending."""
    new: tuple[int, ...]
    """The instruct model's ids of those that the adapted model lacks."""


def chat_tokens(instruct: Tokenizer, adapted: Tokenizer) -> ChatTokens:
    """The tokens that an instruct model's template writes, and their ids in the grafted model.

    A token that the template spells out, such as ``<|im_start|>``, becomes the token with the same
    spelling. One that it only names, such as ``bos_token``, becomes the token of the same role. In
    both cases the token is new if there is none.

    Args:
        instruct: The tokenizer with the template; without one, it needs no tokens.
        adapted: The tokenizer to carry the template to.

    Raises:
        UserError: the template cannot spell a conversation.
    """
    template = instruct.chat_template
    if template is None:
        return ChatTokens({}, ())
    added = {token["id"]: token["content"] for token in instruct.state["added_tokens"]}
    spelled = {id for id, content in added.items() if content in template}
    shown = added.keys() & {*instruct.encode(_conversation(instruct), special=True)}
    ids: dict[int, int] = {}
    new: list[int] = []
    for id in sorted(spelled | shown):
        named = [role for role in ROLES if instruct.roles[role] == id and id not in spelled]
        own = [adapted.roles[role] for role in named] + [adapted.vocabulary.get(added[id])]
        found = next((one for one in own if one is not None), None)
        if found is None:
            found = adapted.rows + len(new)
            new.append(id)
        ids[id] = found
    return ChatTokens(ids, tuple(new))


def write_tokenizer(
    folder: Path, instruct: Tokenizer, adapted: Tokenizer, tokens: ChatTokens, files: Path
) -> Tokenizer:
    """Write the adapted tokenizer with a template and its tokens into a folder, and read it.

    The instruct model's eos, if the template writes it, becomes eos: it ends a turn.

    Args:
        folder: The folder of the grafted model.
        instruct: The tokenizer with the template, if it has one.
        adapted: The tokenizer to write.
        tokens: The tokens of the template.
        files: The folder with the adapted tokenizer's files.

    Raises:
        UserError: the new tokens cannot have the ids after all others, or the written tokenizer
            does not find the template's tokens in a conversation.
    """
    backend = tokenizers.Tokenizer.from_str(adapted.description)
    described = {token.pop("id"): token for token in instruct.state["added_tokens"]}
    for theirs, ours in tokens.ids.items():
        if theirs in tokens.new or instruct.token(theirs) == adapted.token(ours):
            backend.add_tokens([tokenizers.AddedToken(**described[theirs])])
    backend.save(str(folder / "tokenizer.json"))
    settings = tokenizer_settings(files, adapted)
    for role, id in instruct.roles.items():
        if id is None or id not in tokens.ids:
            continue
        if role == "eos" or adapted.roles[role] is None:
            settings[f"{role}_token"] = backend.id_to_token(tokens.ids[id])
    template = instruct.chat_template or adapted.chat_template
    settings.pop("chat_template", None)
    write_json(folder / "tokenizer_config.json", settings)
    if template is not None:
        write_text(folder / "chat_template.jinja", template)
    grafted = load_tokenizer(folder)
    _check(grafted, instruct, adapted.name, tokens)
    return grafted


def _check(grafted: Tokenizer, instruct: Tokenizer, name: str, tokens: ChatTokens) -> None:
    """Make sure that the template's tokens have their ids and are found in a conversation."""
    for id in tokens.new:
        spelling = instruct.token(id) or ""
        if grafted.vocabulary.get(spelling) != tokens.ids[id]:
            raise UserError(
                f"The tokenizer of {name} has unassigned ids, so {spelling} of the chat template "
                "cannot be added after the others: renumber its tokens."
            )
    if instruct.chat_template is None:
        return
    theirs, ours = (one.encode(_conversation(one), special=True) for one in (instruct, grafted))
    expected = [tokens.ids[id] for id in theirs if id in tokens.ids]
    if [id for id in ours if id in {*tokens.ids.values()}] != expected:
        raise UserError(
            f"The tokenizer of {name} does not find the tokens of the chat template of "
            f"{instruct.name} in a conversation: add them to it as special tokens."
        )


def _conversation(tokenizer: Tokenizer) -> str:
    """A conversation as text, with a system turn if the template allows one."""
    try:
        return spell_conversation(tokenizer, _CONVERSATION)
    except ValueError:
        pass
    try:
        return spell_conversation(tokenizer, _CONVERSATION[1:])
    except ValueError as error:
        raise UserError(
            f"The chat template of {tokenizer.name} cannot spell a conversation ({error}): fetch "
            "it again, or name another instruct model."
        ) from None


def generation_settings(
    settings: Mapping[str, Any],
    ends: Iterable[int | None],
    tokenizer: Tokenizer,
    tokens: ChatTokens,
) -> dict[str, Any]:
    """An instruct model's ``generation_config.json`` with the ids of the grafted model.

    Args:
        settings: The instruct model's.
        ends: The ids that end a text in the adapted model.
        tokenizer: The grafted model's.
        tokens: The tokens of the template.
    """
    theirs = (tokens.ids.get(id) for id in end_ids(settings))
    stops = [id for id in dict.fromkeys([tokenizer.eos, *theirs, *ends]) if id is not None]
    named: dict[str, Any] = {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": stops[0] if len(stops) == 1 else stops or None,
        "pad_token_id": tokenizer.roles["pad"],
    }
    kept = {key: value for key, value in settings.items() if key not in _IDS}
    return kept | {key: value for key, value in named.items() if value is not None}
