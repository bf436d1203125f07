"""The roles of special tokens, by which they are matched."""

from collections.abc import Mapping

from clp_jax.tokenizer import ROLES

CHAT_ROLES = {
    "<|im_start|>": "turn start",  # ChatML
    "<|im_end|>": "turn end",
    "<|start_header_id|>": "turn start",  # Llama 3
    "<|eot_id|>": "turn end",
    "<start_of_turn>": "turn start",  # Gemma
    "<end_of_turn>": "turn end",
    "<|end|>": "turn end",  # Phi
    "<|system|>": "system",  # Phi, Zephyr
    "<|user|>": "user",
    "<|assistant|>": "assistant",
}
"""Roles of chat tokens, by their spellings in known model families."""

SUBSTITUTES = {"bos": "cls", "cls": "bos", "eos": "sep", "sep": "eos", "pad": "eos"}
"""The role to use instead, if the source has no token for the role itself."""


def roles_of(name: str, named: Mapping[str, int | None], id: int) -> tuple[str, ...]:
    """The roles of a special token; its name if it has no known role.

    Args:
        name: its spelling in the tokenizer.
        named: the tokenizer's ids by role.
        id: its id.
    """
    roles = [role for role in ROLES if named[role] == id]
    roles += [CHAT_ROLES[name]] if name in CHAT_ROLES else []
    return tuple(roles or [name])


def find_role(roles: tuple[str, ...], ids: Mapping[str, int]) -> int | None:
    """The id for one of ``roles``, or else for a substitute; None if there is neither."""
    wanted = [*roles, *(SUBSTITUTES[role] for role in roles if role in SUBSTITUTES)]
    return next((ids[role] for role in wanted if role in ids), None)
