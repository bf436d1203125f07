"""Conversations as text, by the chat template of a tokenizer."""

from collections.abc import Mapping, Sequence
from typing import Any

from clp_jax.tokenizer.owner import Tokenizer


def spell_conversation(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool = True,
) -> str:
    """The text of a conversation, special tokens included.

    The template runs in the sandbox of `transformers`.

    Args:
        tokenizer: Has a chat template.
        messages: Turns, each with a ``role`` and its ``content``.
        add_generation_prompt: Whether the text ends with the beginning of an answer; otherwise it
            ends within the last turn, to be continued.

    Raises:
        ValueError: the template is broken, or refuses the conversation.
    """
    from transformers.utils import chat_template_utils

    render: Any = chat_template_utils.render_jinja_template  # Its annotations are wrong.
    roles = tokenizer.roles.items()
    spellings = {f"{role}_token": tokenizer.token(id) for role, id in roles if id is not None}
    try:
        [text], _ = render(
            [list(messages)],
            chat_template=tokenizer.chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **spellings,
        )
    except Exception as error:  # The template is a program, which can fail in any way.
        raise ValueError(str(error)) from None
    return text
